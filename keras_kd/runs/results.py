"""`results.csv`: a row for each epoch of each model, also where a run was ended and resumed."""

import csv
import pathlib
from typing import Any

import keras
import numpy as np

from keras_kd._utils import files

_FIRST = ("model", "epoch", "loss", "accuracy", "val_loss", "val_accuracy")


class Results:
    """The file. It is whole at any moment.

    Args:
        path: Where it is.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def rows(self, model: str) -> list[dict[str, str]]:
        """The rows of a model, in the order of its epochs."""
        return [row for row in self._read() if row["model"] == model]

    def values(self, model: str, column: str) -> list[float]:
        """A column of the rows of a model that have it."""
        return [float(row[column]) for row in self.rows(model) if row.get(column)]

    def put(self, model: str, epoch: int, numbers: dict[str, Any]) -> None:
        """Adds the row of an epoch, and removes those that it and later ones had before.

        Args:
            model: Which model.
            epoch: The epoch, from 1.
            numbers: What `fit` reports of it.
        """
        rows = self._kept(model, epoch)
        shown = {name: f"{float(value):.9g}" for name, value in sorted(numbers.items())}
        rows.append({"model": model, "epoch": str(epoch), **shown})
        self._write(rows)

    def cut(self, model: str, epoch: int) -> None:
        """Removes the rows of an epoch and of later ones.

        Args:
            model: Which model.
            epoch: The first epoch that goes, from 1.
        """
        rows = self._read()
        kept = self._kept(model, epoch)
        if kept != rows:
            self._write(kept)

    def _kept(self, model, epoch):
        rows = self._read()
        return [row for row in rows if row["model"] != model or int(row["epoch"]) < epoch]

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with open(self.path, encoding="utf-8", newline="") as file:
            return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]

    def _write(self, rows):
        names = dict.fromkeys([*_FIRST, *(name for row in rows for name in row)])
        with (
            files.replace_atomically(self.path) as partial,
            open(partial, "w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, list(names), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


class WritesRows(keras.callbacks.Callback):
    """Writes the row of each epoch.

    List it before `BackupAndRestore`: what that has saved is in the file then.

    Args:
        results: The file.
        name: The model's name there.
        say: A function that prints a line.
        epochs: How many epochs there are.
    """

    def __init__(self, results: Results, name: str, say: Any, epochs: int) -> None:
        super().__init__()
        self._results, self._name, self._say, self._epochs = results, name, say, epochs

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        del logs
        self._results.cut(self._name, epoch + 1)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        numbers = {name: float(np.asarray(value)) for name, value in (logs or {}).items()}
        self._results.put(self._name, epoch + 1, numbers)
        shown = [f"{name} {numbers[name]:.4g}" for name in _FIRST if name in numbers]
        self._say(f"{self._name}: epoch {epoch + 1} of {self._epochs}, {', '.join(shown)}")


class Ended(Exception):  # noqa: N818 as StopIteration
    """The training has ended before its last epoch."""


class EndsEarly(keras.callbacks.Callback):
    """Ends a training that no longer improves. Its state is the file of the rows.

    Args:
        results: The file, which holds the row of each epoch that has ended.
        name: The model's name there.
        monitor: The column that is watched.
        patience: Epochs without improvement.
        best: Where the weights of the best epoch are kept, or `None`.
        student: The model whose weights these are.
    """

    def __init__(
        self,
        results: Results,
        name: str,
        monitor: str,
        patience: int,
        best: pathlib.Path | None,
        student: keras.Model,
    ) -> None:
        super().__init__()
        self._results, self._name, self._monitor = results, name, monitor
        self._patience, self._best, self._student = patience, best, student

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        del logs
        if self._has_ended(epoch):  # a run that was ended between its last epoch and what follows
            raise Ended

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        del logs
        if self._best is not None and self._best_epoch(epoch + 1) == epoch:
            files.save_weights(self._student.save_weights, self._best)
        if self._has_ended(epoch + 1):
            self.model.stop_training = True

    def _scores(self, count):
        found = self._results.values(self._name, self._monitor)[:count]
        return [-each for each in found] if self._monitor.endswith("accuracy") else found

    def _best_epoch(self, count):
        scores = self._scores(count)
        return int(np.argmin(scores)) if scores else -1

    def _has_ended(self, count):
        return bool(count) and count - 1 - self._best_epoch(count) >= self._patience
