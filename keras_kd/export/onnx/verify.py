"""Whether an ONNX model is what was promised: valid, the same inputs, the same outputs."""

import dataclasses
import itertools
import textwrap

import keras
import numpy as np

from keras_kd.export import comparison
from keras_kd.export.source import ExportError

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


# `OnnxExport`: what `to_onnx` wrote, and how it compares with the student.


_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class OnnxExport:
    """What `keras_kd.export.to_onnx` wrote. `str` makes a summary of it.

    Args:
        path: The file.
        bytes: Its size.
        opset: The version of ONNX's operators that it needs.
        quantization: `None`, `"dynamic"` or `"int8"`.
        operators: How often each operator is in it, as a dict.
        inputs: A dict from the inputs' names to their types and shapes, such as
            `"float32[batch, 28, 28, 1]"`.
        outputs: The same of the outputs.
        agreement: The share of the rows (tokens, pixels) with the student's answer: the largest
            output, or the side of the threshold of yes or no; of the output for which it is least.
            `None` where there are no classes.
        worst_difference: The largest difference between an output and the student's.
        notes: A tuple of what a user of the file should know.
        tasks: `{output: task}`, by which it was compared: `"multiclass"`, `"binary"`,
            `"multilabel"` or `"regression"`.
        supposed: Names of the outputs of which only shape and layer tell the task.
        error: Root mean squared difference in standard deviations of the student's output, but for
            the tenth of the rows that lies farthest from the mean; the largest of the outputs.
        accuracy: Of the file on `data`, where that has labels of classes, else `None`.
        model_accuracy: Of the student on the same.

    Example:

    ```python
    import keras_kd as kd

    export = kd.export.OnnxExport(
        "student.onnx", 4100, 18, None, {"MatMul": 2, "Relu": 1}, {"x": "float32[batch, 8]"},
        {"logits": "float32[batch, 10]"}, 1.0, 2e-7,
    )
    print(export)
    ```
    """

    path: str
    bytes: int
    opset: int
    quantization: str | None
    operators: dict
    inputs: dict
    outputs: dict
    agreement: float | None
    worst_difference: float
    notes: tuple = ()
    tasks: dict = dataclasses.field(default_factory=dict)
    supposed: tuple = ()
    error: float | None = None
    accuracy: float | None = None
    model_accuracy: float | None = None

    def __str__(self):
        kind = "float32" if self.quantization is None else self.quantization
        lines = [f"{self.path}: ONNX, opset {self.opset}, {kind}, {self.bytes:,} bytes"]
        for title, values in (("inputs", self.inputs), ("outputs", self.outputs)):
            lines += _entry(title, ", ".join(f"{k} {v}" for k, v in values.items()))
        counts = sorted(self.operators.items(), key=lambda item: (-item[1], item[0]))
        lines += _entry("operators", ", ".join(f"{n} {name}" for name, n in counts))
        same = "" if self.agreement is None else f"same answer {self.agreement:.2%}, "
        lines += _entry("agreement", f"{same}worst difference {self.worst_difference:.2g}")
        if self.tasks:
            told = (
                f"{name}: {task}{' (supposed; `task` tells)' if name in self.supposed else ''}"
                for name, task in self.tasks.items()
            )
            lines += _entry("task", ", ".join(told))
        if self.accuracy is not None:
            lines += _entry(
                "accuracy", f"{self.accuracy:.2%}, the student's {self.model_accuracy:.2%}"
            )
        # Not wrapped: a note may be a command.
        return "\n".join(lines + [f"  {'note':<11}{note}" for note in self.notes])


def _entry(title, text):
    head = f"  {title:<11}"
    wrapped = textwrap.wrap(text, _WIDTH - len(head), break_long_words=False) or [""]
    return [head + wrapped[0]] + [" " * len(head) + line for line in wrapped[1:]]
