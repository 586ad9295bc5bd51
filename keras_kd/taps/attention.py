"""Where an attention layer's scores can be read."""

import inspect

import keras

from keras_kd.taps import paths


def returns_scores(layer):
    """Whether a layer gives its scores when asked, as Keras' attention layers do."""
    return "return_attention_scores" in inspect.signature(type(layer).call).parameters


def softmax_of(layer):
    """The softmax layer inside an attention layer, or `None` where there is not exactly one."""
    inner = [child for _, _, child in paths.walk(layer)]
    found = [child for child in inner if isinstance(child, keras.layers.Softmax)]
    return found[0] if len(found) == 1 else None


def computes(layer, kind):
    """Whether a kind of attention can be read of a layer."""
    if not isinstance(layer, keras.layers.Layer):
        return False
    return (kind == "attention_scores" and returns_scores(layer)) or softmax_of(layer) is not None


def gives_scores(layer):
    """Whether it computes scores itself; a layer around it may only pass them on."""
    if isinstance(layer, keras.Model) or not computes(layer, "attention_scores"):
        return False
    return not any(gives_scores(inner) for _, _, inner in paths.walk(layer))


def check(model, path, layer, kind):
    """Raises where a layer does not compute the scores that are asked for."""
    if computes(layer, kind):
        return
    able = [name for name, _, found in paths.walk(model) if computes(found, kind)]
    raise ValueError(
        f"Layer {path!r} of model {model.name!r}, a {type(layer).__name__}, computes no "
        f"{kind}. Layers that do: {able}. Scores are read of layers whose call takes "
        "`return_attention_scores`, scores and logits of layers with one keras.layers.Softmax "
        "inside, such as keras.layers.MultiHeadAttention."
    )
