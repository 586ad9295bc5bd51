"""Reads a `.tflite` file back: its operators and types, its outputs, the integers in it."""

import collections
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_kd.export import comparison, judging, representative
from keras_kd.export.student import ExportableModel, ExportError, LeftInFloatError
from keras_kd.export.tflite.metadata import TFLiteExport
from keras_kd.export.tflite.routes import Job
from keras_kd.runtimes import TFLiteFile, tflite


@dataclasses.dataclass(frozen=True, eq=False)
class VerifiedFile:
    """A file that holds what was requested.

    Attributes:
        export: Its `TFLiteExport`.
        closeness: The `closeness` of its `comparison.Comparison`.
        content: Its content.
    """

    export: TFLiteExport
    closeness: float | None
    content: bytes


@dataclasses.dataclass(frozen=True, eq=False)
class Verifier:
    """What the files of all routes are compared with.

    Attributes:
        job: The `Job`.
        samples: The samples to compare on.
        expected: The student's outputs for them.
        judgment: How each output is judged.
    """

    job: Job
    samples: representative.Samples
    expected: list[np.ndarray]
    judgment: judging.Judgment

    @classmethod
    def prepare(cls, job: Job, samples: representative.Samples) -> "Verifier":
        """Runs the student on samples, and decides how its outputs are judged.

        Raises:
            ValueError: Task, labels and bounds do not fit the model, or it gives NaN.
        """
        exportable, options = job.exportable, job.options
        job.steps.say(f"running the student on {samples.count} samples")
        expected = exportable.predict(samples.arrays)
        _check_student_outputs(exportable, expected)
        judgment = judging.judge_outputs(
            exportable.model,
            exportable.output_names,
            expected,
            samples.labels,
            options.task,
            options.bounds,
            samples.labels_must_fit,
        )
        return cls(job, samples, expected, judgment)

    def verify(self, route: str, content: bytes) -> VerifiedFile:
        """Reads a file back and compares it.

        Args:
            route: The route that made it.
            content: Its content.

        Raises:
            ExportError: It does not hold what was requested.
        """
        self.job.steps.begin(f"comparing on {self.samples.count} samples")
        with tempfile.TemporaryDirectory(prefix="keras_kd_export_") as folder:
            written = pathlib.Path(folder) / self.job.options.path.name
            written.write_bytes(content)
            return self._verify(route, written, content)

    def _verify(self, route, written, content):
        file, options = open_file(written), self.job.options
        check_requirements(file, options.name, options.input_type, options.output_type)
        compared = self._compare(file)
        outliers = representative.outliers(self.job.arrays if options.is_integer else None)
        comparison.check_bounds(compared, options.name, options.bounds, outliers)
        notes = [*self._notes(written), *comparison.notes(compared), *filter(None, [outliers])]
        export = summarize(options.path, file, options.name, route, compared, self.judgment, notes)
        return VerifiedFile(export, compared.closeness, content)

    def _compare(self, file):
        exportable = self.job.exportable
        found = file.run(exportable.feed(self.samples.arrays))
        by_name = {info.name: value for info, value in zip(file.outputs, found, strict=True)}
        outputs = [by_name[name] for name in exportable.output_names]
        return comparison.compare(outputs, self.expected, self.samples, self.judgment)

    def _notes(self, written):
        if not self.samples.are_given:
            yield "compared on samples that were made up: pass `data` for your own"
        source = self.job.exportable.source
        if source is None:
            return
        missing = missing_weights(
            written, source.integers_by_channel(), source.integers_of_operands()
        )
        if missing:
            yield (
                "these weights are not in the file with the integers they were trained with, "
                f"because it rounds them in another way: {missing}"
            )
        absent = missing_ranges(written, source.parameters())
        if absent:
            yield f"the file rounds these activations in another way than was trained: {absent}"


def _check_student_outputs(exportable: ExportableModel, expected: Sequence[np.ndarray]) -> None:
    pairs = zip(exportable.output_names, expected, strict=True)
    broken = [name for name, x in pairs if np.isnan(x).any()]
    if broken:
        raise ValueError(
            f"The student {exportable.name!r} itself gives NaN, in outputs {broken}. Look into its "
            "training, or at the data."
        )


def open_file(path: str | pathlib.Path) -> TFLiteFile:
    """The `TFLiteFile` at a path.

    Raises:
        ExportError: LiteRT cannot run it.
    """
    try:
        return TFLiteFile(path)
    except ValueError as error:
        raise ExportError(str(error)) from error


def summarize(
    path: pathlib.Path,
    file: TFLiteFile,
    quantization: str | None,
    route: str,
    compared: comparison.Comparison,
    judgment: judging.Judgment,
    notes: list[str],
) -> TFLiteExport:
    """The `TFLiteExport` of a file.

    Args:
        path: Where it will be.
        file: The `TFLiteFile`, where it is now.
        quantization: Its quantization.
        route: The route that made it.
        compared: How it compares with the student.
        judgment: How its outputs were judged.
        notes: What else the user should know.
    """
    counted = compared.least_accurate
    return TFLiteExport(
        path=path,
        bytes=pathlib.Path(file.path).stat().st_size,
        quantization=quantization,
        route=route,
        operators=count_operators(file),
        float_operators=_names(float_operators(file)),
        inputs=file.inputs,
        outputs=file.outputs,
        rows=compared.samples,
        agreement=compared.agreement,
        worst_difference=compared.worst_difference,
        accuracy=None if counted is None else counted.accuracy,
        model_accuracy=None if counted is None else counted.model_accuracy,
        notes=notes,
        tasks=judgment.tasks,
        supposed=judgment.assumed,
        error=compared.error,
    )


# The operators and types that a file must have.


_FLOATS = {"float32", "float16", "bfloat16", "float64"}
# They convert between integers and floats, and compute nothing.
_BORDERS = {"QUANTIZE", "DEQUANTIZE"}


def count_operators(file: TFLiteFile) -> dict[str, int]:
    """`{operator: count}` of a file, in the order in which they first appear."""
    return dict(collections.Counter(operator.name for operator in file.operators))


def float_operators(file: TFLiteFile) -> list[Any]:
    """The operators of a file that compute with floats."""
    return [
        operator
        for operator in file.operators
        if operator.name not in _BORDERS
        and _FLOATS.intersection([*operator.inputs, *operator.outputs])
    ]


def _names(operators):
    return sorted({operator.name for operator in operators})


def check_requirements(
    file: TFLiteFile,
    quantization: str | None,
    input_dtype: str | None,
    output_dtype: str | None,
) -> None:
    """Raises `ExportError` unless a file has the operators and types that were requested.

    Args:
        file: The file.
        quantization: Its quantization.
        input_dtype: The type of inputs that are real numbers, or `None` for any.
        output_dtype: The type of outputs, or `None` for any.
    """
    flex = sorted(name for name in count_operators(file) if name.startswith("CUSTOM"))
    if flex:
        raise ExportError(f"The file needs operators that LiteRT does not have: {flex}.")
    if quantization in ("int8", "int16x8"):
        _check_integer_operators(file, quantization)
    for what, infos, wanted in (
        ("input", file.inputs, input_dtype),
        ("output", file.outputs, output_dtype),
    ):
        for info in infos:
            is_number = info.scale is not None or info.dtype in _FLOATS
            if wanted is not None and is_number and info.dtype != wanted:
                raise ExportError(
                    f"The {what} {info.name!r} is {info.dtype}; {wanted} was requested."
                )


def _check_integer_operators(file, quantization):
    left = float_operators(file)
    if left:
        raise LeftInFloatError(
            f"Operators {_names(left)} are left in float32, the first at {left[0].label!r}, which "
            f"a file of quantization={quantization!r} must not have. Have the student compute that "
            "in another way (a mask that is cast to float by pooling is one), or take "
            "quantization='dynamic'.",
            _names(left),
        )


# The trained integers and ranges in a file.


# Relative error of scales that float32 has rounded twice.
_CLOSE = 1e-5


def missing_weights(
    path: str | pathlib.Path,
    by_channel: Mapping[str, np.ndarray],
    whole: Mapping[str, np.ndarray] | None = None,
) -> list[str]:
    """Names of the weights whose integers a file does not hold.

    A folded BatchNormalization may flip the sign of a channel, and layouts differ, so channels are
    compared as multisets, up to their sign.

    Args:
        path: A `.tflite` file.
        by_channel: `{name: integers [..., channels]}` of the weights with one scale per channel,
            the channels last.
        whole: `{name: integers}` of those with one scale.
    """
    constants = list(_constants(path))
    channels = {_channel_key(each) for each in _with_channels(constants)}
    wholes = {values.tobytes() for values, scales, _ in constants if scales == 1}
    absent = [name for name, each in by_channel.items() if _channel_key(each) not in channels]
    return absent + [name for name, x in (whole or {}).items() if x.tobytes() not in wholes]


def missing_ranges(
    path: str | pathlib.Path, parameters: Mapping[str, tuple[float, int]]
) -> list[str]:
    """Names of the activations whose ranges a file does not hold.

    Args:
        path: A `.tflite` file.
        parameters: `{name: (scale, zero point)}`.
    """
    model = tflite.parse_file(path)
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


def channel_integers(path: str | pathlib.Path) -> list[np.ndarray]:
    """The integer constants of a file with one scale per channel, as `[size, channels]`."""
    return _with_channels(_constants(path))


def _with_channels(constants):
    return [
        np.moveaxis(values, axis, -1).reshape(-1, scales)
        for values, scales, axis in constants
        if values.ndim and scales == values.shape[axis]
    ]


def _constants(path: str | pathlib.Path) -> Iterator[tuple[np.ndarray, int, int]]:
    """Yields `(integers, number of scales, axis of the channels)`."""
    model = tflite.parse_file(path)
    for tensor in tflite.constants(model):
        quantization, kind = tensor.quantization, tflite.type_name(tensor)
        if kind in ("int8", "int4") and quantization is not None and quantization.scale is not None:
            values = _values(model.buffers[tensor.buffer].data, kind, tflite.shape_of(tensor))
            yield values, len(quantization.scale), int(quantization.quantizedDimension)


def _values(data, kind, shape):
    stored = np.frombuffer(bytes(data), np.int8)
    if kind == "int4":  # two in a byte, the first in the lower half
        low, high = (stored << 4) >> 4, stored >> 4
        stored = np.stack([low, high], axis=-1).ravel()[: int(np.prod(shape))]
    return stored.reshape(shape)


def _channel_key(integers):
    """A key that is equal for equal integers, whatever the layout and signs of channels."""
    columns = np.sort(np.asarray(integers, np.int8).reshape(-1, integers.shape[-1]), axis=0)
    turned = -columns[::-1]
    first = np.argmax(columns != turned, axis=0)
    index = np.arange(columns.shape[1])
    turn = columns[first, index] < turned[first, index]
    return np.where(turn, turned, columns).tobytes()
