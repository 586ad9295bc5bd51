"""Measures every model and file that the report compares."""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

from keras_kd.report import exporting
from keras_kd.report.entrants import BASELINE, EXPORT, STUDENT, TEACHER, Entrant


@dataclasses.dataclass(frozen=True)
class Examiner:
    """Calls `keras_kd.measure` with the same options for every model.

    Attributes:
        data: The test data.
        options: Of `keras_kd.measure`, by name.
        log: A function that prints a line.
        latency: Whether latencies are measured, of the first seed's models: those of the others
            compute the same.
    """

    data: Any
    options: dict
    log: Callable
    latency: bool = True

    def entrant(self, name, role, models, teacher=None):
        """Measures a model's or a file's seeds."""
        self.log(f"measuring {name}")
        found = [
            self._measured(model, teacher, self.latency and number == 0)
            for number, model in enumerate(models)
        ]
        return Entrant(name, role, found)

    def _measured(self, model, teacher, latency):
        from keras_kd.measurement import measure

        return measure(model, self.data, teacher=teacher, latency=latency, **self.options)


def all_of(examiner, teacher, baselines, students, exports, directory=None):
    """Measures everything, and exports what functions are to export.

    Args:
        examiner: An `Examiner`.
        teacher: The teacher, or `None`.
        baselines: Models by seed, or `None`.
        students: Models by seed.
        exports: Of `exporting.check`.
        directory: A folder for the exported files; `None`: they are removed.

    Returns:
        A list of `Entrant`.
    """
    made = []
    if teacher is not None:
        made.append(examiner.entrant("teacher", TEACHER, [teacher]))
    if baselines is not None:
        made.append(examiner.entrant("labels only", BASELINE, baselines, teacher))
    made.append(examiner.entrant("distilled", STUDENT, students, teacher))
    with _folder(directory) as folder:
        for name, value in exports.items():
            files = exporting.files(name, value, students, pathlib.Path(folder))
            made.append(examiner.entrant(name, EXPORT, files, teacher))
    return made


def _folder(directory):
    if directory is None:
        return tempfile.TemporaryDirectory(prefix="keras_kd-")
    path = pathlib.Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    return contextlib.nullcontext(path)
