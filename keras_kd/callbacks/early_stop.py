"""`EarlyStopDistillation`: ends the distillation, but not the training."""

from typing import Any

import keras
import numpy as np

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.callbacks import schedules, snapshot

SAVING = (keras.callbacks.BackupAndRestore, keras.callbacks.ModelCheckpoint)


class EarlyStopDistillation(keras.callbacks.Callback):
    """Sets `beta` to 0 when the teacher no longer helps, and continues with the labels alone.

    A teacher helps most at first, and may later hold back a student that cannot follow it. When
    `monitor` has not improved by more than `min_delta` for `patience` epochs, `beta` becomes 0 and
    `alpha` the value given here. They keep these values after `fit`: set them to distill again. The
    history gets entries `alpha` and `beta`, the values of the epoch.

    Its state is saved with the distiller, so that a resumed `fit` (with an `initial_epoch`, or by
    `BackupAndRestore`) continues with it; one that begins with epoch 0 starts over. List it before
    callbacks that save.

    Args:
        monitor: An entry of the history, such as `"val_loss"` or `"val_accuracy"`.
        patience: Epochs without improvement, at least 1.
        min_delta: What counts as an improvement, at least 0.
        mode: `"min"`, `"max"`, or `"auto"`: larger is better if the name ends in `accuracy`, `acc`,
            `auc`, `precision`, `recall`, `score` or `agreement`.
        alpha: The factor of the labels from then on; `None` keeps it.
        start_epoch: The first epoch that is monitored.
        verbose: 1: prints when it ends the distillation.

    Raises:
        ValueError: An argument is wrong; in `fit`: the history has no such entry, there is no
            validation data for it, another callback schedules `beta` (or the `alpha` given here),
            begins to distill later or monitors the same entry, or one that saves is listed before
            it.

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
    stop = kd.callbacks.EarlyStopDistillation("val_loss", patience=1, min_delta=100.0, alpha=1.0)
    data = {"validation_data": (x, y), "epochs": 4, "verbose": 0}
    history = distiller.fit(x, y, callbacks=[stop], **data).history
    assert history["beta"] == [0.5, 0.5, 0.0, 0.0]
    ```

    Reference: Cho and Hariharan, "On the Efficacy of Knowledge Distillation",
    https://arxiv.org/abs/1910.01348
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        patience: int = 3,
        min_delta: float = 0.0,
        mode: str = "auto",
        alpha: Any = None,
        start_epoch: int = 0,
        verbose: int | str = 0,
    ) -> None:
        super().__init__()
        validation.one_of("mode", mode, ("auto", "min", "max"))
        self.monitor = validation.text("monitor", monitor, "an entry of the history")
        self.patience = validation.integer("patience", patience, 1)
        self.min_delta = validation.non_negative("min_delta", min_delta)
        self.alpha = None if alpha is None else validation.non_negative("alpha", alpha)
        self.start_epoch = validation.integer("start_epoch", start_epoch, 0)
        if verbose not in (0, 1):  # True and False are these too
            raise invalid("verbose", "0 or 1", repr(verbose))
        self.verbose = verbose
        larger = ("accuracy", "acc", "auc", "precision", "recall", "score", "agreement")
        is_larger = mode == "max" or (mode == "auto" and monitor.lower().endswith(larger))
        self._sign = -1.0 if is_larger else 1.0
        self._validates = False

    def prepare(self, distiller: Any, callbacks: list[Any]) -> None:
        """Checks the callbacks beside it; called by `fit`."""
        for callback in callbacks[: callbacks.index(self)]:
            if isinstance(callback, SAVING):
                raise ValueError(
                    f"{type(callback).__name__} is listed before EarlyStopDistillation, so a file "
                    "would lack what the epoch showed. List EarlyStopDistillation first."
                )
        schedules.check_no_schedule("beta", callbacks, self)
        if self.alpha is not None:
            schedules.check_no_schedule("alpha", callbacks, self)
        self._check_snapshots(callbacks)
        watching = [each for each in callbacks if isinstance(each, EarlyStopDistillation)]
        if sum(each.monitor == self.monitor for each in watching) > 1:
            raise ValueError(
                f"Two EarlyStopDistillation callbacks watch {self.monitor!r}. Pass one."
            )
        if self._key not in distiller.callback_states:
            self._remember(distiller, np.inf, 0, False)

    def _check_snapshots(self, callbacks):
        starts = [x.start_epoch for x in callbacks if isinstance(x, snapshot.SnapshotTeacher)]
        # It cannot end before it has waited; what it watched until then is the labels alone.
        if starts and self.start_epoch + self.patience <= max(starts):
            raise ValueError(
                f"SnapshotTeacher begins to teach in epoch {max(starts)}, and would undo what "
                f"EarlyStopDistillation(start_epoch={self.start_epoch}) ended before. Pass "
                f"EarlyStopDistillation(start_epoch={max(starts)})."
            )

    def check_data(self, validates: bool, callbacks: list[Any]) -> None:
        """Raises if there will be nothing to monitor; called by `fit`.

        Args:
            validates: Whether there is validation data.
            callbacks: All callbacks; a user's callback may write the entry.
        """
        self._validates = validates
        modules = {
            "" if isinstance(each, keras.callbacks.LambdaCallback) else _package(each)
            for each in callbacks
        }
        is_missing = self.monitor.startswith("val_") and not validates
        if is_missing and modules <= {"keras", "keras_kd"}:
            raise ValueError(
                f"EarlyStopDistillation watches {self.monitor!r}, and fit has no validation data. "
                "Pass validation_data to fit, or another `monitor`."
            )

    @property
    def _key(self):
        # A name in an HDF5 file, where a slash would begin a group.
        return f"early_stop_distillation_{self.monitor}".replace("/", "_")

    def _remember(self, distiller, best, waited, stopped):
        distiller.callback_states[self._key] = np.array([best, waited, stopped], "float64")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch == 0:  # not a resumed run: an earlier one does not count
            self._remember(self.model, np.inf, 0, False)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        ran_with = {"alpha": self.model.alpha, "beta": self.model.beta}
        best, waited, stopped = self.model.callback_states[self._key]
        is_due = not stopped and epoch >= self.start_epoch
        if is_due and not self._is_without_validation(logs or {}):
            self._monitor_value(epoch, self._value(logs or {}), best, waited)
        if logs is not None:
            logs.update(ran_with)

    def _is_without_validation(self, logs):
        """Whether this epoch does not validate, with a `validation_freq` above 1."""
        if not self._validates or not self.monitor.startswith("val_"):
            return False
        return not any(name.startswith("val_") for name in logs)

    def _value(self, logs):
        if self.monitor not in logs:
            raise ValueError(
                f"EarlyStopDistillation: the history has no entry {self.monitor!r}. It has "
                f"{sorted(logs)}. Pass validation_data to fit, or another `monitor`."
            )
        return self._sign * float(logs[self.monitor])

    def _monitor_value(self, epoch, value, best, waited):
        if value < best - self.min_delta:
            self._remember(self.model, value, 0, False)
            return
        self._remember(self.model, best, waited + 1, waited + 1 >= self.patience)
        if waited + 1 < self.patience:
            return
        self.model.beta = 0.0
        if self.alpha is not None:
            self.model.alpha = self.alpha
        if self.verbose:
            print(
                f"Epoch {epoch + 1}: {self.monitor} no longer improves; the labels teach alone "
                f"(alpha={self.model.alpha:g})."
            )


def _package(callback):
    return type(callback).__module__.partition(".")[0]
