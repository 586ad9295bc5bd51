"""`to_onnx`: a student as an ONNX file that is run and compared; `OnnxExport`, its result."""

import dataclasses
import os
import textwrap
from collections.abc import Mapping
from typing import Any

import keras

from keras_kd._utils import files, progress, validation
from keras_kd.export import comparison, judging, representative, supported
from keras_kd.export.onnx import convert, quantize, verify
from keras_kd.export.onnx.options import OnnxOptions, writable_path
from keras_kd.export.representative import Samples
from keras_kd.export.student import ExportableModel

_PACKAGES = ("onnx", "onnxruntime", "tf2onnx")
# Minima and maxima over some hundred samples no longer change the scales of int8 much.
_MAX_SAMPLES = 512
# The width of a summary.
_WIDTH = 100


def to_onnx(
    student: keras.Model,
    path: str | os.PathLike,
    *,
    opset: int = 18,
    batch_size: int | None = None,
    quantization: str | None = None,
    representative_data: Any = None,
    for_tensorrt: bool = False,
    data: Any = None,
    task: str | Mapping[str, str] = "auto",
    tolerance: float | None = None,
    overwrite: bool = False,
    metadata: Mapping[str, Any] | None = None,
    verbose: int | str = 1,
) -> "OnnxExport":
    """Writes a student as an ONNX file (`pip install 'keras-kd[onnx]'`).

    The file's inputs and outputs have the names that they have in Keras: keys of dicts, names of
    `keras.Input`s (`input` if there is none), names of the layers that make the outputs. The graph
    is validated, run by ONNX Runtime and compared with the student before the file is written.

    - `quantization="dynamic"`: integer weights, about a quarter of the bytes in large layers; needs
      no data.
    - `quantization="int8"`: weights and activations. Weights use 7 bits, because ONNX Runtime's
      sums of 8-bit products overflow on processors without VNNI. Small models become no faster, and
      the description of the quantization takes some hundred bytes an operator: measure.
    - `for_tensorrt=True`: for int8 the settings that TensorRT's parser takes; the notes of the
      result have the command that builds an engine. Weights stay in float in the file, and the
      engine makes integers of them. ONNX Runtime's own int8 may overflow with such a file.

    Students of `mixed_float16` are written in float32. A GRU becomes a loop, which cannot be
    quantized.

    Args:
        student: A built `keras.Model`.
        path: The file, `....onnx`.
        opset: Version of ONNX's operators, 13 to 20.
        batch_size: The batch size of the file; default: any.
        quantization: `None`, `"dynamic"` or `"int8"`.
        representative_data: For int8: some hundred inputs as in training; a batched
            `tf.data.Dataset` of inputs or `(inputs, labels)`, or arrays in the structure of the
            model's inputs. At most 512 samples are used.
        for_tensorrt: Whether TensorRT is to read the file.
        data: Samples to compare on, as `representative_data`. Default: that, or random numbers;
            random integers are made only for an `Embedding`, whose size is known.
        task: How the outputs are judged: `"multiclass"`, `"binary"`, `"multilabel"`,
            `"regression"` (also images and embeddings), `"auto"`, or a dict from outputs' names to
            these; see `to_tflite`. It decides which figures the result has. A file that
            `tolerance` allows is an error all the same if more than half of the answers differ, or
            if numbers are off by more than 0.7 deviations in nine of ten samples.
        tolerance: How far the outputs may be off. Float: the largest difference, as a part of the
            largest output, default 0.001. Quantized: the root of the mean squared difference, as a
            part of the outputs' standard deviation, default 0.25.
        overwrite: Whether an existing file is replaced.
        metadata: A dict that is stored in the file, such as the classes' names: strings, or values
            that JSON has.
        verbose: 1, 2 or `"auto"`: a line for each part of the work when it begins, with its number
            and the time so far; 0: silent.

    Returns:
        An `OnnxExport`.

    Raises:
        ExportError: The file would not be valid, or not compute what the student does. Nothing is
            written.
        FileExistsError: The file exists, and `overwrite` is `False`.
        ImportError: `onnx`, `onnxruntime` or `tf2onnx` is missing.
        ValueError: An argument is wrong.

    Example:

    ```python
    import keras
    import tempfile
    import keras_kd as kd

    student = keras.Sequential(
        [keras.Input((8,), name="features"), keras.layers.Dense(10, name="logits")]
    )
    with tempfile.TemporaryDirectory() as folder:
        export = kd.export.to_onnx(student, f"{folder}/student.onnx")
    print(export)
    assert export.outputs == {"logits": "float32[batch, 10]"} and export.agreement == 1.0
    ```
    """
    verbose = progress.check_verbose(verbose)
    options = OnnxOptions(
        path=writable_path(path, overwrite),
        opset=opset,
        batch_size=batch_size,
        quantization=quantization,
        for_tensorrt=for_tensorrt,
        task=task,
        tolerance=tolerance,
        metadata=metadata,
    )
    exportable = ExportableModel.from_keras(student, "to_onnx", needs_inputs=False)
    supported.check_lookups(exportable, "to_onnx")
    for package in _PACKAGES:
        validation.needs(package, "to_onnx", "onnx")
    exportable, calibration, samples = _samples(exportable, options, representative_data, data)
    signature = convert.signature_of(exportable, options.batch_size)
    if samples is None:
        samples = representative.random_samples(exportable).filled(options.batch_size)
    steps = progress.Steps("to_onnx", 3 + options.is_quantized, verbose)
    steps.begin("running the student")
    outputs = verify.run_student(exportable, samples, options.batch_size)
    signature = signature.with_outputs(exportable, outputs)
    expected = keras.tree.flatten(outputs)
    judgment = judging.judge_outputs(
        exportable.model,
        signature.outputs,
        expected,
        samples.labels,
        options.task,
        labels_must_fit=samples.labels_must_fit,
    )
    graph = _graph(exportable, signature, options, calibration, steps)
    content = graph.SerializeToString()
    steps.begin("comparing")
    found = verify.run_file(content, signature, graph, samples, options)
    outliers = representative.outliers(None if calibration is None else calibration.arrays)
    compared = verify.compare(found, expected, samples, judgment, options, outliers)
    notes = [
        *_notes(exportable, student, options, content, signature),
        *(comparison.notes(compared) if samples.are_given else ()),
        *filter(None, [outliers]),
    ]
    _write(options.path, content)
    return _summarize(graph, content, options, judgment, compared, notes)


def _samples(
    exportable: ExportableModel, options: OnnxOptions, representative_data: Any, data: Any
) -> tuple[ExportableModel, Samples | None, Samples | None]:
    """The student with inputs as in the data, and the samples to calibrate and to compare with."""
    if options.is_integer and representative_data is None:
        raise ValueError(
            "quantization='int8' needs `representative_data`: some hundred inputs as in training, "
            "by which the ranges of the activations are found."
        )
    calibration = given = compared = None
    if representative_data is not None:
        exportable, given = representative.read_with_inputs(
            representative_data, exportable, max_samples=_MAX_SAMPLES
        )
        compared = given.with_optional_labels()
    if data is not None:
        exportable, compared = representative.read_with_inputs(
            data, exportable, "data", _MAX_SAMPLES
        )
    if options.is_integer and given is not None:
        reference = None if data is None or compared is None else compared.arrays
        representative.check_ranges(given.arrays, exportable, reference)
        calibration = given.filled(options.batch_size)
    return exportable, calibration, compared and compared.filled(options.batch_size)


def _graph(exportable, signature, options, calibration, steps):
    """The valid ONNX model, quantized if that was requested."""
    steps.begin("converting")
    graph = convert.graph_of(exportable, signature, options.opset)
    verify.check_valid(graph, signature)
    if options.is_quantized:
        steps.begin("calibrating and quantizing" if options.is_integer else "quantizing")
        if options.is_integer:
            graph = quantize.quantize_static(graph, signature, calibration.arrays, options)
        else:
            graph = quantize.quantize_dynamic(graph)
        verify.check_valid(graph, signature)
    convert.set_properties(graph, options.properties)
    return graph


def _notes(exportable, student, options, content, signature):
    if exportable.model is not student:
        yield "The student computes in half precision, the file in float32."
    if options.for_tensorrt:
        yield from quantize.tensorrt_notes(options.path, content, signature)


def _write(path, content):
    try:
        with files.replace_atomically(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise OSError(f"{path} could not be written, nothing of it is there: {error}") from error


def _summarize(graph, content, options, judgment, compared, notes):
    counted = compared.least_accurate
    return OnnxExport(
        path=str(options.path),
        bytes=len(content),
        opset=options.opset,
        quantization=options.quantization,
        operators=convert.count_operators(graph),
        inputs=convert.describe(graph.graph.input),
        outputs=convert.describe(graph.graph.output),
        agreement=compared.agreement,
        worst_difference=compared.worst_difference,
        notes=tuple(notes),
        tasks=judgment.tasks,
        supposed=tuple(judgment.assumed),
        error=compared.error,
        accuracy=None if counted is None else counted.accuracy,
        model_accuracy=None if counted is None else counted.model_accuracy,
    )


@dataclasses.dataclass(frozen=True)
class OnnxExport:
    """The file that `keras_kd.export.to_onnx` wrote. `str` makes a summary of it.

    Args:
        path: The file.
        bytes: Its size.
        opset: The version of ONNX's operators that it needs.
        quantization: `None`, `"dynamic"` or `"int8"`.
        operators: `{operator: count}`.
        inputs: A dict from the inputs' names to their types and shapes, such as
            `"float32[batch, 28, 28, 1]"`.
        outputs: The same of the outputs.
        agreement: The fraction of samples (tokens, pixels) with the student's answer: the largest
            output, or the side of the threshold of yes or no; the least of the outputs. `None`
            where there are no classes.
        worst_difference: The largest difference between an output and the student's.
        notes: What a user of the file should know.
        tasks: `{output: task}`, by which it was compared: `"multiclass"`, `"binary"`,
            `"multilabel"` or `"regression"`.
        supposed: Names of the outputs whose task is assumed from their shape and layer.
        error: Root mean squared difference in standard deviations of the student's output, without
            the tenth of the samples that lies farthest from the mean; the largest of the outputs.
        accuracy: The file's on `data`, where that has labels of classes, else `None`.
        model_accuracy: The student's on the same.

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
    operators: dict[str, int]
    inputs: dict[str, str]
    outputs: dict[str, str]
    agreement: float | None
    worst_difference: float
    notes: tuple[str, ...] = ()
    tasks: dict[str, str] = dataclasses.field(default_factory=dict)
    supposed: tuple[str, ...] = ()
    error: float | None = None
    accuracy: float | None = None
    model_accuracy: float | None = None

    def __str__(self) -> str:
        kind = "float32" if self.quantization is None else self.quantization
        lines = [f"{self.path}: ONNX, opset {self.opset}, {kind}, {self.bytes:,} bytes"]
        for title, values in (("inputs", self.inputs), ("outputs", self.outputs)):
            lines += _entry(title, ", ".join(f"{k} {v}" for k, v in values.items()))
        counts = sorted(self.operators.items(), key=lambda item: (-item[1], item[0]))
        lines += _entry("operators", ", ".join(f"{n} {name}" for name, n in counts))
        same = "" if self.agreement is None else f"same answer {self.agreement:.2%}, "
        lines += _entry("agreement", f"{same}worst difference {self.worst_difference:.2g}")
        if self.tasks:
            tasks = (
                f"{name}: {task}{' (assumed; pass `task`)' if name in self.supposed else ''}"
                for name, task in self.tasks.items()
            )
            lines += _entry("task", ", ".join(tasks))
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
