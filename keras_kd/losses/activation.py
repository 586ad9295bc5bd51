"""Checks, before any training, whether a model ends in softmax or sigmoid, by its last layer."""

from typing import Any

import keras

from keras_kd import models
from keras_kd.losses import reading
from keras_kd.taps import tap

# Layers after which values are still the same probabilities.
_PASSES_ON = ("Identity", "Dropout", "Reshape", "Flatten")


def last_activation(model: Any, output: str | int | None = None) -> str | None:
    """The name of the activation that makes a model's output.

    Args:
        model: A Keras model, or a `keras_kd.teachers.Teacher`.
        output: Name or index of the output; `None` for the first.

    Returns:
        Such as `"softmax"` or `"linear"`, or `None` where it is not known (subclassed models
        and callables).
    """
    own = getattr(model, "last_activation", None)  # of a keras_kd.teachers.Teacher
    if own is not None:
        return own(output)
    if isinstance(model, keras.Sequential):
        return _last_of_layers(list(model.layers))
    outputs = getattr(model, "outputs", None)
    if not isinstance(model, keras.Model) or not outputs:
        return None
    tensor = _pick(model, output)
    return None if tensor is None else _activation_of_tensor(tensor)


def _pick(model, output):
    if output is None:
        return model.outputs[0]
    if isinstance(output, int):
        return model.outputs[output] if output < len(model.outputs) else None
    # The keys of a dict are not the names of its outputs' layers.
    if isinstance(model.output, dict):
        return model.output.get(output)
    names = list(getattr(model, "output_names", []))
    return model.outputs[names.index(output)] if output in names else None


def _last_of_layers(layers):
    while layers and _is_passed_through(layers[-1]):
        layers.pop()
    return _activation_of_operation(layers[-1]) if layers else None


def _activation_of_tensor(tensor):
    producer = models.producer(tensor)
    while producer is not None and _is_passed_through(producer):
        inputs = keras.tree.flatten(_quietly(producer, "input"))
        producer = models.producer(inputs[0]) if inputs else None
    return None if producer is None else _activation_of_operation(producer)


def _quietly(operation, attribute):
    # A layer that is called more than once has no single input or output.
    try:
        return getattr(operation, attribute)
    except (AttributeError, ValueError):
        return []


def _is_passed_through(operation):
    if type(operation).__name__ in _PASSES_ON:
        return True
    return isinstance(operation, keras.layers.Activation) and _name(operation) == "linear"


def _name(operation):
    return getattr(operation.activation, "__name__", None)


def _activation_of_operation(operation):
    if isinstance(operation, keras.Model):
        return last_activation(operation)
    if getattr(operation, "activation", None) is not None:
        return _name(operation)
    return type(operation).__name__.lower()


SIGMOID_LOSS = "where a row has several labels, or one of yes or no, use keras_kd.losses.SigmoidKD"


def check_logits(
    role: str,
    model: Any,
    output: str | int | None,
    loss: Any,
    from_logits: bool = True,
    instead: Any = SIGMOID_LOSS,
) -> None:
    """Raises if an output is known to hold probabilities where logits, or softmax, are expected.

    Args:
        role: `"teacher"` or `"student"`, for the message.
        model: The model.
        output: Name or index of the output, `None` for all.
        loss: Name of the loss, for the message.
        from_logits: Whether logits are expected; `False`: what softmax makes of them.
        instead: What to do where sigmoid is meant, for the message.
    """
    expected = reading.LOGITS if from_logits else reading.PROBABILITIES
    for where, activation in _output_activations(model, output):
        _refuse(role, where, activation, expected, loss, instead)


def check_values(loss: Any, teacher: Any, student: Any) -> None:
    """Raises if what a loss reads is known not to be what it expects.

    Args:
        loss: A `LogitsLoss`.
        teacher: A model, a `Teacher` or a function.
        student: The `keras.Model`.
    """
    read = loss.reading
    for role, model in (("teacher", teacher), ("student", student)):
        layer = read.layer(role)
        if layer is None:
            found = _output_activations(model, read.key(role))
        else:
            found = [(f" (layer {str(layer)!r})", _layer_activation(model, layer))]
        for where, activation in found:
            _refuse(role, where, activation, read.values(role), type(loss).__name__)


def _output_activations(model, output):
    """`(words for a message, activation)` of each output that is read."""
    keys = [output] if output is not None else output_keys(model)
    return [
        ("" if key is None else f" (output {key!r})", last_activation(model, key)) for key in keys
    ]


def _layer_activation(model, layer):
    """The activation of an inner layer that is read, or `None` where it is not known."""
    model = getattr(model, "model", model)  # of a KerasTeacher
    if not isinstance(model, keras.Model):
        return None
    found = tap.resolve(model, layer)[1]
    of_output = not isinstance(layer, tap.Tap) or layer.kind == "output"
    return _activation_of_operation(found) if of_output else None


def _refuse(role, where, activation, expected, loss, instead=SIGMOID_LOSS):
    """Raises if values of an activation are not those that are expected."""
    who, drop = f"The {role}{where}", "Remove it from its last layer (activation=None)"
    name = "teacher_from_logits" if role == "teacher" else "from_logits"
    if activation == "sigmoid" and expected in (reading.LOGITS, reading.PROBABILITIES):
        raise ValueError(
            f"{who} ends in sigmoid, but {loss} compares distributions over classes. Remove the "
            f"sigmoid from its last layer (activation=None); {instead}."
        )
    if activation == "softmax" and expected == reading.LOGITS:
        alone = "" if name == "from_logits" else f", or {name}=False where the teacher alone does"
        raise ValueError(
            f"{who} ends in softmax, but {loss} expects logits. {drop}, or use "
            f"{loss}(from_logits=False), which takes probabilities of both models{alone}."
        )
    if activation == "sigmoid" and expected == reading.EACH_LOGIT:
        raise ValueError(
            f"{who} ends in sigmoid, but {loss} expects logits. {drop}, or pass {name}=False."
        )
    if activation == "softmax" and expected in (reading.EACH_LOGIT, reading.EACH_PROBABILITY):
        raise ValueError(
            f"{who} ends in softmax, a distribution over classes, but {loss} takes each class for "
            f"a yes or no of its own. {drop}, or use keras_kd.losses.SoftTargets."
        )
    if activation == "linear" and expected in (reading.PROBABILITIES, reading.EACH_PROBABILITY):
        raise ValueError(
            f"{who} ends in a linear layer, which gives logits, but {loss} expects "
            f"probabilities: {name}=False. Pass {name}=True."
        )


def output_keys(model: Any) -> list:
    """The index of each output; `[None]` for a model with one, or with unknown outputs."""
    outputs = getattr(model, "outputs", None) if isinstance(model, keras.Model) else None
    return list(range(len(outputs))) if outputs and len(outputs) > 1 else [None]
