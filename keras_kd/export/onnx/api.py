"""`to_onnx`: a student as an ONNX file, read back and compared."""

import dataclasses
import functools
import json
import os
import pathlib

import keras

from keras_kd._utils import progress, validation
from keras_kd._utils.files import renamed
from keras_kd._utils.validation import integer, invalid, needs, non_negative
from keras_kd.export import comparison, judging, representative, source
from keras_kd.export.onnx import convert, quantize, verify
from keras_kd.export.onnx.verify import OnnxExport

# Minima and maxima over some hundred rows no longer move the scales of int8 much.
_MAX_ROWS = 512


def to_onnx(
    student,
    path,
    *,
    opset=18,
    batch_size=None,
    quantization=None,
    representative_data=None,
    for_tensorrt=False,
    data=None,
    task="auto",
    tolerance=None,
    overwrite=False,
    metadata=None,
    verbose=1,
):
    """Writes a student as an ONNX file (`pip install 'keras-kd[onnx]'`).

    The file's inputs and outputs have the names that they have in Keras: keys of dicts, names of
    `keras.Input`s (`input`, where there are none), names of the layers that make the outputs. The
    file is validated, run by ONNX Runtime and compared with the student; only then is it there.

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
        batch_size: Rows of each call; default: any number.
        quantization: `None`, `"dynamic"` or `"int8"`.
        representative_data: For int8: some hundred inputs as in training; a batched
            `tf.data.Dataset` of inputs or `(inputs, labels)`, or arrays in the structure of the
            model's inputs. At most 512 rows are used.
        for_tensorrt: Whether TensorRT is to read the file.
        data: Inputs to compare with, as `representative_data`. Default: that, or random numbers;
            whole numbers are made only where an `Embedding` tells how many there are.
        task: What the outputs are: `"multiclass"`, `"binary"`, `"multilabel"`, `"regression"` (also
            images and embeddings), `"auto"`, or a dict from outputs' names to these; as of
            `to_tflite`. It decides which figures the result has, and which file is refused though
            `tolerance` allows it: one with other answers in more than half of the rows, or with
            numbers that are off by more than 0.7 deviations in nine of ten rows.
        tolerance: How far the outputs may be off. Float: the largest difference, as a part of the
            largest output, default 0.001. Quantized: the root of the mean squared difference, as a
            part of the outputs' standard deviation, default 0.25.
        overwrite: Whether an existing file is replaced.
        metadata: A dict of what else the file should tell, such as the classes' names: strings, or
            values that JSON has.
        verbose: 1, 2 or `"auto"`: a line for each part of the work when it begins, with its number
            and the time so far; 0: silent.

    Returns:
        An `OnnxExport`.

    Raises:
        ExportError: The file would not be valid, not the student's, or not what was asked for.
            Nothing is written.
        FileExistsError: There is such a file, and no `overwrite`.
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
    verbose = progress.checked(verbose)
    source.check(student)
    source.check_lookups(student, "to_onnx")
    path = path_of(path, overwrite)
    options = checked_options(opset, batch_size, quantization, for_tensorrt, tolerance, metadata)
    judging.check_task(task)
    calibration, rows = _rows(student, options, representative_data, data)
    if options.quantization == "int8":
        flat = keras.tree.flatten(calibration)
        options = dataclasses.replace(options, outliers=representative.outliers(flat))
    model = source.in_float32(student)
    signature = convert.signature(model, rows and rows.arrays, options.batch_size)
    if rows is None:
        made = source.filled_up(representative.made_for(model), options.batch_size)
        rows = comparison.Rows(made, are_real=False)
    steps = progress.Steps("to_onnx", 3 + options.is_quantized, verbose)
    steps.begin("running the student")
    outputs = verify.outputs_of(model, rows.arrays, options.batch_size)
    judgement = _judged(model, outputs, signature, rows, task)
    graph = _graph(model, signature, options, calibration, steps)
    content = graph.SerializeToString()
    steps.begin("comparing")
    found = verify.outputs_of_file(content, signature, graph, rows.arrays, options)
    expected = keras.tree.flatten(outputs)
    parity = verify.compared(found, expected, options, judgement, rows.are_real)
    notes = _notes(student, model, path, content, signature, options)
    _write(path, content)
    counted = parity.least_accurate
    return OnnxExport(
        path=str(path),
        bytes=len(content),
        opset=opset,
        quantization=quantization,
        operators=convert.operators(graph),
        inputs=convert.described(graph.graph.input),
        outputs=convert.described(graph.graph.output),
        agreement=parity.agreement,
        worst_difference=parity.worst_difference,
        notes=(
            *notes,
            *(comparison.notes(parity) if rows.are_real else ()),
            *filter(None, [options.outliers]),
        ),
        tasks=judgement.tasks,
        supposed=tuple(judgement.supposed),
        error=parity.error,
        accuracy=counted and counted.accuracy,
        model_accuracy=counted and counted.model_accuracy,
    )


def _judged(model, outputs, signature, rows, task):
    """The `judging.Judgement` of the outputs."""
    names = convert.output_names(model, outputs, signature.names)
    expected = keras.tree.flatten(outputs)
    promised = rows.are_promised
    return judging.of(model, names, expected, rows.labels, task, are_promised=promised)


def _rows(student, options, representative_data, data):
    """What to calibrate with, and the `comparison.Rows`; `None` where nothing was given."""
    if options.quantization == "int8" and representative_data is None:
        raise ValueError(
            "quantization='int8' needs `representative_data`: some hundred inputs as in training, "
            "by which the ranges of the activations are found."
        )
    whole = functools.partial(source.filled_up, batch_size=options.batch_size)
    calibration = rows = None
    if representative_data is not None:
        calibration, labels = representative.in_structure(
            representative_data, student, max_rows=_MAX_ROWS
        )
        rows = comparison.Rows(whole(calibration), _whole(labels, whole), are_promised=False)
    if data is not None:
        inputs, labels = representative.in_structure(data, student, "data", _MAX_ROWS)
        rows = comparison.Rows(whole(inputs), _whole(labels, whole))
    if options.quantization == "int8":
        reference = None if data is None else keras.tree.flatten(inputs)
        names = representative.names_of(student, calibration)
        representative.check(keras.tree.flatten(calibration), student, reference, names)
    return None if calibration is None else whole(calibration), rows


def _whole(labels, whole):
    return None if labels is None else whole(labels)


def _graph(model, signature, options, calibration, steps):
    """The valid ONNX model, quantized as asked for."""
    steps.begin("converting")
    graph = convert.graph_of(model, signature, options.opset)
    verify.check_valid(graph, signature)
    if options.is_quantized:
        steps.begin(
            "quantizing" if options.quantization == "dynamic" else "calibrating and quantizing"
        )
    if options.quantization == "dynamic":
        graph = quantize.dynamic(graph)
    elif options.quantization == "int8":
        graph = quantize.static(graph, signature.names, calibration, options)
    if options.is_quantized:
        verify.check_valid(graph, signature)
    convert.set_properties(graph, options.metadata)
    return graph


def _notes(student, model, path, content, signature, options):
    notes = []
    if model is not student:
        notes.append("The student computes in half precision, the file in float32.")
    if options.for_tensorrt:
        notes += quantize.notes(path, content, signature)
    return tuple(notes)


def _write(path, content):
    try:
        with renamed(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise OSError(f"{path} could not be written, nothing of it is there: {error}") from error


# The arguments of `to_onnx`, checked before any work.


# tf2onnx writes 13 to 18, ONNX's own converter 19 and 20; all were tried on every kind of model.
_OPSETS = range(13, 21)
_QUANTIZATIONS = (None, "dynamic", "int8")
_PACKAGES = ("onnx", "onnxruntime", "tf2onnx")


@dataclasses.dataclass(frozen=True)
class Options:
    """What `to_onnx` was asked for: see there."""

    opset: int
    batch_size: int | None
    quantization: str | None
    for_tensorrt: bool
    tolerance: float
    metadata: dict
    outliers: str = ""  # what is to be said of the representative data

    @property
    def is_quantized(self):
        """Whether anything becomes an integer."""
        return self.quantization is not None


def checked_options(opset, batch_size, quantization, for_tensorrt, tolerance, metadata):
    """The checked `Options`.

    Raises:
        ValueError: One is wrong, or two do not go together.
        ImportError: A package is missing.
    """
    if not isinstance(quantization, (str, type(None))) or quantization not in _QUANTIZATIONS:
        raise invalid("quantization", "None, 'dynamic' or 'int8'", repr(quantization))
    if not isinstance(opset, int) or opset not in _OPSETS:
        raise invalid("opset", "an integer from 13 to 20", repr(opset))
    if for_tensorrt and quantization == "dynamic":
        raise ValueError(
            "TensorRT does not read quantization='dynamic': its scales must be in the file. Pass "
            "quantization='int8' with representative_data, or None."
        )
    default = verify.TOLERANCE if quantization is None else verify.TOLERANCE_QUANTIZED
    checked = Options(
        opset,
        integer("batch_size", batch_size, 1, optional=True),
        quantization,
        validation.boolean("for_tensorrt", for_tensorrt),
        default if tolerance is None else non_negative("tolerance", tolerance),
        _properties(metadata),
    )
    for package in _PACKAGES:
        needs(package, "to_onnx", "onnx")
    return checked


def path_of(path, overwrite):
    """The path, if it may be written.

    Raises:
        FileExistsError: It exists, and `overwrite` is `False`.
        ValueError: It does not end in `.onnx`.
    """
    validation.boolean("overwrite", overwrite)
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path).endswith(".onnx"):
        raise ValueError(f"`path` must be a file name ending in .onnx. Received: path={path!r}")
    path = pathlib.Path(path)
    if path.exists() and not (overwrite and path.is_file()):
        raise FileExistsError(
            f"{path} exists. Pass overwrite=True to replace it (if it is a file)."
        )
    return path


def _properties(metadata):
    """Metadata as ONNX has it: strings; other values as JSON."""
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(key, str) for key in metadata):
        raise ValueError(f"`metadata` must be a dict with strings as keys. Received: {metadata!r}")
    try:
        return {
            key: value if isinstance(value, str) else json.dumps(value, allow_nan=False)
            for key, value in metadata.items()
        }
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`metadata` must have values that JSON has: {error}. Make lists and Python's numbers "
            "of arrays: array.tolist()."
        ) from error
