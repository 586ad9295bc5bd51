"""`TemperatureSchedule`: the temperature over the epochs or steps of `fit`."""

from keras_kd import checks
from keras_kd.callbacks.scheduled import ScheduledValue


class TemperatureSchedule(ScheduledValue):
    """Changes the temperature of the distillation losses while `fit` runs.

    A high temperature shows the student how the teacher ranks all classes; a low one, later, the
    teacher's decisions. The losses keep their factor `T^2`, so their gradients stay comparable.
    Nothing is traced again. The history gets an entry `temperature`.

    Args:
        start: First temperature, positive; or a schedule: an object of `keras_kd.schedules`, a
            Keras learning rate schedule, or a function of the epoch (or step).
        end: Last temperature.
        schedule: `"linear"`, `"cosine"` or `"exponential"`.
        start_epoch: Epoch with which it begins.
        length: Epochs (or steps) that it takes; default: what is left of `fit`.
        by: `"epoch"` or `"step"` (with `steps_per_execution`, the first step of each execution).

    Raises:
        ValueError: An argument is wrong; in `fit`: no loss has a temperature, another callback sets
            it, or the schedule begins after the last epoch.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    x, y = np.random.normal(size=(64, 8)), np.random.randint(10, size=64)
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(teacher, student)
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    cooling = kd.callbacks.TemperatureSchedule(5.0, 1.0)
    history = distiller.fit(x, y, epochs=5, callbacks=[cooling], verbose=0).history
    assert history["temperature"] == [5.0, 4.0, 3.0, 2.0, 1.0]
    ```

    Reference: Li et al., "Curriculum Temperature for Knowledge Distillation",
    https://arxiv.org/abs/2211.16231 (there the temperature is learned).
    """

    @property
    def log_name(self):
        return "temperature"

    def check_model(self):
        if not any(hasattr(loss, "temperature") for loss in self.model.distillation_losses):
            raise ValueError(
                "TemperatureSchedule: none of the distillation losses has a temperature. They are "
                f"{[loss.name for loss in self.model.distillation_losses]}."
            )

    def check_value(self, name, value):
        checks.positive(name, value)

    def set_value(self, value):
        self.model.temperature = value

    def get_value(self):
        return self.model.temperature
