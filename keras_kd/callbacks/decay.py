"""`DecaySchedule`: the decay of an EMA teacher over the epochs or steps of `fit`."""

from keras_kd.callbacks.scheduled import ScheduledValue
from keras_kd.teachers import own_weights


class DecaySchedule(ScheduledValue):
    """Changes the decay of a `keras_kd.teachers.EMA` while `fit` runs.

    Nothing is traced again. The history gets an entry `ema_decay`.

    Args:
        start: First decay, from 0 to below 1; or a schedule: an object of `keras_kd.schedules`, a
            Keras learning rate schedule, or a function of the epoch (or step).
        end: Last decay.
        schedule: `"linear"`, `"cosine"` or `"exponential"`.
        start_epoch: Epoch with which it begins.
        length: Epochs (or steps) that it takes; default: what is left of `fit`.
        by: `"epoch"` or `"step"`.

    Raises:
        ValueError: An argument is wrong; in `fit`: the teacher is no `EMA`.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)), np.random.randint(10, size=64)
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(kd.teachers.EMA(student), student)
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    slower = kd.callbacks.DecaySchedule(0.9, 0.99)
    history = distiller.fit(x, y, epochs=2, callbacks=[slower], verbose=0).history
    np.testing.assert_allclose(history["ema_decay"], [0.9, 0.99], rtol=1e-6)
    ```
    """

    @property
    def log_name(self):
        return "ema_decay"

    def check_model(self):
        if not isinstance(self.model.teacher, own_weights.EMA):
            raise ValueError(
                "DecaySchedule steers a keras_kd.teachers.EMA. The distiller's teacher is a "
                f"{type(self.model.teacher).__name__}."
            )

    def check_value(self, name, value):
        own_weights.checked_decay(value, name)

    def set_value(self, value):
        self.model.teacher.decay = value

    def get_value(self):
        return self.model.teacher.decay
