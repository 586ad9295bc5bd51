"""From a Keras 3 model to a tf_keras model, of layers that tensorflow-model-optimization takes.

The layers of the table were quantized, exported and run as an int8 file; see the tests. Some
combinations still fail (pooling right after Concatenate): `distill` makes a trial file of the
student before it trains.
"""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kd.export import representative
from keras_kd.export.student import ExportableModel


class Support(NamedTuple):
    """How the two engines take a layer.

    Attributes:
        native: Whether `keras_kd.quantization_aware` takes it.
        tfmot: Whether tensorflow-model-optimization does, or the condition in words.
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


def table() -> str:
    """The layers that each engine takes, as text, one per line."""
    lines = [f"{'layer':24}{'keras_kd':10}tfmot"]
    for name, (native, tfmot) in sorted(LAYERS.items()):
        lines.append(f"{name:24}{_word(native):10}{_word(tfmot)}")
    lines.append(f"{'any other':24}{'yes, or it names it':10} no")
    return "\n".join(lines)


def _word(value):
    return value if isinstance(value, str) else ("yes" if value else "no")


def unsupported(name: str, kind: str, reason: str | None = None) -> ValueError:
    """The error for a layer that tfmot does not take.

    Args:
        name: The name of the layer.
        kind: Its class.
        reason: Why tfmot does not take it; `None`: because of its class.
    """
    return ValueError(
        f"Layer {name!r} ({kind}) cannot be trained with tensorflow-model-optimization"
        f"{'' if reason is None else ': ' + reason}. It takes {', '.join(TAKEN)}. "
        "keras_kd.quantization_aware, the other engine, takes any architecture that a file can "
        "hold."
    )


def check_layer(
    name: str,
    kind: str,
    config: Mapping[str, Any],
    before: Sequence[tuple[str, Mapping[str, Any]]],
) -> None:
    """Raises `ValueError` unless tfmot takes a layer.

    Args:
        name: The name of the layer.
        kind: The name of its class.
        config: Its configuration; activations by name.
        before: `(kind, config)` of the layers whose outputs it takes.
    """
    if kind in ("Functional", "Sequential", "Model"):
        raise unsupported(name, kind, "it is a nested model; put its layers in directly")
    if kind not in TAKEN:
        raise unsupported(name, kind)
    activation = config.get("activation", "linear")
    known = OF_ACTIVATION if kind == "Activation" else ACTIVATIONS
    if activation not in known:
        raise unsupported(name, kind, f"its activation is {activation!r}, not one of {known}")
    if config.get("data_format") == "channels_first":
        raise unsupported(name, kind, "its data_format is 'channels_first'")
    if kind == "ReLU" and (config["negative_slope"] or config["threshold"]):
        raise unsupported(name, kind, "it has a negative_slope or a threshold")
    if kind == "Add" and len(before) > 2:
        raise unsupported(name, kind, f"it adds {len(before)} values; add two at a time")
    if kind == "BatchNormalization":
        _check_norm(name, kind, before)


def _check_norm(name, kind, before):
    found = [
        kind
        for kind, config in before
        if kind in _BEFORE_NORM and config.get("activation", "linear") == "linear"
    ]
    if not found:
        raise unsupported(
            name,
            kind,
            f"it must come right after one of {_BEFORE_NORM} that has no activation of its own; it "
            f"comes after {[kind for kind, _ in before]}",
        )


# Configurations of Keras 3 layers, as tf_keras reads them.


# tfmot makes layers with automatic names ("conv2d") and looks them up by name; a layer of the model
# with that very name would make quantize_model loop forever.
PREFIX = "kd_"

_RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}
_REGULARIZERS = ("L1", "L2", "L1L2")


def translated(node: "Node", cls: type) -> dict[str, Any]:
    """The arguments that make a layer of `cls` compute what a Keras 3 layer does.

    Args:
        node: The `Node` of the layer.
        cls: The class of tf_keras.

    Raises:
        ValueError: It has an argument that tf_keras lacks; the layer is named.
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
            raise unsupported(name, kind, f"it has a {key}")
        if key == "dtype":
            value = _dtype(name, kind, value)
        if key in accepted:
            found[key] = value
        elif value not in (None, False):
            raise unsupported(name, kind, f"tf_keras does not know {key}={value!r}")
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
        raise unsupported(name, kind, f"its {key} is {value.get('class_name')}")
    return {"class_name": value["class_name"], "config": value["config"]}


def _dtype(name, kind, value):
    policy = value["config"]["name"] if isinstance(value, dict) else value
    if policy != "float32":
        raise unsupported(name, kind, f"it computes in {policy}; integers are trained in float32")
    return policy


# The layers of a functional Keras 3 model in the order of its forward pass.


@dataclasses.dataclass(frozen=True)
class Node:
    """A layer and its inputs.

    Attributes:
        name: The name of the layer.
        kind: The name of its class.
        config: Its configuration.
        sources: Names of the layers whose outputs it takes.
        takes_list: Whether it takes them as a list.
    """

    name: str
    kind: str
    config: dict
    sources: list[str]
    takes_list: bool


def nodes_of(student: keras.Model) -> list[Node]:
    """The checked `Node`s of a Keras 3 model, inputs included.

    Raises:
        ValueError: It is not functional, or has a layer that tfmot does not take; it is named.
    """
    nodes: dict[str, Node] = {}
    for serialized in as_functional(student).get_config()["layers"]:
        node = _node(serialized)
        nodes[node.name] = node
        if node.kind != "InputLayer":
            before = [(nodes[name].kind, nodes[name].config) for name in node.sources]
            check_layer(node.name, node.kind, node.config, before)
    return list(nodes.values())


def as_functional(student: keras.Model) -> keras.Model:
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
        raise unsupported(name, kind, "it is called more than once")
    arguments = calls[0]["args"] if calls else ()
    tensors = _tensors(arguments)
    is_sum = kind == "Add" and len(tensors) == 2  # `x + y`, the same as the layer Add
    if not (_is_builtin(serialized) or is_sum):
        what = "an operation" if "ops" in str(serialized["module"]) else "a layer of your own"
        raise unsupported(name, kind, f"it is {what}, not a layer of Keras")
    options = [key for key, value in (calls[0]["kwargs"] if calls else {}).items() if value]
    if options and kind in TAKEN:
        raise unsupported(name, kind, f"it is called with {options}")
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


# The tf_keras model.


# MobileNetV2, V3, EfficientNetB0 and ResNet50 differed by 6e-6 at most.
_TOLERANCE = 1e-4


def to_tf_keras(exportable: ExportableModel, nodes: Sequence[Node], tf_keras: Any) -> Any:
    """A tf_keras model that computes what a Keras 3 model does.

    `from_config` of tf_keras does not read Keras 3 configurations, so each layer is made again.

    Args:
        exportable: A functional or Sequential Keras 3 model.
        nodes: Its `nodes_of`.
        tf_keras: The library.

    Raises:
        ValueError: A layer has an argument that tf_keras lacks; it is named.
        RuntimeError: The two give different outputs.
    """
    functional = as_functional(exportable.model)
    config = functional.get_config()
    tensors: dict[str, Any] = {}
    for node in nodes:
        tensors[node.name] = _output(node, tensors, tf_keras)
    ins, outs = (
        [tensors[name] for name in _layers(config[side])]
        for side in ("input_layers", "output_layers")
    )
    made = tf_keras.Model(ins, outs, name=exportable.name)
    for layer in functional.layers:
        if layer.weights:
            _copy(layer, made.get_layer(PREFIX + layer.name))
    _check_parity(exportable, made)
    return made


def renamed(student: Any, tf_keras: Any) -> Any:
    """A copy of a tf_keras model whose layers have names with the prefix.

    Raises:
        ValueError: It has a layer that tfmot does not take; it is named.
    """

    def copied(layer):
        config = {**layer.get_config(), "name": PREFIX + layer.name}
        kind = type(layer).__name__
        if kind != "BatchNormalization":  # tfmot checks the layer before it
            check_layer(layer.name, kind, config, [])
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


def _check_parity(exportable, made):
    arrays = representative.made_up_samples(exportable).arrays
    expected = keras.tree.flatten(exportable.run(arrays))
    found = keras.tree.flatten(made(arrays if len(arrays) > 1 else arrays[0], training=False))
    for ours, theirs in zip(found, expected, strict=True):
        worst = float(np.abs(np.asarray(ours) - np.asarray(theirs)).max())
        if not worst <= _TOLERANCE * max(1.0, float(np.abs(np.asarray(theirs)).max())):
            raise RuntimeError(
                f"The tf_keras copy of {exportable.name!r} differs from it by {worst:.3g} in its "
                "outputs: a layer means something else in the two Keras versions. Use "
                "keras_kd.quantization_aware."
            )
