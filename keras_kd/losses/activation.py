"""Does a model end in softmax? Answered from its last layer, before any training."""

import keras

# Layers after which values are still the same probabilities.
_PASSES_ON = ("Identity", "Dropout", "Reshape", "Flatten")


def last_activation(model, output=None):
    """The name of the activation that makes a model's output.

    Args:
        model: A Keras model, or a `keras_kd.teachers.Teacher`.
        output: Name or index of the output; `None` for the first.

    Returns:
        Such as `"softmax"` or `"linear"`, or `None` where the model does not tell (subclassed
        models and callables).
    """
    own = getattr(model, "last_activation", None)  # of a keras_kd.teachers.Teacher
    if own is not None:
        return own(output)
    if isinstance(model, keras.Sequential):
        return _of_layers(list(model.layers))
    outputs = getattr(model, "outputs", None)
    if not isinstance(model, keras.Model) or not outputs:
        return None
    tensor = _pick(model, output)
    return None if tensor is None else _of_tensor(tensor)


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


def _of_layers(layers):
    while layers and _is_passed_through(layers[-1]):
        layers.pop()
    return _of_operation(layers[-1]) if layers else None


def _of_tensor(tensor):
    producer = _producer(tensor)
    while producer is not None and _is_passed_through(producer):
        inputs = keras.tree.flatten(_quietly(producer, "input"))
        producer = _producer(inputs[0]) if inputs else None
    return None if producer is None else _of_operation(producer)


def _producer(tensor):
    # Not by comparing with each operation's `output`: that of a nested model is its own, inner one.
    history = getattr(tensor, "_keras_history", None)
    return None if history is None else history.operation


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


def _of_operation(operation):
    if isinstance(operation, keras.Model):
        return last_activation(operation)
    if getattr(operation, "activation", None) is not None:
        return _name(operation)
    return type(operation).__name__.lower()


SIGMOID_LOSS = "where a row has several labels, or one of yes or no, use keras_kd.losses.SigmoidKD"


def check_logits(role, model, output, loss, from_logits=True, instead=SIGMOID_LOSS):
    """Raises if an output is known to hold probabilities where logits, or softmax, are expected.

    Args:
        role: `"teacher"` or `"student"`, for the message.
        model: The model.
        output: Name or index of the output, `None` for all.
        loss: Name of the loss, for the message.
        from_logits: Whether logits are expected; `False`: what softmax makes of them.
        instead: What to do where sigmoid is meant, for the message.
    """
    for key in [output] if output is not None else output_keys(model):
        activation = last_activation(model, key)
        where = "" if key is None else f" (output {key!r})"
        if activation == "sigmoid":
            raise ValueError(
                f"The {role}{where} ends in sigmoid, but {loss} compares distributions over "
                f"classes. Remove the sigmoid from its last layer (activation=None); {instead}."
            )
        if activation == "softmax" and from_logits:
            raise ValueError(
                f"The {role}{where} ends in softmax, but {loss} expects logits. Remove the "
                "softmax from its last layer (activation=None), or use "
                f"{loss}(from_logits=False), which takes probabilities (of both models, where it "
                "reads both)."
            )


def output_keys(model):
    """The index of each output; `[None]` for a model with one, or that does not tell."""
    outputs = getattr(model, "outputs", None) if isinstance(model, keras.Model) else None
    return list(range(len(outputs))) if outputs and len(outputs) > 1 else [None]
