"""Reads a `.tflite` file back, and holds it against the model that it was made of."""

import dataclasses
import pathlib
import tempfile

import numpy as np

from keras_kd.export import (
    calibration_data,
    comparison,
    judging,
    promises,
    routes,
    students,
    trained_weights,
)
from keras_kd.export.errors import ExportError
from keras_kd.export.result import TFLiteExport
from keras_kd.measurement.runtimes import TFLiteFile


@dataclasses.dataclass(frozen=True)
class Examined:
    """A file that holds what was asked for.

    Attributes:
        export: Its `TFLiteExport`.
        closeness: As of `comparison.Comparison`.
        content: Its bytes.
    """

    export: TFLiteExport
    closeness: float | None
    content: bytes


@dataclasses.dataclass
class Examiner:
    """What files are held against.

    Attributes:
        path: Where the file will be.
        job: The `routes.Job`.
        rows: The `comparison.Rows`.
        bounds: The `judging.Bounds`.
        task: As of `to_tflite`.

    Raises:
        ValueError: Task, labels and bounds do not fit the model, or it gives NaN.
    """

    path: pathlib.Path
    job: routes.Job
    rows: comparison.Rows
    bounds: judging.Bounds
    task: str | dict = "auto"

    def __post_init__(self):
        model, plain = self.job.aware or self.job.student, self.job.student
        self.job.steps.say(f"running the student on {len(self.rows.arrays[0])} rows")
        self._expected = students.outputs_of(model, self.rows.arrays)
        names = students.output_names(plain)
        _check_numbers(plain, names, self._expected)
        self._judgement = judging.of(
            plain,
            names,
            self._expected,
            self.rows.labels,
            self.task,
            self.bounds,
            self.rows.are_promised,
        )

    def examined(self, route, content):
        """A file that was made, as `Examined`.

        Args:
            route: What made it.
            content: Its bytes.

        Raises:
            ExportError: It does not hold what was asked for.
        """
        self.job.steps.begin(f"comparing on {len(self.rows.arrays[0])} rows")
        with tempfile.TemporaryDirectory(prefix="keras_kd_export_") as folder:
            written = pathlib.Path(folder) / self.path.name
            written.write_bytes(content)
            return Examined(*self._of_file(route, written), content)

    def _of_file(self, route, written):
        file, job = opened(written), self.job
        promises.check(file, job.name, job.input_type, job.output_type)
        compared = self._compared(file)
        outliers = calibration_data.outliers(job.arrays if job.is_integer else None)
        comparison.check(compared, job.name, self.bounds, outliers)
        notes = [*self._notes(written), *comparison.notes(compared), *filter(None, [outliers])]
        export = told(self.path, file, job.name, route, compared, self._judgement, notes)
        return export, compared.closeness

    def _compared(self, file):
        names = students.input_names(self.job.student)
        found = file.run(dict(zip(names, self.rows.arrays, strict=True)))
        by_name = {info.name: value for info, value in zip(file.outputs, found, strict=True)}
        outputs = students.output_names(self.job.student)
        return comparison.compare(
            [by_name[name] for name in outputs], self._expected, self.rows, self._judgement
        )

    def _notes(self, written):
        if not self.rows.are_real:
            yield "compared on rows that were made up: pass `data` for rows of your own"
        if self.job.aware is None:
            return
        aware = self.job.aware
        missing = trained_weights.missing(
            written, aware.integers_by_channel(), aware.integers_of_operands()
        )
        if missing:
            yield (
                "these weights are not in the file with the integers they were trained with, "
                f"because it rounds them in another way: {missing}"
            )
        absent = trained_weights.missing_ranges(written, aware.parameters())
        if absent:
            yield f"the file rounds these activations in another way than was trained: {absent}"


def _check_numbers(student, names, expected):
    broken = [name for name, x in zip(names, expected, strict=True) if np.isnan(x).any()]
    if broken:
        raise ValueError(
            f"The student {student.name!r} itself gives NaN, in outputs {broken}. Look into its "
            "training, or at the data."
        )


def opened(path):
    """The `TFLiteFile` at a path.

    Raises:
        ExportError: LiteRT cannot run it.
    """
    try:
        return TFLiteFile(path)
    except ValueError as error:
        raise ExportError(str(error)) from error


def told(path, file, quantization, route, compared, judgement, notes):
    """The `TFLiteExport` of a file.

    Args:
        path: Where it will be.
        file: The `TFLiteFile`, where it is now.
        quantization: As asked for.
        route: What made it.
        compared: The `comparison.Comparison`.
        judgement: The `judging.Judgement`.
        notes: What else is to be known.
    """
    counted = compared.least_accurate
    return TFLiteExport(
        path=path,
        bytes=pathlib.Path(file.path).stat().st_size,
        quantization=quantization,
        route=route,
        operators=promises.counts(file),
        float_operators=promises.float_operators(file),
        inputs=file.inputs,
        outputs=file.outputs,
        rows=compared.rows,
        agreement=compared.agreement,
        worst_difference=compared.worst_difference,
        accuracy=counted and counted.accuracy,
        model_accuracy=counted and counted.model_accuracy,
        notes=notes,
        tasks=judgement.tasks,
        supposed=judgement.supposed,
        error=compared.error,
    )
