"""The layers of a functional Keras 3 model in the order of its forward pass, checked."""

import dataclasses

import keras

from keras_kd.quantization.tfmot import support


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
    for serialized in functional(student).get_config()["layers"]:
        node = _node(serialized)
        nodes[node.name] = node
        if node.kind != "InputLayer":
            before = [(nodes[name].kind, nodes[name].config) for name in node.sources]
            support.check(node.name, node.kind, node.config, before)
    return list(nodes.values())


def functional(student):
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
        raise support.refused(name, kind, "it is called more than once")
    arguments = calls[0]["args"] if calls else ()
    tensors = _tensors(arguments)
    is_sum = kind == "Add" and len(tensors) == 2  # `x + y`, the same as the layer Add
    if not (_is_builtin(serialized) or is_sum):
        what = "an operation" if "ops" in str(serialized["module"]) else "a layer of your own"
        raise support.refused(name, kind, f"it is {what}, not a layer of Keras")
    options = [key for key, value in (calls[0]["kwargs"] if calls else {}).items() if value]
    if options and kind in support.TAKEN:
        raise support.refused(name, kind, f"it is called with {options}")
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
