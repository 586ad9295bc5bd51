"""Callbacks that schedule a number: temperature, alpha, beta, a loss's weight, an EMA's decay."""

from typing import Any

import keras
import numpy as np

from keras_kd import schedules
from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.teachers import self_distillation
from keras_kd.training.base import DistillationModel


class ScheduledValue(keras.callbacks.Callback):
    """Base class: follows a schedule, and logs the value that it sets.

    The position counts the epochs or steps of the whole `fit`, `initial_epoch` included, so that a
    resumed run continues where it was interrupted. Subclasses define what is set.

    Args:
        start: First value; or a whole schedule: an object of `keras_kd.schedules`, a Keras
            learning rate schedule, or a function of the position. Then `end` is left out.
        end: Last value.
        schedule: The way between them: `"linear"`, `"cosine"` or `"exponential"`.
        start_epoch: The epoch in which it begins; before that its first value holds.
        length: Epochs (steps, if `by="step"`) that it takes; then its last value holds. Default:
            the rest of `fit`.
        by: `"epoch"` or `"step"`: how often it is set. With `steps_per_execution` above 1 `"step"`
            sets it once per execution, to the value of its first step.
    """

    def __init__(
        self,
        start: Any,
        end: Any = None,
        schedule: str = "linear",
        start_epoch: int = 0,
        length: int | None = None,
        by: str = "epoch",
    ) -> None:
        super().__init__()
        if by not in ("epoch", "step"):
            raise ValueError(
                f"Invalid value for argument `by`. Expected 'epoch' or 'step'. Received: by={by!r}"
            )
        is_number = _is_number(start)
        if isinstance(start, str) or not (is_number or callable(start)):
            raise invalid(
                "start", "a number, a schedule or a function of the position", repr(start)
            )
        if is_number == (end is None):
            raise ValueError(
                "Invalid value for argument `start` or `end`. Expected two numbers, or a whole "
                f"schedule as `start` alone. Received: start={start!r}, end={end!r}"
            )
        if is_number:
            if not _is_number(end):
                raise invalid("end", "a number, as `start` is", repr(end))
            self.check_value("start", start)
            self.check_value("end", end)
        elif schedule != "linear":
            raise invalid(
                "schedule", "nothing, because `start` is a whole schedule", repr(schedule)
            )
        self.schedule = schedules.make_schedule(schedule if is_number else start, start, end)
        self.start_epoch = validation.integer("start_epoch", start_epoch, 0)
        self.length = validation.integer("length", length, 1, optional=True)
        if length is not None and not self.schedule.has_span:
            raise invalid(
                "length",
                "None, because `start` is a schedule of the position alone and does not depend on "
                "the length",
                length,
            )
        self.by = by
        self._epoch = 0

    @property
    def log_name(self) -> str:
        """The entry in the history."""
        raise NotImplementedError

    def check_value(self, name: str, value: Any) -> None:
        """Raises if the value cannot be set; `name` is the argument that it was passed as."""

    def set_value(self, value: Any) -> None:
        """Sets the value in `self.model`."""
        raise NotImplementedError

    def get_value(self) -> Any:
        """The value that `self.model` has."""
        raise NotImplementedError

    def check_model(self) -> None:
        """Raises if `self.model` has no such number."""

    def prepare(self, distiller: Any, callbacks: list[Any]) -> None:
        """Checks the callbacks beside it; called by `fit`."""
        del distiller
        scheduled = [each for each in callbacks if isinstance(each, ScheduledValue)]
        same = [each for each in scheduled if each.log_name == self.log_name]
        if len(same) > 1:
            kinds = " and ".join(type(each).__name__ for each in same)
            raise ValueError(f"Several callbacks set {self.log_name!r}: {kinds}. Pass one of them.")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not isinstance(self.model, DistillationModel):
            raise ValueError(
                f"{type(self).__name__} steers a keras_kd.Distiller or MutualDistiller. Received: "
                f"a model of type {type(self.model).__name__}. Pass it to the fit of the distiller."
            )
        self.check_model()
        epochs = self.params.get("epochs")
        if epochs is not None and self.start_epoch >= epochs:
            raise ValueError(
                f"{type(self).__name__} begins with epoch {self.start_epoch}, but fit ends with "
                f"epoch {epochs - 1}. Lower start_epoch or raise epochs."
            )
        self.value_at(0)  # an unknown span raises before any work
        if self.by == "step" and self.params.get("steps") is None and epochs != 1:
            raise ValueError(
                f"{type(self).__name__}(by='step') cannot count steps over epochs of unknown "
                "length. Pass steps_per_epoch to fit, or use by='epoch'."
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch
        if self.by == "epoch":
            self.set_value(self.value_at(epoch - self.start_epoch))

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.by == "step":
            steps = self.params.get("steps") or 0  # unknown only in a single epoch
            position = (self._epoch - self.start_epoch) * steps + batch
            self.set_value(self.value_at(position))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Like Keras' LearningRateScheduler: for the history and TensorBoard.
        if logs is not None:
            logs[self.log_name] = self.get_value()

    def value_at(self, position: int) -> float:
        """The value at a position counted from the start of the schedule."""
        return self.schedule(max(position, 0), self._count())

    def _count(self):
        """The number of positions that the schedule spans; `None` if that is not known."""
        if self.length is not None:
            return self.length
        epochs = self.params.get("epochs")
        if epochs is None:
            return None
        epochs -= self.start_epoch
        if self.by == "epoch":
            return epochs
        steps = self.params.get("steps")
        return None if steps is None else epochs * steps


class TemperatureSchedule(ScheduledValue):
    """Changes the temperature of the distillation losses while `fit` runs.

    A high temperature shows the student how the teacher ranks all classes; a low one, later, the
    teacher's decisions. The losses keep their factor `T^2`, so their gradients stay comparable.
    This causes no retracing. The history gets an entry `temperature`.

    Args:
        start: First temperature, positive; or a schedule: an object of `keras_kd.schedules`, a
            Keras learning rate schedule, or a function of the epoch (or step).
        end: Last temperature.
        schedule: `"linear"`, `"cosine"` or `"exponential"`.
        start_epoch: The epoch in which it begins.
        length: Epochs (or steps) that it takes; default: the rest of `fit`.
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
    def log_name(self) -> str:
        return "temperature"

    def check_model(self) -> None:
        if not any(hasattr(loss, "temperature") for loss in self.model.distillation_losses):
            raise ValueError(
                "TemperatureSchedule: none of the distillation losses has a temperature. They are "
                f"{[loss.name for loss in self.model.distillation_losses]}."
            )

    def check_value(self, name: str, value: Any) -> None:
        validation.positive(name, value)

    def set_value(self, value: Any) -> None:
        self.model.temperature = value

    def get_value(self) -> Any:
        return self.model.temperature


class LossWeightSchedule(ScheduledValue):
    """Changes one factor of the objective while `fit` runs.

    The objective is `alpha * hard + beta * sum_i weight_i * distillation_i`. Changing it causes no
    retracing. The history gets an entry `<target>`, or `<target>_weight` for a loss's weight.

    Args:
        target: `"alpha"`, `"beta"`, the name of a distillation loss in the history, or that name
            and another hyperparameter of the loss, such as `"curriculum_temperature.reversal"`.
        start: First value, at least 0; or a schedule: an object of `keras_kd.schedules`, a Keras
            learning rate schedule, or a function of the epoch (or step).
        end: Last value.
        schedule: `"linear"`, `"cosine"` or `"exponential"`.
        start_epoch: The epoch in which it begins.
        length: Epochs (or steps) that it takes; default: the rest of `fit`. Not for a schedule
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

    def __init__(self, target: str, start: Any, end: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(start, end, *args, **kwargs)
        self.target = validation.text(
            "target", target, "'alpha', 'beta' or the name of a distillation loss"
        )

    @property
    def log_name(self) -> str:
        is_loss = self.target not in ("alpha", "beta") and "." not in self.target
        return f"{self.target}_weight" if is_loss else self.target

    def check_model(self) -> None:
        self._owner()

    def _owner(self):
        """The object that has the number (the distiller or a loss), and the number's name."""
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
        # `DistillationLoss.add_scalar` gives variables such names.
        if not hasattr(losses[name], f"{number}_variable"):
            raise ValueError(
                f"LossWeightSchedule: distillation loss {name!r} has no hyperparameter "
                f"{number!r} that may change during fit."
            )
        return losses[name], number

    def check_value(self, name: str, value: Any) -> None:
        validation.non_negative(name, value)

    def set_value(self, value: Any) -> None:
        owner, name = self._owner()
        setattr(owner, name, value)

    def get_value(self) -> Any:
        return getattr(*self._owner())


class DecaySchedule(ScheduledValue):
    """Changes the decay of a `keras_kd.teachers.EMA` while `fit` runs.

    This causes no retracing. The history gets an entry `ema_decay`.

    Args:
        start: First decay, from 0 to below 1; or a schedule: an object of `keras_kd.schedules`, a
            Keras learning rate schedule, or a function of the epoch (or step).
        end: Last decay.
        schedule: `"linear"`, `"cosine"` or `"exponential"`.
        start_epoch: The epoch in which it begins.
        length: Epochs (or steps) that it takes; default: the rest of `fit`.
        by: `"epoch"` or `"step"`.

    Raises:
        ValueError: An argument is wrong; in `fit`: the teacher is not an `EMA`.

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
    def log_name(self) -> str:
        return "ema_decay"

    def check_model(self) -> None:
        if not isinstance(self.model.teacher, self_distillation.EMA):
            raise ValueError(
                "DecaySchedule steers a keras_kd.teachers.EMA. The distiller's teacher is a "
                f"{type(self.model.teacher).__name__}."
            )

    def check_value(self, name: str, value: Any) -> None:
        self_distillation.checked_decay(value, name)

    def set_value(self, value: Any) -> None:
        self.model.teacher.decay = value

    def get_value(self) -> Any:
        return self.model.teacher.decay


def check_no_schedule(target: str, callbacks: list[Any], callback: Any, why: str = "") -> None:
    """Raises if `"alpha"` or `"beta"` is scheduled and also set by another callback."""
    if any(isinstance(x, LossWeightSchedule) and x.target == target for x in callbacks):
        raise ValueError(
            f"LossWeightSchedule({target!r}) would undo what {type(callback).__name__} sets{why}. "
            "Use one of them, or schedule the weights of the losses."
        )


def _is_number(value):
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
