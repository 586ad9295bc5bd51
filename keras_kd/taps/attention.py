"""Where inside of an attention layer its scores and its projections can be read."""

import inspect
import re
from typing import Any

import keras

from keras_kd.models import paths
from keras_kd.taps.tap import PROJECTIONS

# How the layers that project queries, keys and values are called, by name or by attribute.
_NAMES = {
    kind: re.compile(rf"{name}(_(dense|layer|proj|projection|projector))?|{name[0]}_proj")
    for kind, name in zip(PROJECTIONS, ("query", "key", "value"), strict=True)
}
# They compute softmax by a function; their only dropout layer is given what it returns.
_SCORES_IN_DROPOUT = ("T5MultiHeadAttention",)


# Scores and logits.


def returns_scores(layer: Any) -> bool:
    """Whether a layer can return its scores, as Keras' attention layers do."""
    return "return_attention_scores" in inspect.signature(type(layer).call).parameters


def softmax_of(layer: Any) -> keras.layers.Softmax | None:
    """The softmax layer inside an attention layer, or `None` where there is not exactly one."""
    inner = [child for _, _, child in paths.walk(layer)]
    found = [child for child in inner if isinstance(child, keras.layers.Softmax)]
    return found[0] if len(found) == 1 else None


def dropout_of_scores(layer: Any) -> tuple[Any, keras.layers.Dropout] | None:
    """`(attention layer, its dropout layer)`, where that is given the scores, or `None`."""
    owners = [each for _, each in _with_inner(layer) if type(each).__name__ in _SCORES_IN_DROPOUT]
    if len(owners) != 1:
        return None
    inner = [child for _, child in paths.children(owners[0])]
    found = [child for child in inner if isinstance(child, keras.layers.Dropout)]
    return (owners[0], found[0]) if len(found) == 1 else None


def has_groups(layer: Any, shape: Any) -> bool:
    """Whether scores have an axis for the heads of keys and one for the queries that share each.

    Args:
        layer: An attention layer, or one around it.
        shape: Of the scores.
    """
    if len(shape) != 5 or None in shape[1:3]:
        return False
    heads = shape[1], shape[1] * shape[2]
    return any(
        (getattr(each, "num_key_value_heads", None), getattr(each, "num_query_heads", None))
        == heads
        for _, each in _with_inner(layer)
    )


# Projections.


def projection_of(layer: Any, kind: str) -> tuple[Any, Any] | None:
    """`(attention layer, its projection)`; `None` where there is not exactly one such layer.

    Args:
        layer: An attention layer, or one around it.
        kind: One of `PROJECTIONS`.
    """
    found = _attention_in(layer)
    if len(found) != 1:
        return None
    ((_, owner, held),) = found
    return owner, held[kind]


def _attention_in(layer):
    """`(path, layer, {kind: projection})` of the layers that hold one projection of each kind."""
    found = {id(each): (path, each, _held(each)) for path, each in _with_inner(layer)}
    return [each for each in found.values() if each[2] is not None]


def _held(layer):
    """`{kind: projection}` of a layer that holds one of each kind, else `None`."""
    if isinstance(layer, keras.Model) or not isinstance(layer, keras.layers.Layer):
        return None
    held: dict[str, list] = {kind: [] for kind in PROJECTIONS}
    for key, child in paths.children(layer):
        for kind, names in _NAMES.items():
            if any(names.fullmatch(name) for name in (key, child.name)):
                held[kind].append(child)
    if any(len(children) != 1 for children in held.values()):
        return None
    return {kind: children[0] for kind, children in held.items()}


def _with_inner(layer):
    return [("", layer), *((path, inner) for path, _, inner in paths.walk(layer))]


# Of either.


def computes(layer: Any, kind: str) -> bool:
    """Whether a kind of attention can be read of a layer."""
    if not isinstance(layer, keras.layers.Layer):
        return False
    if kind in PROJECTIONS:
        return projection_of(layer, kind) is not None
    if softmax_of(layer) is not None:
        return True
    return kind == "attention_scores" and (
        returns_scores(layer) or dropout_of_scores(layer) is not None
    )


def gives_scores(layer: Any) -> bool:
    """Whether it computes scores itself; a layer around it may only pass them on."""
    if isinstance(layer, keras.Model) or not computes(layer, "attention_scores"):
        return False
    return not any(gives_scores(inner) for _, _, inner in paths.walk(layer))


def check(model: keras.layers.Layer, path: str, layer: Any, kind: str) -> None:
    """Raises where a layer does not compute this kind of attention."""
    if computes(layer, kind):
        return
    where = f"Layer {path!r} of model {model.name!r}, a {type(layer).__name__},"
    if kind in PROJECTIONS:
        raise _no_projection(model, where, layer, kind)
    able = [name for name, _, found in paths.walk(model) if computes(found, kind)]
    raise ValueError(
        f"{where} computes no {kind}. Layers that do: {able}. Scores are read of layers whose call "
        "takes `return_attention_scores`, scores and logits of layers with one "
        "keras.layers.Softmax inside, such as keras.layers.MultiHeadAttention, and scores alone of "
        "KerasHub's T5."
    )


def _no_projection(model, where, layer, kind):
    inside = [path for path, _, _ in _attention_in(layer)]
    able = [path for path, _, _ in _attention_in(model)]
    if len(inside) > 1:
        why = f"holds several attention layers, {inside}: whose {kind} are meant is not known"
    else:
        held = [key for key, _ in paths.children(layer)]
        why = (
            f"has no {kind} that are found: a layer gives them that is held beside those of the "
            "other two, and is named like 'query_dense', 'key' or 'value_projector'. It holds "
            f"{held}"
        )
    return ValueError(f"{where} {why}. Layers that have them: {able}.")
