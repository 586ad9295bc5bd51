"""Configurations of Keras 3 layers, as tf_keras reads them."""

import inspect

from keras_kd.quantization.tfmot import support

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
            raise support.refused(name, kind, f"it has a {key}")
        if key == "dtype":
            value = _dtype(name, kind, value)
        if key in accepted:
            found[key] = value
        elif value not in (None, False):
            raise support.refused(name, kind, f"tf_keras does not know {key}={value!r}")
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
        raise support.refused(name, kind, f"its {key} is {value.get('class_name')}")
    return {"class_name": value["class_name"], "config": value["config"]}


def _dtype(name, kind, value):
    policy = value["config"]["name"] if isinstance(value, dict) else value
    if policy != "float32":
        raise support.refused(
            name, kind, f"it computes in {policy}; integers are trained in float32"
        )
    return policy
