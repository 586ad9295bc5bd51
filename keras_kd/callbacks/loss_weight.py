"""`LossWeightSchedule`: alpha, beta or a loss's weight over the epochs or steps of `fit`."""

from keras_kd.callbacks.scheduled import ScheduledValue
from keras_kd.losses import base


class LossWeightSchedule(ScheduledValue):
    """Changes one factor of the objective while `fit` runs.

    The objective is `alpha * hard + beta * sum_i weight_i * distillation_i`. Nothing is traced
    again. The history gets an entry `<target>`, or `<target>_weight` for a loss's weight.

    Args:
        target: `"alpha"`, `"beta"`, or the name of a distillation loss.
        start: First value, at least 0; or a schedule: an object of `keras_kd.schedules`, a Keras
            learning rate schedule, or a function of the epoch (or step).
        end: Last value.
        schedule: `"linear"`, `"cosine"` or `"exponential"`.
        start_epoch: Epoch with which it begins.
        length: Epochs (or steps) that it takes; default: what is left of `fit`.
        by: `"epoch"` or `"step"`.

    Raises:
        ValueError: An argument is wrong; in `fit`: there is no such loss, or the schedule begins
            after the last epoch.

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
    callbacks = [
        kd.callbacks.LossWeightSchedule("beta", 1.0, 0.0, "cosine"),
        kd.callbacks.LossWeightSchedule("soft_targets", kd.schedules.WarmUp(1.0, length=2)),
    ]
    history = distiller.fit(x, y, epochs=3, callbacks=callbacks, verbose=0).history
    assert history["beta"] == [1.0, 0.5, 0.0]
    assert history["soft_targets_weight"] == [0.0, 0.5, 1.0]
    ```
    """

    def __init__(self, target, start, end=None, *args, **kwargs):
        super().__init__(start, end, *args, **kwargs)
        self.target = target

    @property
    def log_name(self):
        return self.target if self.target in ("alpha", "beta") else f"{self.target}_weight"

    def check_model(self):
        self._loss()

    def _loss(self):
        """The loss that is meant; `None` for alpha and beta."""
        if self.target in ("alpha", "beta"):
            return None
        losses = {loss.name: loss for loss in self.model.distillation_losses}
        if self.target not in losses:
            raise ValueError(
                f"LossWeightSchedule: there is no distillation loss {self.target!r}. Expected "
                f"'alpha', 'beta' or one of {list(losses)}."
            )
        return losses[self.target]

    def check_value(self, value):
        base.non_negative("start or end", value)

    def set_value(self, value):
        loss = self._loss()
        if loss is None:
            setattr(self.model, self.target, value)
        else:
            loss.weight = value

    def get_value(self):
        loss = self._loss()
        return getattr(self.model, self.target) if loss is None else loss.weight
