"""`LossWeightSchedule`: alpha, beta or a loss's weight over the epochs or steps of `fit`."""

from keras_kd import checks
from keras_kd.callbacks.scheduled import ScheduledValue
from keras_kd.losses import base


class LossWeightSchedule(ScheduledValue):
    """Changes one factor of the objective while `fit` runs.

    The objective is `alpha * hard + beta * sum_i weight_i * distillation_i`. Nothing is traced
    again. The history gets an entry `<target>`, or `<target>_weight` for a loss's weight.

    Args:
        target: `"alpha"`, `"beta"`, the name that a distillation loss has in the history, or that
            name and another live number of the loss, such as `"curriculum_temperature.reversal"`.
        start: First value, at least 0; or a schedule: an object of `keras_kd.schedules`, a Keras
            learning rate schedule, or a function of the epoch (or step).
        end: Last value.
        schedule: `"linear"`, `"cosine"` or `"exponential"`.
        start_epoch: Epoch with which it begins.
        length: Epochs (or steps) that it takes; default: what is left of `fit`. Not for a schedule
            of the position alone, such as a function.
        by: `"epoch"` or `"step"` (with `steps_per_execution`, the first step of each execution).

    Raises:
        ValueError: An argument is wrong; in `fit`: there is no such loss, another callback sets
            this number, or the schedule begins after the last epoch.

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
        self.target = checks.text(
            "target", target, "'alpha', 'beta' or the name of a distillation loss"
        )

    @property
    def log_name(self):
        is_loss = self.target not in ("alpha", "beta") and "." not in self.target
        return f"{self.target}_weight" if is_loss else self.target

    def check_model(self):
        self._owner()

    def _owner(self):
        """What has the number, and its name: the distiller for alpha and beta, or a loss."""
        if self.target in ("alpha", "beta"):
            return self.model, self.target
        name, _, number = self.target.partition(".")
        number = number or "weight"
        losses = self.model.losses_by_name
        if name not in losses:
            raise ValueError(
                f"LossWeightSchedule: there is no distillation loss {name!r}. Expected "
                f"'alpha', 'beta' or one of {list(losses)}."
            )
        # As DistillationLoss.add_scalar's users name the variables of their live numbers.
        if not hasattr(losses[name], f"{number}_variable"):
            raise ValueError(
                f"LossWeightSchedule: distillation loss {name!r} has no live number {number!r}."
            )
        return losses[name], number

    def check_value(self, name, value):
        base.non_negative(name, value)

    def set_value(self, value):
        setattr(*self._owner(), value)

    def get_value(self):
        return getattr(*self._owner())


def check_no_schedule(target, callbacks, callback, why=""):
    """Raises if a schedule of `"alpha"` or `"beta"` is beside a callback that sets it."""
    if any(isinstance(x, LossWeightSchedule) and x.target == target for x in callbacks):
        raise ValueError(
            f"LossWeightSchedule({target!r}) would undo what {type(callback).__name__} sets{why}. "
            "Use one of them, or schedule the weights of the losses."
        )
