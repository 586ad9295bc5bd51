"""`to_tflite`: a student as a `.tflite` file that is read back and compared."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_kd._utils import files, progress, validation
from keras_kd.export import judging, representative, supported
from keras_kd.export.representative import Samples
from keras_kd.export.student import (
    ExportableModel,
    ExportError,
    ExportSource,
    LeftInFloatError,
)
from keras_kd.export.tflite import conversion, edge_quantizer, metadata, routes
from keras_kd.export.tflite.options import TFLiteOptions, writable_path
from keras_kd.export.tflite.verify import VerifiedFile, Verifier
from keras_kd.version import __version__

# Above that, the other route is not tried: it would cost seconds and gain nothing visible.
_AGREES_WELL = 0.98
# TensorFlow's quantizer leaves these in float in some runs of the same model and not in others: an
# unrolled GRU's SPLIT in 1 of 6. Others are left a second time, or always.
_AT_TIMES = {"SPLIT", "SPLIT_V"}
_ATTEMPTS = 4


def to_tflite(
    student: keras.Model,
    path: str | os.PathLike,
    quantization: str | Sequence[Mapping[str, Any]] | None = None,
    *,
    representative_data: Any = None,
    input_dtype: str | None = None,
    output_dtype: str | None = None,
    batch_size: int | None = 1,
    data: Any = None,
    task: str | Mapping[str, str] = "auto",
    min_agreement: float | None = None,
    max_accuracy_drop: float | None = None,
    max_error: float | None = None,
    route: str = "auto",
    user_metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    verbose: int | str = 1,
) -> metadata.TFLiteExport:
    """Writes a student as a `.tflite` file, reads it back, and compares it with the student.

    An embedding is one GATHER in the file, which microcontrollers have. An index below 0, which
    counts from the end in Keras, is as undefined there as one beyond the table; in the data it
    raises an error.

    Args:
        student: A Keras model with known input shapes, or a `QuantizationAware` student.
        path: The file to write.
        quantization: `None` (float32), `"float16"` (weights), `"dynamic"` (int8 weights,
            activations quantized at run time), `"int8"` (integers only, for NPUs and
            microcontrollers), `"int16x8"` (16-bit activations, 8-bit weights), `"int4"` (4-bit
            weights where LiteRT has kernels for them, 8-bit elsewhere, float activations), or a
            recipe of `ai_edge_quantizer`. A `QuantizationAware` student has its own.
        representative_data: For integer activations (`"int8"`, `"int16x8"`, some recipes): some
            hundred samples of training data. A batched `tf.data.Dataset` (labels are ignored),
            arrays, or a function that returns an iterator of batches. At most 1000 samples are
            read.
        input_dtype: The type of inputs that are real numbers: `"float32"`, `"int8"`, `"uint8"` or
            `"int16"`. Default: that of the activations.
        output_dtype: The same of the outputs.
        batch_size: The batch size of the file, or `None` for any. Recurrent layers need a number.
        data: Samples on which the file is compared with the student, with labels for the accuracy.
            Default: `representative_data`, else samples that are made up.
        task: How the outputs are judged: `"multiclass"`, `"binary"`, `"multilabel"`,
            `"regression"` (also images and embeddings), `"auto"`, or a dict from outputs' names to
            these. `"auto"` takes it from the labels of `data`, as `keras_kd.measure` does, else
            from a softmax. Otherwise it is assumed: several labels, or yes and no, of a sigmoid;
            numbers of four axes or more, of a last axis of 1, of relu and tanh; else classes. The
            result has it (`tasks`, `supposed`).
        min_agreement: The least fraction of samples (positions, labels) in which the file must
            give the student's answer: the largest of several classes; of yes or no the side of 0,
            or of 0.5 where the student ends in a sigmoid. Default: 0.5 (where classes are only
            assumed, or else an error of 0.5), and better than chance where the error is above 0.7.
        max_accuracy_drop: The accuracy that may be lost, a fraction such as 0.005.
        max_error: Of regression, how far the file may be off: the root mean squared difference in
            standard deviations of the student's output over the samples, without the tenth of the
            samples that lies farthest from the mean. Default: 0.7; a constant has 1.
        route: `"converter"` (TensorFlow's), `"edge_quantizer"`, or `"auto"`: the first that makes
            such a file, in the order that measured better.
        user_metadata: A dict that is stored in the file (`keras_kd.export.read_metadata`), such as
            the names of the classes.
        overwrite: Whether an existing file is replaced.
        verbose: 1, 2 or `"auto"`: a line for each part of the work when it begins, with its number
            and the time so far; 0: silent.

    Returns:
        A `TFLiteExport`: bytes, operators, scales of inputs and outputs, agreement, worst
        difference.

    Raises:
        ValueError: An argument, the student or the data is wrong; nothing was converted.
        ExportError: No route made such a file: an operator is left in float, LiteRT lacks one, the
            outputs are NaN, or too far from the student's. Nothing was written.
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
    verbose = progress.check_verbose(verbose)
    source = student if isinstance(student, ExportSource) else None
    options = TFLiteOptions(
        path=writable_path(path, overwrite),
        quantization=_quantization(quantization, source),
        input_dtype=input_dtype,
        output_dtype=output_dtype,
        batch_size=batch_size,
        route=route,
        task=task,
        bounds=judging.Bounds(min_agreement, max_accuracy_drop, max_error),
        user_metadata=user_metadata,
        has_trained_ranges=source is not None,
    )
    if options.needs_edge_quantizer:
        edge_quantizer.require_edge_quantizer()
    exportable = _exportable(student, source, options)
    arrays, samples = _samples(exportable, options, representative_data, data)
    steps = progress.Steps("to_tflite", 0, verbose)  # each route that is tried adds its own
    job = routes.Job(exportable, options, arrays, steps)
    verified = _best(job, options.routes(), Verifier.prepare(job, samples))
    with files.replace_atomically(options.path) as partial:
        partial.write_bytes(verified.content)
    return verified.export


def _quantization(requested, source):
    if source is None:
        return requested
    if requested not in (None, source.scheme):
        raise ValueError(
            f"The student was trained for {source.scheme!r}, so its file is. Received: "
            f"quantization={requested!r}. For another one pass the student itself: aware.student."
        )
    return source.scheme


def _exportable(student, source, options):
    """The student, inspected and checked for a file with these options."""
    if source is None:
        exportable = ExportableModel.from_keras(student, "to_tflite")
    else:
        exportable = ExportableModel.from_source(source, "to_tflite")
    supported.check_lookups(exportable, "to_tflite")
    conversion.input_signature(exportable, options.batch_size)
    if options.is_integer:
        supported.check_integer_activations(exportable, options.quantization)
        supported.check_integer_inputs(exportable, options.quantization)
    return exportable


def _samples(
    exportable: ExportableModel, options: TFLiteOptions, representative_data: Any, data: Any
) -> tuple[list | None, Samples]:
    """The arrays to calibrate with, and the samples to compare on."""
    compared = None
    if data is not None:
        compared = representative.read_samples(data, exportable, "data", max_samples=None)
    if representative_data is None and not options.is_integer:
        return None, compared or representative.made_up_samples(exportable)
    given = representative.read_samples(representative_data, exportable)
    if options.is_integer or options.is_recipe:
        reference = compared.arrays if compared else None
        representative.check_ranges(given.arrays, exportable, reference)
    return given.arrays, compared or given.with_optional_labels()


def _best(job, ways, verifier: Verifier) -> VerifiedFile:
    """The file of the first route that agrees well with the student, else of the best.

    Raises:
        ExportError: No route makes such a file.
    """
    found: list[VerifiedFile] = []
    failures: list[tuple[str, ExportError]] = []
    left_in_float = None
    for way in ways:
        try:
            found.append(_verified(job, way, verifier, left_in_float))
        except ExportError as error:
            failures.append((way, error))
            left_in_float = getattr(error, "operators", left_in_float)
            continue
        if found[-1].closeness is None or found[-1].closeness >= _AGREES_WELL:
            break
    if not found:
        raise _of_all(failures)
    return max(found, key=lambda each: each.closeness or 0.0)


def _verified(job, way, verifier, left_in_float):
    """The verified file of one route.

    Args:
        job: The `routes.Job`.
        way: The route.
        verifier: The `Verifier`.
        left_in_float: Operators that another route left in float, or `None`.
    """
    may_repeat = way == "converter" and job.options.is_integer
    for attempt in range(_ATTEMPTS):
        content = metadata.add_metadata(routes.convert(job, way), _metadata(job))
        try:
            return verifier.verify(way, content)
        except LeftInFloatError as error:
            is_same = error.operators == left_in_float and not _AT_TIMES & set(error.operators)
            if not may_repeat or is_same or attempt == _ATTEMPTS - 1:
                raise
            left_in_float = error.operators
    raise AssertionError("unreachable")


def _metadata(job):
    return {
        "student": job.exportable.reference.name,
        "keras_kd": __version__,
        "user": job.options.user_metadata or {},
    }


def _of_all(failures):
    if len(failures) == 1:
        return failures[0][1]
    listed = " ".join(f"By {way.replace('_', ' ')}: {error}" for way, error in failures)
    return ExportError(f"No route makes this file. {listed}")
