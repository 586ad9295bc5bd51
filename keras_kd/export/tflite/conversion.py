"""From a Keras model to a SavedModel of one signature, and to a float `.tflite` file."""

import contextlib
import io
import logging
import pathlib
import re
import tempfile

import keras
import tensorflow as tf

from keras_kd import models
from keras_kd.export import rewrites, source
from keras_kd.export.source import ExportError

SIGNATURE = "serve"


@contextlib.contextmanager
def saved(student, batch_size=1, for_integers=False):
    """A temporary folder with a SavedModel of the student's inference.

    `from_keras_model` would let the batch open: reshapes then read it at run time by operators
    that are left in float, and recurrent layers do not convert at all.

    Args:
        student: A Keras model with known input shapes.
        batch_size: Rows of a batch, or `None` for any number.
        for_integers: Whether layers are written in steps that have integer kernels.
    """
    with tempfile.TemporaryDirectory(prefix="keras_kd_export_") as folder:
        path = pathlib.Path(folder) / "saved_model"
        _write(student, path, batch_size, for_integers)
        yield path


def _write(student, path, batch_size, for_integers):
    structure, names = models.input_specs(student), source.output_names(student)

    def serve(*arrays):
        steps = rewrites.in_steps(student) if for_integers else contextlib.nullcontext()
        with rewrites.with_plain_lookups(student), steps:
            inputs = keras.tree.pack_sequence_as(structure, list(arrays))
            outputs = student(inputs, training=False)
        return dict(zip(names, keras.tree.flatten(outputs), strict=True))

    archive = keras.export.ExportArchive()
    archive.track(student)
    archive.add_endpoint(SIGNATURE, serve, input_signature=specs(student, batch_size))
    archive.write_out(str(path), verbose=False)


def specs(student, batch_size):
    """A `tf.TensorSpec` for each input.

    Raises:
        ValueError: A shape is open besides the batch, or an input is text.
    """
    found = []
    tensors, names = source.flat_inputs(student), source.input_names(student)
    for tensor, name in zip(tensors, names, strict=True):
        shape = (batch_size, *tensor.shape[1:])
        if None in shape[1:]:
            raise ValueError(
                f"Input {name!r} of model {student.name!r} has the shape {tuple(tensor.shape)}: "
                "only the batch may be unknown in a file for devices. Make the model with a fixed "
                "shape (keras.Input) and load the weights."
            )
        if tensor.dtype == "string":
            raise ValueError(
                f"Input {name!r} of model {student.name!r} is text, for which LiteRT has no "
                "operators. Turn text into numbers outside of the student (TextVectorization, "
                "StringLookup)."
            )
        found.append(tf.TensorSpec(shape, tensor.dtype, name=name))
    return found


def float_tflite(student, batch_size=1, for_integers=False):
    """The bytes of the float `.tflite` file of a student.

    Raises:
        ExportError: TensorFlow cannot convert it.
    """
    with saved(student, batch_size, for_integers) as path:
        return convert(path)


def convert(path, prepare=None):
    """Runs TensorFlow's converter on the SavedModel at `path`.

    Args:
        path: A folder of `saved`.
        prepare: A function that sets the converter's options.

    Raises:
        ExportError: It fails; the message has its last words.
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


_LACKED = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")
_PLACE = re.compile(r'fused\["(\w+):", "([^"@]+)')


def _reason(error):
    """What a converter's message names that it cannot convert, in a sentence or two."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    places = {
        kind: place
        for line in lines
        for kind, place in _PLACE.findall(line)
        if "PartitionedCall" not in kind
    }
    lacked = dict.fromkeys(kind for line in lines for kind in _LACKED.findall(line))
    if lacked:
        listed = ", ".join(
            f"{kind} (at {places[kind]!r})" if kind in places else kind for kind in lacked
        )
        return (
            f"LiteRT has no operators for {listed}. Make the student without that layer, as in "
            "keras.Model(student.inputs, what goes into it), and do outside of the file what it "
            "does."
        )
    told = [line for line in lines if "error:" in line or "op" in line.lower()]
    return " ".join((told or lines)[:4])[:800]


@contextlib.contextmanager
def quiet():
    """Keeps what the converters print and log from the user's terminal; errors are raised."""
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
