"""TensorFlow's converter: a Keras model as a SavedModel, and a float `.tflite` file of it."""

import contextlib
import io
import logging
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_kd.export import rewrites
from keras_kd.export.student import ExportableModel, ExportError

SIGNATURE = "serve"


@contextlib.contextmanager
def saved(
    exportable: ExportableModel, batch_size: int | None = 1, for_integers: bool = False
) -> Iterator[pathlib.Path]:
    """A temporary folder with a SavedModel of the student's inference.

    `from_keras_model` would leave the batch open: reshapes then read it at run time by operators
    that are left in float, and recurrent layers do not convert at all.

    Args:
        exportable: The student.
        batch_size: The batch size, or `None` for any.
        for_integers: Whether layers are decomposed into steps that have integer kernels.
    """
    with tempfile.TemporaryDirectory(prefix="keras_kd_export_") as folder:
        path = pathlib.Path(folder) / "saved_model"
        _write(exportable, path, batch_size, for_integers)
        yield path


def _write(exportable, path, batch_size, for_integers):
    student = exportable.model

    def serve(*arrays):
        steps = rewrites.in_steps(student) if for_integers else contextlib.nullcontext()
        with rewrites.with_plain_lookups(student), steps:
            outputs = exportable.run(arrays)
        return dict(zip(exportable.output_names, keras.tree.flatten(outputs), strict=True))

    archive = keras.export.ExportArchive()
    archive.track(student)
    archive.add_endpoint(SIGNATURE, serve, input_signature=input_signature(exportable, batch_size))
    archive.write_out(str(path), verbose=False)


def input_signature(exportable: ExportableModel, batch_size: int | None) -> list[tf.TensorSpec]:
    """A `tf.TensorSpec` for each input.

    Raises:
        ValueError: A size other than the batch's is open, or an input is text.
    """
    for each in exportable.inputs:
        if None in each.shape[1:]:
            raise ValueError(
                f"Input {each.name!r} of model {exportable.name!r} has the shape {each.shape}: "
                "only the batch may be unknown in a file for devices. Make the model with a fixed "
                "shape (keras.Input) and load the weights."
            )
        if each.dtype == "string":
            raise ValueError(
                f"Input {each.name!r} of model {exportable.name!r} is text, for which LiteRT has "
                "no operators. Turn text into numbers outside of the student (TextVectorization, "
                "StringLookup)."
            )
    return [
        tf.TensorSpec((batch_size, *each.shape[1:]), each.dtype, name=each.name)
        for each in exportable.inputs
    ]


def float_tflite(
    exportable: ExportableModel, batch_size: int | None = 1, for_integers: bool = False
) -> bytes:
    """The content of the float `.tflite` file of a student.

    Raises:
        ExportError: TensorFlow cannot convert it.
    """
    with saved(exportable, batch_size, for_integers) as path:
        return convert(path)


def convert(path: str | pathlib.Path, prepare: Callable[[Any], None] | None = None) -> bytes:
    """Runs TensorFlow's converter on the SavedModel at `path`.

    Args:
        path: The folder of `saved`.
        prepare: A function that sets the converter's options.

    Raises:
        ExportError: It fails; the message has the converter's reason.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(str(path), signature_keys=[SIGNATURE])
    if prepare is not None:
        prepare(converter)
    try:
        with quiet():
            return converter.convert()
    except Exception as error:  # the converter raises several types, some of them private
        raise ExportError(
            "TensorFlow's converter cannot convert this model: " + _reason(error)
        ) from error


_LACKING = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
_PLACE = re.compile(r'fused\["(\w+):", "([^"@]+)')


def _reason(error):
    """The operators that a converter's message names, in a sentence or two."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    places = {
        kind: place
        for line in lines
        for kind, place in _PLACE.findall(line)
        if "PartitionedCall" not in kind
    }
    lacking = dict.fromkeys(kind for line in lines for kind in _LACKING.findall(line))
    if lacking:
        listed = ", ".join(
            f"{kind} (at {places[kind]!r})" if kind in places else kind for kind in lacking
        )
        return (
            f"LiteRT has no operators for {listed}. Make the student without that layer, as in "
            "keras.Model(student.inputs, what goes into it), and do outside of the file what it "
            "does."
        )
    relevant = [line for line in lines if "error:" in line or "op" in line.lower()]
    return " ".join((relevant or lines)[:4])[:800]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what the converters print and log; errors are raised."""
    loggers = [tf.get_logger(), logging.getLogger("absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
