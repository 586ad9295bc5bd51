"""`add_exits`: classifiers on inner layers, which learn from the model's own output."""

from typing import Any

import keras

from keras_kd._utils import validation
from keras_kd.losses.activation import last_activation
from keras_kd.models import paths
from keras_kd.students.graph import Graph, is_readable

_POOLING = {
    3: keras.layers.GlobalAveragePooling1D,
    4: keras.layers.GlobalAveragePooling2D,
    5: keras.layers.GlobalAveragePooling3D,
}


def add_exits(
    model: keras.Model, layers: Any, num_classes: int | None = None, name: str | None = None
) -> keras.Model:
    """Adds classifiers to inner layers, which learn from the model's own output.

    Each exit is an average over the layer's spatial or time axes (without masked positions, where
    the tensor carries a mask) and a dense layer, both float32; it gives logits. The paper's exits
    have convolutions in between; add them to your model where the features of early layers need
    them. The new model shares the layers and weights of `model`: training one trains the other.

    Args:
        model: A functional or sequential model with one output, of logits.
        layers: Names of its inner layers, in any order.
        num_classes: Number of logits of an exit; default: the width of the model's output.
        name: Name of the new model; default: the name of `model` and `_exits`.

    Returns:
        A functional `keras.Model` with the outputs `{"exit_<layer>": [batch, num_classes], ...,
        "final": ...}`; `"final"` is the output of `model`.

    Raises:
        ValueError: An argument is wrong, there is no such layer, it is nested in another model or
            called several times, or the model gives probabilities or several outputs.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    stages = [keras.layers.Conv2D(4, 3, name=f"stage_{i}") for i in range(3)]
    head = [keras.layers.Flatten(), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *stages, *head])
    with_exits = kd.students.add_exits(model, ["stage_0", "stage_1"])
    outputs = with_exits(np.zeros((2, 8, 8, 1)))
    assert sorted(outputs) == ["exit_stage_0", "exit_stage_1", "final"]
    assert outputs["exit_stage_0"].shape == (2, 10)
    ```

    Reference: Zhang et al., "Be Your Own Teacher: Improve the Performance of Convolutional Neural
    Networks via Self Distillation", https://arxiv.org/abs/1905.08094
    """
    width = _checked_width(model)
    num_classes = validation.integer("num_classes", num_classes, 1, optional=True) or width
    validation.layer_name("name", name)
    layers = _checked_names(model, layers)
    inputs, output, made = _call_again(model)
    outputs = {}
    for layer in layers:
        tensor = _one_tensor(model, layer, made[layer], output)
        outputs[_key(layer)] = _exit(layer, paths.find_layer(model, layer), tensor, num_classes)
    # A layer of that name, so that the name of the output is the key of the dict.
    outputs["final"] = keras.layers.Identity(name="final", dtype=output.dtype)(output)
    return keras.Model(inputs, outputs, name=name or f"{model.name}_exits")


def _key(layer):
    return f"exit_{layer}"


def _call_again(model):
    """`(inputs, output, {layer: tensors})` of new calls of the model's layers.

    A layer's own `output` may be that of a call in another model, and of a nested model it is a
    tensor within that one.
    """
    made: dict[str, list] = {}

    def call(layer, *args, **kwargs):
        result = layer(*args, **kwargs)
        made.setdefault(layer.name, []).append(result)
        return result

    # A sequential model knows its `input` only where it was called.
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    same = keras.models.clone_model(
        keras.Model(inputs, model.outputs[0]),
        clone_function=lambda layer: layer,
        call_function=call,
    )
    return same.input, same.outputs[0], made


def _checked_width(model):
    """The width of the output of a model that can have exits."""
    if not isinstance(model, keras.Model) or not is_readable(model):
        raise ValueError(
            "Invalid value for argument `model`. Expected a functional keras.Model, or a "
            f"sequential one with a keras.Input. Received: model={model!r} of type "
            f"{type(model).__name__}. The inner tensors of other models are not known: give those "
            "outputs of their own."
        )
    if len(model.outputs) != 1:
        raise ValueError(
            f"Model {model.name!r} has {len(model.outputs)} outputs; exits learn from one. Pass "
            "keras.Model(model.inputs, the_output_that_classifies)."
        )
    activation = last_activation(model)
    if activation in ("softmax", "sigmoid"):
        raise ValueError(
            f"Model {model.name!r} ends in {activation}: its output are probabilities, but exits "
            "give logits, and one loss for both would be wrong for one of them. Remove the "
            "activation from its last layer (activation=None), and pass from_logits=True to losses."
        )
    shape = tuple(model.outputs[0].shape)
    if len(shape) != 2 or shape[1] is None:
        raise ValueError(
            f"Model {model.name!r} gives {shape}, but exits give [batch, num_classes], which could "
            "not be compared. Expected a model that classifies whole samples."
        )
    return shape[1]


def _checked_names(model, layers):
    is_several = isinstance(layers, (list, tuple, set, frozenset))
    names = [layers] if isinstance(layers, str) else list(layers) if is_several else []
    if not names or not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
        raise ValueError(
            "Invalid value for argument `layers`. Expected the names of inner layers, each once. "
            f"Received: layers={layers!r}"
        )
    for name in names:
        layer = paths.find_layer(model, name)
        if layer.name != name or paths.path_of(model, layer) != name:
            raise ValueError(
                f"Layer {name!r} is nested in a model in {model.name!r}; what it gives is known "
                "there only. Name a layer of the model itself, or give exits to the nested one."
            )
    taken = {operation.name for operation in Graph(model).operations.values()}
    clashing = sorted(taken & {"final", *map(_key, names)})
    if clashing:
        raise ValueError(
            f"Model {model.name!r} has layers called {clashing}, as the exits would be. Rename "
            "them."
        )
    return names


def _one_tensor(model, name, tensors, output):
    if len(tensors) > 1:
        raise ValueError(
            f"Layer {name!r} is called several times, so it has no one output. Name another layer."
        )
    tensor = tensors[0]
    if tensor is output or not isinstance(tensor, keras.KerasTensor):
        raise ValueError(
            f"Layer {name!r} gives the output of model {model.name!r}, or several tensors. Name "
            "layers inside of it that give one."
        )
    if len(tensor.shape) not in (2, *_POOLING):
        raise ValueError(
            f"Layer {name!r} gives a tensor of shape {tuple(tensor.shape)}; an exit needs "
            "[batch, features], or up to three axes in between. Name another layer."
        )
    return tensor


def _exit(name, layer, tensor, num_classes):
    if len(tensor.shape) > 2:
        # The layer knows where its channels are; Keras' default applies to others.
        data_format = getattr(layer, "data_format", None)
        pooling = _POOLING[len(tensor.shape)]
        tensor = pooling(data_format=data_format, dtype="float32", name=f"{_key(name)}_mean")(
            tensor
        )
    return keras.layers.Dense(num_classes, dtype="float32", name=_key(name))(tensor)
