"""Whether an ONNX model is what was promised: valid, the same inputs, the same outputs."""

import dataclasses
import itertools

import keras
import numpy as np

from keras_kd.export.errors import ExportError

_BATCH = 32
_TINY = 1e-6
# Float: of the largest output. Quantized: root mean square, of the outputs' standard deviation;
# CNNs and transformers on MNIST have 0.02 to 0.08, broken files 0.17 to 1.7.
TOLERANCE, TOLERANCE_QUANTIZED = 1e-3, 0.25


@dataclasses.dataclass(frozen=True)
class Parity:
    """How the outputs of a file compare with those of the model: see `OnnxExport`."""

    agreement: float | None
    worst_difference: float


def check_valid(graph, signature):
    """Raises unless a graph is valid ONNX with the inputs of the signature."""
    import onnx

    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"The file would be no valid ONNX: {error}") from error
    found = [x.name for x in graph.graph.input]
    if sorted(found) != sorted(signature.names):
        raise ExportError(
            f"The file would have the inputs {found}, the model has {signature.names}."
        )


def outputs_of(model, inputs, batch_size):
    """A Keras model's outputs in inference, flat, as float64 arrays.

    Raises:
        ValueError: They hold NaN: a model that is broken already.
    """
    parts = []
    for feed in _batches(inputs, batch_size):
        outputs = model(keras.tree.pack_sequence_as(inputs, feed), training=False)
        parts.append([keras.ops.convert_to_numpy(x) for x in keras.tree.flatten(outputs)])
    joined = _joined(parts)
    if not all(np.all(np.isfinite(x)) for x in joined):
        raise ValueError(
            f"The student {model.name!r} itself gives NaN or infinite outputs. Look into its "
            "training, or at the data."
        )
    return joined


def outputs_of_file(content, signature, graph, inputs, options):
    """An ONNX model's outputs by ONNX Runtime, as `outputs_of`.

    A file for TensorRT is run without ONNX Runtime's optimizations: then it computes in float what
    the pairs of QuantizeLinear and DequantizeLinear say. Its integers could overflow here.
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
                session.run(outputs, dict(zip(signature.names, feed, strict=True)))
                for feed in _batches(inputs, options.batch_size)
            ]
        )
    except Exception as error:  # ONNX Runtime's errors have no base class of their own
        raise ExportError(f"ONNX Runtime cannot run the file: {error}") from error


def _batches(inputs, batch_size):
    """Flat batches; where any size will do the first has one row, so that two sizes are tried."""
    flat = keras.tree.flatten(inputs)
    rows = len(flat[0])
    if batch_size is None:
        bounds = [0, 1, *range(1 + _BATCH, rows, _BATCH), rows]
    else:
        bounds = list(range(0, rows + 1, batch_size))
    for start, stop in itertools.pairwise(bounds):
        if stop > start:
            yield [x[start:stop] for x in flat]


def _joined(parts):
    return [np.concatenate(values).astype("float64") for values in zip(*parts, strict=True)]


def compared(found, expected, options):
    """The `Parity` of a file's outputs with a model's.

    Raises:
        ExportError: They differ by more than the options' tolerance.
    """
    agreements = []
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        if a.shape != b.shape:
            raise ExportError(f"Output {i} of the file has the shape {a.shape}, not {b.shape}.")
        if not np.all(np.isfinite(a)):
            raise ExportError(f"Output {i} of the file holds NaN or infinite values.")
        error = _error(a, b, options.is_quantized)
        if b.shape[-1] > 1:
            agreements.append(float(np.mean(a.argmax(-1) == b.argmax(-1))))
        if error > options.tolerance:
            raise ExportError(_too_far(i, error, agreements, options))
    worst = max(float(np.max(np.abs(a - b))) for a, b in zip(found, expected, strict=True))
    return Parity(min(agreements, default=None), worst)


def _error(a, b, quantized):
    difference = np.abs(a - b)
    if quantized:
        return float(np.sqrt(np.mean(difference**2)) / max(np.std(b), _TINY))
    return float(max(np.max(difference) - _TINY, 0) / max(np.max(np.abs(b)), _TINY))


def _too_far(i, error, agreements, options):
    measure, remedy = (
        "largest value",
        "It does not compute what the student does: please report it.",
    )
    if options.is_quantized:
        measure = "standard deviation"
        remedy = (
            "Calibrate with more data that is like the training's, train with quantization in "
            "mind, or leave the student in float."
        )
    same = f", the same class for {agreements[-1]:.1%} of the rows" if agreements else ""
    return (
        f"Output {i} of the file is off by {error:.3g} of the output's {measure}{same}; tolerance="
        f"{options.tolerance} allows less. {remedy}"
    )
