"""Operands: variables by which a file adds or multiplies, and tables of which it takes rows.

LayerNormalization's scale and offset, embeddings and learned positions are held as activations are:
8 bits, one range for the whole variable, 0 inside of it. Which variables a file holds so is asked
of the file: the constants of the float file that are integers with one scale in the quantized one.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_kd.measurement.runtimes import tflite_format
from keras_kd.quantization import ranges
from keras_kd.taps import paths


@dataclasses.dataclass(frozen=True)
class RoundedOperand:
    """A variable that is rounded as an activation is.

    Attributes:
        layer: The path of its layer; empty for the model's own.
        index: Which of the layer's weights it is.
        variable: The `keras.Variable`.
    """

    layer: str
    index: int
    variable: Any

    def on_grid(self):
        """Its values on their grid; the gradient passes as if they were not rounded."""
        values = keras.ops.convert_to_tensor(self.variable)
        bounds = tf.reduce_min(values), tf.reduce_max(values)
        return values + tf.stop_gradient(ranges.rounded(values, bounds) - values)

    def integers(self):
        """Its integers, an int8 array."""
        values = np.asarray(keras.ops.convert_to_numpy(self.variable))
        scale, zero = ranges.parameters(values.min(), values.max())
        return np.clip(np.rint(values / scale) + zero, -128, 127).astype(np.int8)


def places(rounded):
    """`[layer, index]` of each `RoundedOperand` in a list, of which `at` makes them again."""
    return [[x.layer, x.index] for x in rounded if isinstance(x, RoundedOperand)]


def at(student, places):
    """The `RoundedOperand`s at places of a student, as `places` tells them."""
    by_path = dict(_layers(student))
    return [RoundedOperand(path, i, by_path[path].weights[i]) for path, i in places]


def found(student, content, quantized, leave=()):
    """The `RoundedOperand`s of a student.

    Args:
        student: A Keras model.
        content: The bytes of its float file.
        quantized: The bytes of its int8 file.
        leave: Identities (`id`) of variables that are rounded otherwise, or not.
    """
    constants = _constants_with_one_scale(content, quantized)
    seen, operands = set(leave), []
    for path, layer in _layers(student):
        own = {id(variable) for variable in paths.own_weights(layer)} - seen
        seen |= own
        for i, variable in enumerate(layer.weights):
            if id(variable) not in own:
                continue
            values = np.asarray(keras.ops.convert_to_numpy(variable)).ravel()
            if any(np.array_equal(values, each) for each in constants):
                operands.append(RoundedOperand(path, i, variable))
    return operands


def grids(quantized):
    """`{(scale, zero point)}` of the constants with one scale of an int8 file."""
    return {
        (float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]))
        for tensor in _with_one_scale(quantized)
    }


def _layers(student):
    """Yields `(path, layer)`, the student itself first."""
    yield "", student
    for path, _, layer in paths.walk(student):
        if isinstance(layer, layers.Layer):
            yield path, layer


def _constants_with_one_scale(content, quantized):
    """The float values of what the quantized file holds as int8 with one scale."""
    names = {tflite_format.text(tensor.name) for tensor in _with_one_scale(quantized)}
    model = tflite_format.of_bytes(content)
    return [
        np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32)
        for tensor in tflite_format.constants(model)
        if tflite_format.type_name(tensor) == "float32" and tflite_format.text(tensor.name) in names
    ]


def _with_one_scale(quantized):
    return [
        tensor
        for tensor in tflite_format.constants(tflite_format.of_bytes(quantized))
        if tflite_format.type_name(tensor) == "int8" and _has_one_scale(tensor.quantization)
    ]


def _has_one_scale(quantization):
    return (
        quantization is not None and quantization.scale is not None and len(quantization.scale) == 1
    )
