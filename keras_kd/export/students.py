"""What can be exported: a built, plain, float32 student whose input shapes are known."""

import re

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd.export import plain_student
from keras_kd.taps import paths

_COUNTED = re.compile(r"(keras_tensor|input_layer|input)(_\d+)?")


def checked(student, purpose):
    """The student itself, or its copy in float32 where it computes in mixed precision.

    Args:
        student: A Keras model.
        purpose: What it is for, in words of the error messages, such as `"to_tflite"`.

    Raises:
        ValueError: It is no Keras model, wraps a student, was quantized by Keras, or has no known
            inputs.
    """
    plain_student.check(student)
    if models.input_specs(student) is None:
        raise ValueError(
            f"{purpose}: model {student.name!r} ({type(student).__name__}) has no input signature, "
            "so its input shapes are not known. Make a functional model of it: inputs = "
            "keras.Input(shape); keras.Model(inputs, model(inputs))."
        )
    return plain_student.in_float32(student)


def flat_inputs(student):
    """The symbolic inputs of a student in the order of its structure."""
    return keras.tree.flatten(models.input_specs(student))


def input_names(student):
    """A name for each input: letters, digits and underscores only, each once.

    Names that Keras counts up, such as `keras_tensor_10`, are others in a copy of the model. They
    are replaced, because tensors of a file are found again by their names.
    """
    names = []
    given = models.input_names(student) or [tensor.name for tensor in student.inputs]
    for i, name in enumerate(given):
        cleaned = "".join(c if c.isalnum() and c.isascii() else "_" for c in name or "")
        if not cleaned or _COUNTED.fullmatch(cleaned) or cleaned in names:
            cleaned = f"input_{i}"
        names.append(cleaned if cleaned[0].isalpha() else f"input_{cleaned}")
    return names


def output_names(student):
    """The names of the outputs in the order of their structure."""
    count = len(keras.tree.flatten(models.output_specs(student)))
    return models.output_names(student) or [f"output_{i}" for i in range(count)]


def vocabularies(model):
    """`{number of an input: rows of the embeddings right after it}`."""
    positions = {id(x): i for i, x in enumerate(getattr(model, "inputs", None) or [])}
    found: dict[int, int] = {}
    for layer in models.layers(model):
        if isinstance(layer, keras.layers.Embedding) and positions:
            position = positions.get(id(getattr(layer, "input", None)))
            if position is not None:
                found[position] = min(layer.input_dim, found.get(position, layer.input_dim))
    return found


def outputs_of(student, arrays, batch_size=64):
    """The student's outputs for arrays of inputs, each `[rows, ...]`, as a list of arrays."""
    structure = models.input_specs(student)
    given = [tf.convert_to_tensor(array) for array in arrays]
    specs = [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in given]

    def forward(*inputs):
        found = student(keras.tree.pack_sequence_as(structure, list(inputs)), training=False)
        return keras.tree.flatten(found)

    # Not `predict`, of which TensorFlow warns where several students are exported: it takes them
    # for one that is traced again and again.
    traced = tf.function(forward, autograph=False).get_concrete_function(*specs)
    starts = range(0, len(given[0]), batch_size)
    batches = [traced(*(x[start : start + batch_size] for x in given)) for start in starts]
    return [np.concatenate(values) for values in zip(*batches, strict=True)]


def run(student, arrays):
    """The student's outputs in one pass, outside of `predict`, so that its layers can be tapped."""
    inputs = keras.tree.pack_sequence_as(models.input_specs(student), list(arrays))
    return student(inputs, training=False)


def check_for_integers(student, quantization):
    """Raises for what integer activations cannot hold.

    Raises:
        ValueError: A recurrent layer runs in a loop, or indices come as real numbers.
    """
    _check_loops(student, quantization)
    inputs, names = flat_inputs(student), input_names(student)
    for i in vocabularies(student):
        if "int" not in str(inputs[i].dtype):
            raise ValueError(
                f"quantization={quantization!r} is not possible for input {names[i]!r} of type "
                f"{inputs[i].dtype}, which an Embedding reads: rounded to so few numbers it would "
                "be other rows of the table. Make the same model with keras.Input(..., "
                "dtype='int32') and load the weights."
            )


def _check_loops(student, quantization):
    loops = [
        path
        for path, _, layer in paths.walk(student)
        if isinstance(layer, keras.layers.RNN) and not layer.unroll
    ]
    if loops:
        raise ValueError(
            f"quantization={quantization!r} is not possible for the recurrent layers {loops}: they "
            "run in a loop that TensorFlow and ai-edge-quantizer cannot calibrate (TensorFlow "
            "crashes). Use quantization='dynamic', 'float16' or 'int4', or make the same model "
            "with unroll=True and load the weights."
        )
