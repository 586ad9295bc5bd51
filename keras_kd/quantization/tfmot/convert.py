"""Which layers tensorflow-model-optimization trains for integers, and the error for others.

What is in these tables was quantized, exported and run as an int8 file; see the tests. Some
combinations still fail (pooling right after Concatenate): `distil` makes a trial file of the
student before it trains.
"""

import dataclasses
import inspect
from typing import NamedTuple

import keras
import numpy as np

from keras_kd.export import comparison, source


class Support(NamedTuple):
    """How the two engines take a layer.

    Attributes:
        native: Whether `keras_kd.quantization_aware` takes it.
        tfmot: Whether this engine does, or the condition in words.
    """

    native: bool
    tfmot: bool | str


_BEFORE_NORM = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D")
# Those inside of layers, and those of the layer Activation: behind them swish and relu6 stay float.
ACTIVATIONS = ("linear", "relu", "sigmoid", "softmax", "tanh", "gelu")
OF_ACTIVATION = (*ACTIVATIONS, "silu", "relu6")
LAYERS = {
    "Dense": Support(True, True),
    "Conv2D": Support(True, True),
    "DepthwiseConv2D": Support(True, True),
    "SeparableConv2D": Support(True, "rounded as two layers, depthwise and pointwise"),
    "Conv2DTranspose": Support(True, False),  # quantize_model takes it; the file leaves it in float
    "BatchNormalization": Support(True, "right after a 2-D convolution without activation"),
    "Activation": Support(True, f"of {', '.join(OF_ACTIVATION)}"),
    "ReLU": Support(True, "without negative_slope (LeakyReLU has one) and threshold"),
    "LeakyReLU": Support(True, True),
    "Softmax": Support(True, True),
    "Add": Support(True, "of two"),
    "Concatenate": Support(True, True),
    "AveragePooling2D": Support(True, True),
    "GlobalAveragePooling2D": Support(True, True),
    "MaxPooling2D": Support(True, True),
    "GlobalMaxPooling2D": Support(True, True),
    "UpSampling2D": Support(True, True),
    "ZeroPadding2D": Support(True, True),
    "Cropping2D": Support(True, True),
    "Flatten": Support(True, True),
    "Reshape": Support(True, True),
    "Permute": Support(True, True),
    "Dropout": Support(True, True),
    "SpatialDropout2D": Support(True, True),
}
TAKEN = tuple(sorted(name for name, support in LAYERS.items() if support.tfmot))


def table():
    """The layers of both engines as text, a line each."""
    lines = [f"{'layer':24}{'keras_kd':10}tfmot"]
    for name, (native, tfmot) in sorted(LAYERS.items()):
        lines.append(f"{name:24}{_word(native):10}{_word(tfmot)}")
    lines.append(f"{'any other':24}{'yes, or it names it':10} no")
    return "\n".join(lines)


def _word(value):
    return value if isinstance(value, str) else ("yes" if value else "no")


def refused(name, kind, reason=None):
    """The error for a layer that tfmot does not take.

    Args:
        name: Of the layer.
        kind: Its class, in words.
        reason: What of it is in the way; `None`: its class.
    """
    return ValueError(
        f"Layer {name!r} ({kind}) cannot be trained with tensorflow-model-optimization"
        f"{'' if reason is None else ': ' + reason}. It takes {', '.join(TAKEN)}. "
        "keras_kd.quantization_aware, the other engine, takes any architecture that a file can "
        "hold."
    )


def check(name, kind, config, before):
    """Raises unless tfmot takes a layer.

    Args:
        name: Of the layer.
        kind: The name of its class.
        config: Its configuration; activations by name.
        before: `(kind, config)` of the layers whose outputs it gets.
    """
    if kind in ("Functional", "Sequential", "Model"):
        raise refused(name, kind, "it is a model inside of the model; put its layers in directly")
    if kind not in TAKEN:
        raise refused(name, kind)
    activation = config.get("activation", "linear")
    known = OF_ACTIVATION if kind == "Activation" else ACTIVATIONS
    if activation not in known:
        raise refused(name, kind, f"its activation is {activation!r}, not one of {known}")
    if config.get("data_format") == "channels_first":
        raise refused(name, kind, "its data_format is 'channels_first'")
    if kind == "ReLU" and (config["negative_slope"] or config["threshold"]):
        raise refused(name, kind, "it has a negative_slope or a threshold")
    if kind == "Add" and len(before) > 2:
        raise refused(name, kind, f"it adds {len(before)} values; add two at a time")
    if kind == "BatchNormalization":
        _check_norm(name, kind, before)


def _check_norm(name, kind, before):
    found = [
        kind
        for kind, config in before
        if kind in _BEFORE_NORM and config.get("activation", "linear") == "linear"
    ]
    if not found:
        raise refused(
            name,
            kind,
            f"it must come right after one of {_BEFORE_NORM} that has no activation of its own; it "
            f"comes after {[kind for kind, _ in before]}",
        )


# Configurations of Keras 3 layers, as tf_keras reads them.


# Why the prefix: tfmot makes layers with automatic names ("conv2d") and looks them up by name; a
# layer of the model with that very name makes quantize_model loop for ever.
PREFIX = "kd_"

_RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}
_REGULARIZERS = ("L1", "L2", "L1L2")


def translated(node, cls):
    """The arguments that make a layer of `cls` compute what a Keras 3 layer does.

    Args:
        node: The `nodes.Node` of the layer.
        cls: The class of tf_keras.

    Raises:
        ValueError: It has something that tf_keras lacks; the layer is named.
    """
    kind, name = node.kind, node.name
    accepted = _arguments(cls)
    found = {}
    for key, value in node.config.items():
        key = _RENAMED.get(kind, {}).get(key, key)
        if key.endswith("_initializer"):
            continue  # the weights are copied
        if key.endswith("_regularizer"):
            value = _regularizer(name, kind, key, value)
        elif key.endswith("_constraint") and value is not None:
            raise refused(name, kind, f"it has a {key}")
        if key == "dtype":
            value = _dtype(name, kind, value)
        if key in accepted:
            found[key] = value
        elif value not in (None, False):
            raise refused(name, kind, f"tf_keras does not know {key}={value!r}")
    return {**found, "name": PREFIX + name}


def _arguments(cls):
    accepted = {"name", "trainable", "dtype"}
    for base in cls.__mro__:
        if "__init__" in vars(base):
            accepted |= set(inspect.signature(base.__init__).parameters)
    return accepted


def _regularizer(name, kind, key, value):
    if value is None:
        return None
    if value.get("class_name") not in _REGULARIZERS or key == "activity_regularizer":
        raise refused(name, kind, f"its {key} is {value.get('class_name')}")
    return {"class_name": value["class_name"], "config": value["config"]}


def _dtype(name, kind, value):
    policy = value["config"]["name"] if isinstance(value, dict) else value
    if policy != "float32":
        raise refused(name, kind, f"it computes in {policy}; integers are trained in float32")
    return policy


# The layers of a functional Keras 3 model in the order of its forward pass, checked.


@dataclasses.dataclass(frozen=True)
class Node:
    """A layer and what it is called with.

    Attributes:
        name: The name of the layer.
        kind: The name of its class.
        config: Its configuration.
        sources: Names of the layers whose outputs it gets.
        takes_list: Whether it gets them as a list.
    """

    name: str
    kind: str
    config: dict
    sources: list
    takes_list: bool


def of(student):
    """The `Node`s of a Keras 3 model, inputs included.

    Raises:
        ValueError: It is not functional, or has a layer that tfmot does not take (named).
    """
    nodes = {}
    for serialized in as_functional(student).get_config()["layers"]:
        node = _node(serialized)
        nodes[node.name] = node
        if node.kind != "InputLayer":
            before = [(nodes[name].kind, nodes[name].config) for name in node.sources]
            check(node.name, node.kind, node.config, before)
    return list(nodes.values())


def as_functional(student):
    """The functional model of a functional or Sequential one; its layers are the same."""
    if isinstance(student, keras.Sequential):
        return keras.Model(student.inputs, student.outputs, name=student.name)
    if not hasattr(student, "operations"):
        raise ValueError(
            f"The student {student.name!r} ({type(student).__name__}) is neither a functional nor "
            "a Sequential model, so its layers cannot be listed. Use keras_kd.quantization_aware."
        )
    return student


def _node(serialized):
    kind, config = serialized["class_name"], serialized["config"]
    name = serialized.get("name") or config["name"]
    calls = serialized["inbound_nodes"]
    if len(calls) > 1:
        raise refused(name, kind, "it is called more than once")
    arguments = calls[0]["args"] if calls else ()
    tensors = _tensors(arguments)
    is_sum = kind == "Add" and len(tensors) == 2  # `x + y`, the same as the layer Add
    if not (_is_builtin(serialized) or is_sum):
        what = "an operation" if "ops" in str(serialized["module"]) else "a layer of your own"
        raise refused(name, kind, f"it is {what}, not a layer of Keras")
    options = [key for key, value in (calls[0]["kwargs"] if calls else {}).items() if value]
    if options and kind in TAKEN:
        raise refused(name, kind, f"it is called with {options}")
    sources = [tensor["config"]["keras_history"][0] for tensor in tensors]
    return Node(name, kind, config, sources, is_sum or isinstance((*arguments, 0)[0], list))


def _is_builtin(serialized):
    return serialized["registered_name"] is None and serialized["module"] in (
        "keras",
        "keras.layers",
    )


def _tensors(value):
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for each in value for tensor in _tensors(each)]
    return []


# Keras 3 functional and Sequential models as tf_keras models, with the same weights.


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
    found = of(student)
    functional = as_functional(student)
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
            _copy(layer, made.get_layer(PREFIX + layer.name))
    _check_parity(student, made)
    return made


def renamed(student, tf_keras):
    """A copy of a tf_keras model whose layers have the names of a bridged one.

    Raises:
        ValueError: It has a layer that tfmot does not take, which is named.
    """

    def copied(layer):
        config = {**layer.get_config(), "name": PREFIX + layer.name}
        kind = type(layer).__name__
        if kind != "BatchNormalization":  # what comes before it tfmot tells
            check(layer.name, kind, config, [])
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
        return tf_keras.Input(shape, dtype=dtype, name=PREFIX + node.name)
    cls = getattr(tf_keras.layers, node.kind)
    given = [tensors[name] for name in node.sources]
    layer = cls(**translated(node, cls))
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
    expected = keras.tree.flatten(source.run(student, arrays))
    found = keras.tree.flatten(made(arrays if len(arrays) > 1 else arrays[0], training=False))
    for ours, theirs in zip(found, expected, strict=True):
        worst = float(np.abs(np.asarray(ours) - np.asarray(theirs)).max())
        if not worst <= _TOLERANCE * max(1.0, float(np.abs(np.asarray(theirs)).max())):
            raise RuntimeError(
                f"The tf_keras copy of {student.name!r} differs from it by {worst:.3g} in its "
                "outputs: a layer means something else in the two Keras versions. Use "
                "keras_kd.quantization_aware."
            )
