"""Reads a `.tflite` file back, and holds it against the model that it was made of."""

import dataclasses
import pathlib
import tempfile

import numpy as np

from keras_kd.export import comparison, judging, representative, source
from keras_kd.export.source import ExportError
from keras_kd.export.tflite import routes
from keras_kd.export.tflite.metadata import TFLiteExport
from keras_kd.runtimes import TFLiteFile, tflite


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
        self._expected = source.outputs_of(model, self.rows.arrays)
        names = source.output_names(plain)
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
        comparison.check_requirements(file, job.name, job.input_type, job.output_type)
        compared = self._compared(file)
        outliers = representative.outliers(job.arrays if job.is_integer else None)
        comparison.check(compared, job.name, self.bounds, outliers)
        notes = [*self._notes(written), *comparison.notes(compared), *filter(None, [outliers])]
        export = told(self.path, file, job.name, route, compared, self._judgement, notes)
        return export, compared.closeness

    def _compared(self, file):
        names = source.input_names(self.job.student)
        found = file.run(dict(zip(names, self.rows.arrays, strict=True)))
        by_name = {info.name: value for info, value in zip(file.outputs, found, strict=True)}
        outputs = source.output_names(self.job.student)
        return comparison.compare(
            [by_name[name] for name in outputs], self._expected, self.rows, self._judgement
        )

    def _notes(self, written):
        if not self.rows.are_real:
            yield "compared on rows that were made up: pass `data` for rows of your own"
        if self.job.aware is None:
            return
        aware = self.job.aware
        missing = missing_weights(
            written, aware.integers_by_channel(), aware.integers_of_operands()
        )
        if missing:
            yield (
                "these weights are not in the file with the integers they were trained with, "
                f"because it rounds them in another way: {missing}"
            )
        absent = missing_ranges(written, aware.parameters())
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
        operators=comparison.counts(file),
        float_operators=comparison.float_operators(file),
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


# Finds in a file the integers and ranges with which a student was trained.


# Of scales that float32 has rounded twice.
_CLOSE = 1e-5


def missing_weights(path, by_channel, whole=None):
    """Names of the weights whose integers the file does not hold.

    BatchNormalization that is folded in may turn the sign of a channel, and layouts differ, so
    channels are compared as sets of numbers, up to their sign.

    Args:
        path: A `.tflite` file.
        by_channel: `{name: integers [..., channels]}` of the weights with a scale for each channel,
            the channels last.
        whole: `{name: integers}` of those with one scale.
    """
    constants = list(_constants(path))
    channels = {_signature(each) for each in _with_channels(constants)}
    wholes = {values.tobytes() for values, scales, _ in constants if scales == 1}
    absent = [name for name, each in by_channel.items() if _signature(each) not in channels]
    return absent + [name for name, x in (whole or {}).items() if x.tobytes() not in wholes]


def missing_ranges(path, parameters):
    """Names of the activations whose ranges the file does not hold.

    Args:
        path: A `.tflite` file.
        parameters: `{name: (scale, zero point)}`.
    """
    model = tflite.parsed(path)
    found = [
        (float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]))
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tflite.type_name(tensor) == "int8" and tensor.quantization.scale is not None
    ]
    return [
        name
        for name, (scale, zero) in parameters.items()
        if not any(abs(a - scale) <= _CLOSE * scale and b == zero for a, b in found)
    ]


def of_file(path):
    """The integer constants of a file with a scale for each channel, as `[size, channels]`."""
    return _with_channels(_constants(path))


def _with_channels(constants):
    return [
        np.moveaxis(values, axis, -1).reshape(-1, scales)
        for values, scales, axis in constants
        if values.ndim and scales == values.shape[axis]
    ]


def _constants(path):
    """Yields `(integers, number of scales, axis of the channels)`."""
    model = tflite.parsed(path)
    for tensor in tflite.constants(model):
        quantization, kind = tensor.quantization, tflite.type_name(tensor)
        if kind in ("int8", "int4") and quantization is not None and quantization.scale is not None:
            values = _values(model.buffers[tensor.buffer].data, kind, tflite.shape(tensor))
            yield values, len(quantization.scale), int(quantization.quantizedDimension)


def _values(data, kind, shape):
    stored = np.frombuffer(bytes(data), np.int8)
    if kind == "int4":  # two in a byte, the first in the lower half
        low, high = (stored << 4) >> 4, stored >> 4
        stored = np.stack([low, high], axis=-1).ravel()[: int(np.prod(shape))]
    return stored.reshape(shape)


def _signature(integers):
    """Bytes that are equal for equal integers, whatever the layout and signs of channels."""
    columns = np.sort(np.asarray(integers, np.int8).reshape(-1, integers.shape[-1]), axis=0)
    turned = -columns[::-1]
    first = np.argmax(columns != turned, axis=0)
    index = np.arange(columns.shape[1])
    turn = columns[first, index] < turned[first, index]
    return np.where(turn, turned, columns).tobytes()
