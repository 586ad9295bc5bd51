"""Keras 3 functional and Sequential models as tf_keras models, with the same weights."""

import keras
import numpy as np

from keras_kd.export import comparison, students
from keras_kd.quantization.tfmot import configs, nodes, support

# MobileNetV2, V3, EfficientNetB0 and ResNet50 differed by 6e-6 at most.
_TOLERANCE = 1e-4


def to_tf_keras(student, tf_keras):
    """A tf_keras model that computes what a Keras 3 model does.

    `from_config` of tf_keras reads no configuration of Keras 3, so each layer is made anew.

    Args:
        student: A functional or Sequential Keras 3 model in float32.
        tf_keras: The library.

    Raises:
        ValueError: It has a layer that tfmot does not take, which is named, or another structure.
        RuntimeError: The two give different outputs.
    """
    found = nodes.of(student)
    functional = nodes.functional(student)
    config = functional.get_config()
    tensors = {}
    for node in found:
        tensors[node.name] = _output(node, tensors, tf_keras)
    ins, outs = (
        [tensors[name] for name in _layers(config[side])]
        for side in ("input_layers", "output_layers")
    )
    made = tf_keras.Model(ins, outs, name=student.name)
    for layer in functional.layers:
        if layer.weights:
            _copy(layer, made.get_layer(configs.PREFIX + layer.name))
    _check_parity(student, made)
    return made


def renamed(student, tf_keras):
    """A copy of a tf_keras model whose layers have the names of a bridged one.

    Raises:
        ValueError: It has a layer that tfmot does not take, which is named.
    """

    def copied(layer):
        config = {**layer.get_config(), "name": configs.PREFIX + layer.name}
        kind = type(layer).__name__
        if kind != "BatchNormalization":  # what comes before it tfmot tells
            support.check(layer.name, kind, config, [])
        return type(layer).from_config(config)

    copy = tf_keras.models.clone_model(student, clone_function=copied)
    copy.set_weights(student.get_weights())
    return copy


def _layers(histories):
    """The names of layers in the structure of a model's inputs or outputs, flat, in its order."""
    if isinstance(histories, dict):
        return [name for key in sorted(histories) for name in _layers(histories[key])]
    if isinstance(histories[0], str):
        return [histories[0]]
    return [name for each in histories for name in _layers(each)]


def _output(node, tensors, tf_keras):
    """The symbolic output of a node in the new model."""
    if node.kind == "InputLayer":
        shape, dtype = node.config["batch_shape"][1:], node.config["dtype"]
        return tf_keras.Input(shape, dtype=dtype, name=configs.PREFIX + node.name)
    cls = getattr(tf_keras.layers, node.kind)
    given = [tensors[name] for name in node.sources]
    layer = cls(**configs.translated(node, cls))
    return layer(given if node.takes_list else given[0])


def _copy(layer, made):
    weights = [
        np.asarray(weight)
        for weight in layer.weights
        if weight.dtype == "float32"  # seeds of dropout are integers
    ]
    shapes = [tuple(weight.shape) for weight in made.weights]
    if [weight.shape for weight in weights] != shapes:
        raise RuntimeError(
            f"Layer {layer.name!r} ({type(layer).__name__}) has weights of the shapes "
            f"{[weight.shape for weight in weights]} in Keras 3 and {shapes} in tf_keras."
        )
    made.set_weights(weights)


def _check_parity(student, made):
    arrays = comparison.made_up(student).arrays
    expected = keras.tree.flatten(students.run(student, arrays))
    found = keras.tree.flatten(made(arrays if len(arrays) > 1 else arrays[0], training=False))
    for ours, theirs in zip(found, expected, strict=True):
        worst = float(np.abs(np.asarray(ours) - np.asarray(theirs)).max())
        if not worst <= _TOLERANCE * max(1.0, float(np.abs(np.asarray(theirs)).max())):
            raise RuntimeError(
                f"The tf_keras copy of {student.name!r} differs from it by {worst:.3g} in its "
                "outputs: a layer means something else in the two Keras versions. Use "
                "keras_kd.quantization_aware."
            )
