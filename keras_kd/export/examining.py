"""Reads a `.tflite` file back, and holds it against the model that it was made of."""

import dataclasses
import pathlib
import tempfile

from keras_kd.export import comparison, promises, routes, students, trained_weights
from keras_kd.export.errors import ExportError
from keras_kd.export.result import TFLiteExport
from keras_kd.measurement.runtimes import TFLiteFile


@dataclasses.dataclass
class Examiner:
    """What files are held against.

    Attributes:
        path: Where the file will be.
        job: The `routes.Job`.
        rows: The `comparison.Rows`.
        bounds: The `comparison.Bounds`.
    """

    path: pathlib.Path
    job: routes.Job
    rows: comparison.Rows
    bounds: comparison.Bounds

    def __post_init__(self):
        model = self.job.aware or self.job.student
        self.job.steps.say(f"running the student on {len(self.rows.arrays[0])} rows")
        self._expected = students.outputs_of(model, self.rows.arrays)

    def examined(self, route, content):
        """The `TFLiteExport` of a file.

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
            return self._of_file(route, written)

    def _of_file(self, route, written):
        file, job = opened(written), self.job
        promises.check(file, job.name, job.input_type, job.output_type)
        compared = self._compared(file)
        comparison.check(compared, job.name, self.bounds)
        notes = list(self._notes(written))
        return told(self.path, file, job.name, route, compared, notes)

    def _compared(self, file):
        names = students.input_names(self.job.student)
        found = file.run(dict(zip(names, self.rows.arrays, strict=True)))
        by_name = {info.name: value for info, value in zip(file.outputs, found, strict=True)}
        outputs = students.output_names(self.job.student)
        return comparison.compare(
            [by_name[name] for name in outputs], self._expected, outputs, self.rows
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


def opened(path):
    """The `TFLiteFile` at a path.

    Raises:
        ExportError: LiteRT cannot run it.
    """
    try:
        return TFLiteFile(path)
    except ValueError as error:
        raise ExportError(str(error)) from error


def told(path, file, quantization, route, compared, notes):
    """The `TFLiteExport` of a file.

    Args:
        path: Where it will be.
        file: The `TFLiteFile`, where it is now.
        quantization: As asked for.
        route: What made it.
        compared: The `comparison.Comparison`.
        notes: What else is to be known.
    """
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
        accuracy=compared.accuracy,
        model_accuracy=compared.model_accuracy,
        notes=notes,
    )
