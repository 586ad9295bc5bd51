"""Verifies an ONNX graph: that it is valid, has the student's inputs, and gives its outputs."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_kd.export import comparison
from keras_kd.export.judging import Judgment
from keras_kd.export.onnx.convert import Signature
from keras_kd.export.onnx.options import OnnxOptions
from keras_kd.export.representative import Samples
from keras_kd.export.student import ExportableModel, ExportError

_BATCH = 32
_TINY = 1e-6


def check_valid(graph: Any, signature: Signature) -> None:
    """Raises unless a graph is valid ONNX with the inputs of the signature."""
    import onnx

    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"The file would not be valid ONNX: {error}") from error
    found = [x.name for x in graph.graph.input]
    if sorted(found) != sorted(signature.inputs):
        raise ExportError(
            f"The file would have the inputs {found}, the model has {list(signature.inputs)}."
        )


def run_student(exportable: ExportableModel, samples: Samples, batch_size: int | None) -> Any:
    """The student's outputs in inference, in their structure, as float64 or integer arrays.

    Raises:
        ValueError: They hold NaN: a model that is broken already.
    """
    parts = []
    for batch in _batches(samples, batch_size):
        outputs = exportable.run(batch)
        parts.append([keras.ops.convert_to_numpy(x) for x in keras.tree.flatten(outputs)])
    joined = _joined(parts)
    if not all(np.all(np.isfinite(x)) for x in joined):
        raise ValueError(
            f"The student {exportable.name!r} itself gives NaN or infinite outputs. Look into its "
            "training, or at the data."
        )
    return keras.tree.pack_sequence_as(outputs, joined)


def run_file(
    content: bytes, signature: Signature, graph: Any, samples: Samples, options: OnnxOptions
) -> list[np.ndarray]:
    """The outputs of an ONNX model by ONNX Runtime, flat, as float64 or integer arrays.

    A file for TensorRT is run without ONNX Runtime's optimizations: it then computes in float what
    the pairs of QuantizeLinear and DequantizeLinear mean. Its integers could overflow here.
    """
    import onnxruntime

    given = onnxruntime.SessionOptions()
    given.log_severity_level = 3
    if options.is_quantized and options.for_tensorrt:
        given.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    outputs = [x.name for x in graph.graph.output]
    try:
        session = onnxruntime.InferenceSession(content, given, providers=["CPUExecutionProvider"])
        return _joined(
            [
                session.run(outputs, signature.feed(batch))
                for batch in _batches(samples, options.batch_size)
            ]
        )
    except Exception as error:  # ONNX Runtime's errors have no base class of their own
        raise ExportError(f"ONNX Runtime cannot run the file: {error}") from error


def _batches(samples: Samples, batch_size: int | None) -> Iterator[list[np.ndarray]]:
    """Batches; where any size will do, the first has one sample, so that two sizes are tried."""
    count = samples.count
    if batch_size is None:
        bounds = [0, 1, *range(1 + _BATCH, count, _BATCH), count]
    else:
        bounds = list(range(0, count + 1, batch_size))
    for start, stop in itertools.pairwise(bounds):
        if stop > start:
            yield [x[start:stop] for x in samples.arrays]


def _joined(parts):
    joined = [np.concatenate(values) for values in zip(*parts, strict=True)]
    return [x if x.dtype.kind in "iub" else x.astype("float64") for x in joined]


def compare(
    found: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    samples: Samples,
    judgment: Judgment,
    options: OnnxOptions,
    outliers: str,
) -> comparison.Comparison:
    """Compares outputs of a file with those of the student.

    Args:
        found: The outputs of the file.
        expected: The outputs of the student.
        samples: The `Samples` that they are for.
        judgment: How each output is judged.
        options: The checked arguments.
        outliers: A sentence on outliers among the representative data.

    Raises:
        ExportError: They differ by more than the options' tolerance, or are worthless.
    """
    remedy = _remedy(options, outliers)
    compared = list(zip(judgment.outputs, found, expected, strict=True))
    for i, (_, a, b) in enumerate(compared):
        if a.shape != b.shape:
            raise ExportError(f"Output {i} of the file has the shape {a.shape}, not {b.shape}.")
        if not np.all(np.isfinite(a)):
            raise ExportError(f"Output {i} of the file holds NaN or infinite values.")
    of_outputs = comparison.compare_outputs(compared)
    for figures, each in zip(of_outputs, compared, strict=True):
        error = _error(*each, options.is_quantized)
        if error > options.max_error:
            raise ExportError(f"{_too_far(figures, error, options)} {remedy}")
        if not samples.are_given:
            continue
        failure = comparison.describe_failure(figures, judgment.bounds, len(each[1]))
        if failure:
            raise ExportError(f"{failure} {remedy}")
    worst = max(comparison.difference(a, b) for _, a, b in compared)
    return comparison.Comparison(len(found[0]), of_outputs, worst, 0.0)


def _error(output, a, b, quantized):
    if output.are_indices:
        return 0.0 if quantized else comparison.other_indices(a, b)
    difference = np.abs(a - b)
    if quantized:
        return float(np.sqrt(np.mean(difference**2)) / max(np.std(b), _TINY))
    return float(max(np.max(difference) - _TINY, 0) / max(np.max(np.abs(b)), _TINY))


def _too_far(figures, error, options):
    measure = "standard deviation" if options.is_quantized else "largest value"
    agreement = figures.agreement
    same = "" if agreement is None else f", the same class for {agreement:.1%} of the samples"
    return (
        f"Output {figures.output.name!r} of the file is off by {error:.3g} of the output's "
        f"{measure}{same}; tolerance={options.max_error} allows less."
    )


def _remedy(options, outliers):
    """What to do about a file that is too far off."""
    if options.quantization == "dynamic":
        return (
            "Pass quantization='int8' with representative_data, whose weights have a scale for "
            "each channel, or use kd.export.to_tflite(..., quantization='dynamic'), whose weights "
            "have too; or leave the student in float."
        )
    if options.is_quantized:
        return (
            f"{outliers or 'Calibrate with more data that is like the training data.'} Or "
            "train with quantization in mind, or leave the student in float."
        )
    return "It does not compute what the student does: please report it."
