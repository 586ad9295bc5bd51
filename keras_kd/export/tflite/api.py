"""`to_tflite`: a student as a `.tflite` file that is known to hold what was asked for."""

import json
import os
import pathlib

from keras_kd._utils import files, progress, validation
from keras_kd.export import comparison, judging, representative, source
from keras_kd.export.source import ExportError, LeftInFloatError
from keras_kd.export.tflite import conversion, edge_quantizer, metadata, routes, verify
from keras_kd.version import __version__

# Above that, the other route is not tried: it would cost seconds and gain nothing that can be seen.
_AGREES_WELL = 0.98
# TensorFlow's quantizer leaves these in float in some runs and in others, of the same model, not:
# an unrolled GRU's SPLIT in 1 of 6. Others are left a second time, or for good.
_AT_TIMES = {"SPLIT", "SPLIT_V"}
_ATTEMPTS = 4


def to_tflite(
    student,
    path,
    quantization=None,
    *,
    representative_data=None,
    input_dtype=None,
    output_dtype=None,
    batch_size=1,
    data=None,
    task="auto",
    min_agreement=None,
    max_accuracy_drop=None,
    max_error=None,
    route="auto",
    user_metadata=None,
    overwrite=False,
    verbose=1,
):
    """Writes a student as a `.tflite` file, reads it back, and compares it with the student.

    Embeddings are one GATHER, which microcontrollers have: an index below 0, which counts from the
    end in Keras, is refused in the data, and is as undefined in the file as one beyond the table.

    Args:
        student: A Keras model with known input shapes, or a `QuantizationAware` student.
        path: The file to write.
        quantization: `None` (float32), `"float16"` (weights), `"dynamic"` (int8 weights,
            activations rounded as they come), `"int8"` (integers only, for NPUs and
            microcontrollers), `"int16x8"` (16-bit activations, 8-bit weights), `"int4"` (4-bit
            weights where LiteRT has kernels for them, 8-bit elsewhere, float activations), or a
            recipe of `ai_edge_quantizer`. A `QuantizationAware` student has its own.
        representative_data: For integer activations (`"int8"`, `"int16x8"`, some recipes): some
            hundred rows of training data. A batched `tf.data.Dataset` (labels are left out),
            arrays, or a function that returns an iterator of batches. At most 1000 rows are read.
        input_dtype: The type of inputs that are real numbers: `"float32"`, `"int8"`, `"uint8"` or
            `"int16"`. Default: that of the activations.
        output_dtype: The same of the outputs.
        batch_size: Rows of a batch, or `None` for any number. Recurrent layers need a number.
        data: Rows on which the file is compared with the student, with labels for the accuracy.
            Default: `representative_data`, else rows that are made up.
        task: What the outputs are judged by: `"multiclass"`, `"binary"`, `"multilabel"`,
            `"regression"` (also images and embeddings), `"auto"`, or a dict from outputs' names to
            these. By `"auto"` the labels of `data` tell, as in `keras_kd.measure`, else a softmax.
            What neither tells is supposed: several labels, or yes and no, of a sigmoid; numbers of
            four axes or more, of a last axis of 1, of relu and tanh; else classes. The result has
            it (`tasks`, `supposed`).
        min_agreement: The least fraction of rows (positions, labels) in which the file must give
            the student's answer: the largest of several classes; of yes or no the side of 0, or
            of 0.5 where the student ends in a sigmoid. Default: 0.5 (where classes are supposed
            only, or else an error of 0.5), and better than chance where the error is above 0.7.
        max_accuracy_drop: The accuracy that may be lost, a fraction such as 0.005.
        max_error: Of regression, how far the file may be off: the root mean squared difference in
            standard deviations of the student's output over the rows, without the tenth of the
            rows that lies farthest from the mean. Default: 0.7; a constant has 1.
        route: `"converter"` (TensorFlow's), `"edge_quantizer"`, or `"auto"`: whichever holds what
            was asked for, in the order that measured better.
        user_metadata: A dict that is kept in the file (`keras_kd.export.read_metadata`), such as
            the names of the classes.
        overwrite: Whether an existing file is replaced.
        verbose: 1, 2 or `"auto"`: a line for each part of the work when it begins, with its number
            and the time so far; 0: silent.

    Returns:
        A `TFLiteExport`: bytes, operators, scales of inputs and outputs, agreement, worst
        difference.

    Raises:
        ValueError: An argument, the student or the data is wrong; nothing was converted.
        ExportError: No route made a file that holds what was asked for: an operator is left in
            float, LiteRT lacks one, the outputs are NaN, or too far from the student's. Nothing was
            written.
        FileExistsError: The file exists.
        ImportError: An extra is missing.

    Example:

    ```python
    import pathlib
    import tempfile
    import keras
    import numpy as np
    import keras_kd as kd

    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    path = pathlib.Path(tempfile.mkdtemp()) / "student.tflite"
    done = kd.export.to_tflite(student, path, "int8", representative_data=x)
    scale, zero = done.inputs[0].scale, done.inputs[0].zero_point
    ```
    """
    validation.needs("ai_edge_litert.interpreter", "to_tflite", "export")  # before any work
    verbose = progress.checked(verbose)
    path = path_of(path, overwrite)
    bounds = judging.Bounds(min_agreement, max_accuracy_drop, max_error)
    judging.check_task(task)
    aware = student if isinstance(student, source.KnowsItsFile) else None
    quantization = _quantization(quantization, aware)
    check(quantization, input_dtype, output_dtype, batch_size, route)
    check_metadata(user_metadata)
    if quantization not in routes.CONVERTER_ONLY:
        edge_quantizer.needs()
    plain = source.checked(aware.rounded_student() if aware else student, "to_tflite")
    source.check_lookups(plain, "to_tflite")
    conversion.specs(plain, batch_size)
    if isinstance(quantization, str) and quantization in routes.NEEDS_DATA:
        source.check_for_integers(plain, quantization)
        source.check_whole_inputs(plain, quantization)
    arrays, rows = _rows(plain, quantization, representative_data, data)
    job = routes.Job(
        student=plain,
        quantization=quantization,
        arrays=arrays,
        batch_size=batch_size,
        input_dtype=input_dtype,
        output_dtype=output_dtype,
        aware=aware,
        metadata={"student": student.name, "keras_kd": __version__, "user": user_metadata or {}},
        steps=routes.steps_of(verbose),
    )
    ways = routes.of(job, route)
    return _best(job, ways, path, verify.Examiner(path, job, rows, bounds, task))


def _quantization(asked, aware):
    if aware is None:
        return asked
    if asked not in (None, aware.scheme):
        raise ValueError(
            f"The student was trained for {aware.scheme!r}, so its file is. Received: "
            f"quantization={asked!r}. For another one pass the student itself: aware.student."
        )
    return aware.scheme


def _rows(student, quantization, representative_data, data):
    """The arrays to calibrate with, and the `Rows` to compare on."""
    compared = None
    if data is not None:
        compared = comparison.Rows(*representative.read(data, student, "data", max_rows=None))
    is_recipe = not isinstance(quantization, (str, type(None)))  # it may need none
    needs_data = not is_recipe and quantization in routes.NEEDS_DATA
    if representative_data is None and not needs_data:
        return None, compared or comparison.made_up(student)
    arrays, labels = representative.read(representative_data, student)
    if needs_data or is_recipe:
        reference = compared.arrays if compared else None
        representative.check(arrays, student, reference)
    return arrays, compared or comparison.Rows(arrays, labels, are_promised=False)


def _best(job, ways, path, examiner):
    """Writes the file of the first route that agrees well with the model, else of the best.

    Returns:
        Its `TFLiteExport`.

    Raises:
        ExportError: None holds what was asked for.
    """
    found, failures, left_in_float = [], [], None
    for way in ways:
        try:
            found.append(_examined(job, way, examiner, left_in_float))
        except ExportError as error:
            failures.append((way, error))
            left_in_float = getattr(error, "operators", left_in_float)
            continue
        if found[-1].closeness is None or found[-1].closeness >= _AGREES_WELL:
            break
    if not found:
        raise _of_all(failures)
    best = max(found, key=lambda each: each.closeness or 0.0)
    with files.renamed(path) as partial:
        partial.write_bytes(best.content)
    return best.export


def _examined(job, way, examiner, left_in_float):
    """The `verify.Examined` file of one route.

    Args:
        job: The `routes.Job`.
        way: The route.
        examiner: The `verify.Examiner`.
        left_in_float: Operators that another route left in float, or `None`.
    """
    may_repeat = way == "converter" and job.is_integer
    for attempt in range(_ATTEMPTS):
        content = metadata.added(routes.convert(job, way), job.metadata)
        try:
            return examiner.examined(way, content)
        except LeftInFloatError as error:
            is_same = error.operators == left_in_float and not _AT_TIMES & set(error.operators)
            if not may_repeat or is_same or attempt == _ATTEMPTS - 1:
                raise
            left_in_float = error.operators
    raise AssertionError("unreachable")


def _of_all(failures):
    if len(failures) == 1:
        return failures[0][1]
    listed = " ".join(f"By {way.replace('_', ' ')}: {error}" for way, error in failures)
    return ExportError(f"No route makes this file. {listed}")


# The arguments of `to_tflite`, checked before any work.


_DTYPES = (None, "float32", "int8", "uint8", "int16")
# What the borders of an integer file may be.
_OF_QUANTIZATION = {"int8": ("float32", "int8", "uint8"), "int16x8": ("float32", "int16")}


def path_of(path, overwrite):
    """The path, if it may be written.

    Raises:
        FileExistsError: It exists, and is not to be replaced.
        ValueError: It is no path, or is a folder.
    """
    validation.boolean("overwrite", overwrite)
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise validation.invalid("path", "the name of a file, such as 'student.tflite'", repr(path))
    if pathlib.Path(path).is_dir():
        raise validation.invalid("path", "the name of a file", f"{os.fspath(path)!r}, a folder")
    return files.free(path, overwrite)


def check(quantization, input_dtype, output_dtype, batch_size, route):
    """Raises `ValueError` unless these arguments of `to_tflite` are possible, and go together."""
    _check_quantization(quantization)
    for name, dtype in (("input_dtype", input_dtype), ("output_dtype", output_dtype)):
        _check_dtype(name, dtype, quantization)
    validation.integer("batch_size", batch_size, 1, optional=True)
    validation.one_of("route", route, ("auto", "converter", "edge_quantizer"))


def _check_quantization(quantization):
    if quantization is None or quantization in routes.QUANTIZATIONS:
        return
    is_recipe = isinstance(quantization, (list, tuple)) and len(quantization)
    if not is_recipe or not all(isinstance(each, dict) for each in quantization):
        expected = (
            f"one of {routes.QUANTIZATIONS} or a recipe of ai_edge_quantizer, a list of dicts"
        )
        raise validation.invalid("quantization", expected, repr(quantization))


def _check_dtype(name, dtype, quantization):
    if dtype is not None and (not isinstance(dtype, str) or dtype not in _DTYPES):
        raise validation.invalid(name, f"one of {_DTYPES}", repr(dtype))
    if dtype in (None, "float32"):
        return
    if not isinstance(quantization, str) or quantization not in routes.NEEDS_DATA:
        raise ValueError(
            f"`{name}` is {dtype!r}, but a file of quantization={quantization!r} computes with "
            "floats. Use quantization='int8'."
        )
    if dtype not in _OF_QUANTIZATION[quantization]:
        raise ValueError(
            f"`{name}` is {dtype!r}, which a file of quantization={quantization!r} cannot have: "
            f"one of {_OF_QUANTIZATION[quantization]}."
        )


def check_metadata(user_metadata):
    """Raises `ValueError` unless it is a dict that comes back as it is."""
    if user_metadata is None:
        return
    is_named = isinstance(user_metadata, dict) and all(isinstance(x, str) for x in user_metadata)
    if not is_named:
        raise validation.invalid(
            "user_metadata", "a dict with strings as keys", repr(user_metadata)
        )
    try:
        json.dumps(user_metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`user_metadata` must have values that JSON has: {error}. Make lists and Python's "
            "numbers of arrays: array.tolist()."
        ) from error
