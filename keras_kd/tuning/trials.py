"""Runs trials: trains what the settings say, ends what does poorly, records what fails."""

import dataclasses
import gc
import math
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_kd._utils import files, progress
from keras_kd.tuning.building import Training
from keras_kd.tuning.data import TuningData
from keras_kd.tuning.objectives import Costs, Objective
from keras_kd.tuning.study import LiveTrial, Study

# What settings can cause. Errors of the disk, and of the program's end, are none of them.
_FAILURES = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
FAILURES = (*_FAILURES, tf.errors.OpError)
# As many first trials that fail are no accident of their settings.
_FAIL_AT_FIRST = 3


class TrialFailed(ValueError):  # noqa: N818 - said of a trial
    """A trial cannot go on: its loss is not finite."""


@dataclasses.dataclass(frozen=True)
class Search:
    """Everything that the trials of a study share.

    Attributes:
        study: The `Study`.
        build: A function from settings to a `Training`.
        batches: A function from the size of a batch to the training data.
        data: The `TuningData`.
        epochs: Of a whole trial.
        costs: Measures exported students.
        folder: For the students of the front.
    """

    study: Study
    build: Callable[[Any], Training]
    batches: Callable[[int], tf.data.Dataset]
    data: TuningData
    epochs: int
    costs: Costs
    folder: pathlib.Path

    def run(self, steps: progress.Steps) -> None:
        """Runs trials until all have ended, here or in other processes."""
        while True:
            with self.study.next_trial() as trial:
                if trial is None:
                    return
                steps.begin(f"{self.study.name}, trial {trial.number}")
                error = self._run(trial)
                for record in self.study.records():
                    if record.number == trial.number:
                        steps.say(_described(record, self.study.objectives))
            self._keep_front()
            self._check_some_work(error)
            # A trial's models are in cycles; memory is the next trial's.
            gc.collect()

    def _run(self, trial: LiveTrial) -> Exception | None:
        try:
            made = self.build(trial.settings)
            if trial.is_repeated():
                return None
            watch = Watch(self.study.objectives[0], trial, self.epochs)
            fit(made, self.batches(made.batch_size), self.data, self.epochs, [watch])
            values = {self.study.objectives[0].name: watch.value}
            if watch.is_pruned:
                trial.prune(values)
                return None
            values |= self.costs.of(made.student)
            path = student_path(self.folder, self.study.name, trial.number)
            files.save(made.student.save, path)
        except FAILURES as error:
            trial.fail(_in_words(error))
            return error
        except BaseException:  # Ctrl-C, a full disk: not the settings' fault
            trial.give_back()
            raise
        trial.complete(values)
        return None

    def _keep_front(self) -> None:
        """Removes students that others beat."""
        front = self.study.front()
        for each in self.study.records():
            if each.state == "complete" and each.number not in front:
                student_path(self.folder, self.study.name, each.number).unlink(missing_ok=True)

    def _check_some_work(self, error: Exception | None) -> None:
        records = self.study.records()
        failed = [each for each in records if each.state == "failed"]
        if error is not None and len(failed) == len(records) >= _FAIL_AT_FIRST:
            raise ValueError(
                f"The first {len(failed)} trials all failed, the last one with: {_in_words(error)} "
                "It is unlikely that other settings help: mend the cause, and call tune again with "
                "an empty `directory`."
            ) from error


def student_path(folder: pathlib.Path, study: str, number: int) -> pathlib.Path:
    """Where the student of a trial is saved."""
    return folder / "students" / f"{study}-{number}.keras"


def fit(
    made: Training, batches: tf.data.Dataset, data: TuningData, epochs: int, watches: list
) -> None:
    """Trains what was built."""
    made.model.fit(
        batches,
        validation_data=data.validation,
        epochs=epochs,
        callbacks=[*made.callbacks, *watches],
        shuffle=False,
        verbose=0,
    )


class Watch(keras.callbacks.Callback):
    """Reports the metric of each epoch, and ends a trial that does poorly or breaks.

    Args:
        objective: The metric.
        trial: The `LiveTrial`, or `None`: the training is none.
        epochs: Of a whole trial.

    Attributes:
        value: The metric after the last epoch.
        is_pruned: Whether the trial was ended early.
    """

    def __init__(self, objective: Objective, trial: LiveTrial | None, epochs: int) -> None:
        super().__init__()
        self._objective, self._trial, self._epochs = objective, trial, epochs
        self.value, self.is_pruned = math.nan, False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        if self._objective.entry not in logs:
            raise ValueError(
                f"After an epoch there is no {self._objective.entry!r}, but {sorted(logs)}."
            )
        self.value = float(logs[self._objective.entry])
        broken = {k: v for k, v in logs.items() if not math.isfinite(float(v))}
        if self._objective.entry in broken or "loss" in broken:
            raise TrialFailed(f"{sorted(broken)} of epoch {epoch + 1} are not finite.")
        ends = self._trial is not None and self._trial.report(epoch + 1, self.value)
        if ends and epoch + 1 < self._epochs:  # what has come to its end is complete
            self.is_pruned = True
            self.model.stop_training = True


def _in_words(error: Exception) -> str:
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text}"[:2000]


def _described(record, objectives):
    values = ", ".join(
        f"{each.name} {record.values[each.name]:.4g}"
        for each in objectives
        if each.name in record.values
    )
    settings = ", ".join(f"{name} {shown(value)}" for name, value in record.settings.items())
    what = values if record.failure is None else record.failure.splitlines()[0]
    return f"trial {record.number} {record.state}: {what} ({settings})"


def shown(value: Any) -> str:
    """A setting, as tables show it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
