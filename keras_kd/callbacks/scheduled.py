"""`ScheduledValue`: sets a live number of a distiller before each epoch or step."""

import keras
import numpy as np

from keras_kd import schedules
from keras_kd.live import LiveNumbers
from keras_kd.losses import base
from keras_kd.ops.arguments import invalid


class ScheduledValue(keras.callbacks.Callback):
    """Base class: follows a schedule, and logs what it set.

    The position is counted by epochs or steps of the whole `fit`, `initial_epoch` included, so an
    interrupted run that is resumed goes on where it was. Subclasses say what is set.

    Args:
        start: First value; or a whole schedule: an object of `keras_kd.schedules`, a Keras
            learning rate schedule, or a function of the position. Then `end` is left out.
        end: Last value.
        schedule: The way between them: `"linear"`, `"cosine"` or `"exponential"`.
        start_epoch: Epoch with which it begins; before it, its first value holds.
        length: Epochs (steps, if `by="step"`) that it takes; then its last value holds. Default:
            what is left of `fit`.
        by: `"epoch"` or `"step"`: when it is set. With `steps_per_execution` above 1 `"step"` sets
            it once an execution, to the value of its first step.
    """

    def __init__(self, start, end=None, schedule="linear", start_epoch=0, length=None, by="epoch"):
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
        self.schedule = schedules.get(schedule if is_number else start, start, end)
        self.start_epoch = base.integer("start_epoch", start_epoch, 0)
        self.length = base.integer("length", length, 1, optional=True)
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
    def log_name(self):
        """The entry in the history."""
        raise NotImplementedError

    def check_value(self, name, value):
        """Raises if it is none that can be set; `name` is the argument that it was given as."""

    def set_value(self, value):
        """Gives the value to `self.model`."""
        raise NotImplementedError

    def get_value(self):
        """The value that `self.model` has."""
        raise NotImplementedError

    def check_model(self):
        """Raises if `self.model` has no such number."""

    def prepare(self, distiller, callbacks):
        """Checks the callbacks beside it; called by `fit`."""
        del distiller
        scheduled = [each for each in callbacks if isinstance(each, ScheduledValue)]
        same = [each for each in scheduled if each.log_name == self.log_name]
        if len(same) > 1:
            kinds = " and ".join(type(each).__name__ for each in same)
            raise ValueError(f"Several callbacks set {self.log_name!r}: {kinds}. Pass one of them.")

    def on_train_begin(self, logs=None):
        if not isinstance(self.model, LiveNumbers):
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
        self.value_at(0)  # an unknown span is told before any work
        if self.by == "step" and self.params.get("steps") is None and epochs != 1:
            raise ValueError(
                f"{type(self).__name__}(by='step') cannot count steps over epochs of unknown "
                "length. Pass steps_per_epoch to fit, or use by='epoch'."
            )

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
        if self.by == "epoch":
            self.set_value(self.value_at(epoch - self.start_epoch))

    def on_train_batch_begin(self, batch, logs=None):
        if self.by == "step":
            steps = self.params.get("steps") or 0  # unknown of a single epoch
            position = (self._epoch - self.start_epoch) * steps + batch
            self.set_value(self.value_at(position))

    def on_epoch_end(self, epoch, logs=None):
        # As Keras' LearningRateScheduler does: so it is in the history and in TensorBoard.
        if logs is not None:
            logs[self.log_name] = self.get_value()

    def value_at(self, position):
        """The value at a position counted from the schedule's begin."""
        return self.schedule(max(position, 0), self._count())

    def _count(self):
        """Over how many positions the schedule runs; `None` if that is not known."""
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


def _is_number(value):
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
