"""Whether an ONNX model is what was promised: valid, the same inputs, the same outputs."""

import itertools

import keras
import numpy as np

from keras_kd.export import comparison
from keras_kd.export.errors import ExportError

_BATCH = 32
_TINY = 1e-6
# Float: of the largest output. Quantized: root mean square, of the outputs' standard deviation;
# CNNs and transformers on MNIST have 0.02 to 0.08, broken files 0.17 to 1.7.
TOLERANCE, TOLERANCE_QUANTIZED = 1e-3, 0.25


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
    """A Keras model's outputs in inference, in their structure, as float64 or integer arrays.

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
    return keras.tree.pack_sequence_as(outputs, joined)


def outputs_of_file(content, signature, graph, inputs, options):
    """An ONNX model's outputs by ONNX Runtime, as of `outputs_of`, flat.

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
    joined = [np.concatenate(values) for values in zip(*parts, strict=True)]
    return [x if x.dtype.kind in "iub" else x.astype("float64") for x in joined]


def compared(found, expected, options, judgement, are_real):
    """A file's outputs against a model's, as a `comparison.Comparison`.

    Args:
        found: Of the file, a list of arrays.
        expected: Of the model.
        options: The `Options`.
        judgement: The `judging.Judgement`.
        are_real: Whether the rows are the user's.

    Raises:
        ExportError: They differ by more than the options' tolerance, or are ruined.
    """
    told = list(zip(judgement.outputs, found, expected, strict=True))
    for i, (_, a, b) in enumerate(told):
        if a.shape != b.shape:
            raise ExportError(f"Output {i} of the file has the shape {a.shape}, not {b.shape}.")
        if not np.all(np.isfinite(a)):
            raise ExportError(f"Output {i} of the file holds NaN or infinite values.")
    of_outputs = comparison.of_each(told)
    for figures, each in zip(of_outputs, told, strict=True):
        error = _error(*each, options.is_quantized)
        if error > options.tolerance:
            raise ExportError(_too_far(figures, error, options))
        ruin = comparison.ruin(figures, judgement.bounds, len(each[1])) if are_real else ""
        if ruin:
            raise ExportError(f"{ruin} {_remedy(options)}")
    worst = max(comparison.difference(a, b) for _, a, b in told)
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
    same = "" if agreement is None else f", the same class for {agreement:.1%} of the rows"
    return (
        f"Output {figures.output.name!r} of the file is off by {error:.3g} of the output's "
        f"{measure}{same}; tolerance={options.tolerance} allows less. {_remedy(options)}"
    )


def _remedy(options):
    """What to do about a file that is too far off."""
    if options.quantization == "dynamic":
        return (
            "Pass quantization='int8' with representative_data, whose weights have a scale for "
            "each channel, or use kd.export.to_tflite(..., quantization='dynamic'), whose have "
            "too; or leave the student in float."
        )
    if options.is_quantized:
        return (
            f"{options.outliers or 'Calibrate with more data that is like the training data.'} Or "
            "train with quantization in mind, or leave the student in float."
        )
    return "It does not compute what the student does: please report it."
