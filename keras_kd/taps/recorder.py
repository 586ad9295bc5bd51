"""`Taps`: records inner tensors, and their masks, in the one forward pass of a model.

A tapped layer's `call` is wrapped while the model runs, so what is recorded is the very tensor that
the forward pass made: no second pass, no extractor model, any kind of model (nested, subclassed).
"""

import contextlib
import functools
import operator
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_kd.taps import softmax, tap


class Taps:
    """The layers of one model that are recorded.

    Args:
        model: A Keras model.
        layers: A list of names or paths of its layers, or `Tap`s of them.
    """

    def __init__(self, model: keras.layers.Layer, layers: Iterable) -> None:
        self._model = model
        self._taps: dict[Any, tuple[tap.Tap, Any]] = {}
        for layer in dict.fromkeys(layers):
            tapped, found = _tap_of(layer), tap.resolve(model, layer)[1]
            if tapped.kind.startswith("attention"):
                tap.check_attention(model, tapped.layer, found, tapped.kind)
            self._taps[layer] = tapped, found

    def run(self, forward: Callable[[], Any]) -> tuple[Any, dict]:
        """Runs `forward()` and returns its result and what was recorded, `{layer: value}`."""
        if not all(getattr(layer, "built", True) for _, layer in self._taps.values()):
            forward()  # a model that builds itself in its first pass may call layers twice in it
        values: dict[Any, list] = {layer: [] for layer in self._taps}
        with contextlib.ExitStack() as stack:
            for key, (tapped, layer) in self._taps.items():
                for recorder in recorders(layer, tapped.kind, values[key]):
                    stack.enter_context(recorder)
            result = forward()
        return result, {layer: self._one(layer, calls) for layer, calls in values.items()}

    def _one(self, key: Any, calls: list) -> Any:
        tapped = self._taps[key][0]
        where = f"Layer {tapped.layer!r} of model {self._model.name!r}"
        if not calls:
            raise ValueError(
                f"{where} was not called in the forward pass, or its {tapped.kind} was not "
                "computed. Tap a layer that the model calls; layers of a quantized model, or those "
                "that only build others, may never be called."
            )
        if tapped.call is None and len(calls) > 1:
            listed = ", ".join(f"{i}: {_shapes(value)}" for i, value in enumerate(calls))
            raise ValueError(
                f"{where} was called {len(calls)} times in one forward pass, with the shapes "
                f"{listed}. Choose one of the calls: {tap.remedy(tapped, call=0)}."
            )
        try:
            value = calls[0 if tapped.call is None else tapped.call]
        except IndexError:
            raise ValueError(
                f"{where} was called {len(calls)} times in one forward pass: there is no call "
                f"{tapped.call}."
            ) from None
        value = chosen(where, tapped, value)
        self._check_reachable(where, value)
        return value

    @staticmethod
    def _check_reachable(where: str, value: Any) -> None:
        graphs = _graphs_in_reach()
        if tf.is_symbolic_tensor(value) and all(value.graph is not x for x in graphs):
            raise ValueError(
                f"{where} runs inside of a loop or condition of another layer (such as a "
                "recurrent layer's cell), which its outputs cannot leave. Tap the layer around it."
            )


def _graphs_in_reach() -> list:
    """The graph that is being built and those around it, whose tensors it can use."""
    graphs = [tf.compat.v1.get_default_graph()]
    while getattr(graphs[-1], "outer_graph", None) is not None:
        graphs.append(graphs[-1].outer_graph)
    return graphs


def _tap_of(layer: Any) -> tap.Tap:
    return layer if isinstance(layer, tap.Tap) else tap.Tap(layer)


def _shapes(value: Any) -> Any:
    return keras.tree.map_structure(shape_of, value)


# Wrappers around a layer's `call`.


def recorders(layer: Any, kind: str, values: list) -> list:
    """Context managers; while all of them are open, each call's tensor is appended to `values`.

    Args:
        layer: A layer or operation.
        kind: One of `Tap`'s kinds.
        values: List to append to.
    """
    if kind == "output":
        return [wrapped(layer, lambda call: _record_outputs(layer, call, values))]
    if kind == "input":
        return [wrapped(layer, lambda call: _record_inputs(call, values))]
    inner, recorders = tap.softmax_of(layer), []
    if inner is None and softmax.calling_softmax(layer) is not None:
        attention, is_input = softmax.calling_softmax(layer), kind == "attention_logits"
        return [wrapped(attention, lambda call: _record_function(call, values, is_input))]
    if tap.returns_scores(layer):
        # Unless the scores are requested Keras may compute attention without them.
        scores: list = values if inner is None else []
        recorders.append(wrapped(layer, lambda call: _record_scores(call, scores)))
    if inner is not None:
        is_input = kind == "attention_logits"
        recorders.append(wrapped(inner, lambda call: _record_softmax(call, values, is_input)))
    return recorders


def _record_outputs(layer: Any, call: Callable, values: list) -> Callable:
    def record(*args: Any, **kwargs: Any) -> Any:
        given, mask = of_call(args, kwargs)
        result = call(*args, **kwargs)
        output = output_of(result, kwargs)
        values.append(with_mask(output, of_output(layer, output, given, mask)))
        return result

    return record


def output_of(result: Any, kwargs: dict) -> Any:
    """A layer's output; a layer around it may make an attention layer return its scores too."""
    both = isinstance(result, tuple) and kwargs.get("return_attention_scores")
    return result[0] if both else result


def _record_inputs(call: Callable, values: list) -> Callable:
    def record(*args: Any, **kwargs: Any) -> Any:
        values.append(with_mask(*of_call(args, kwargs)))
        return call(*args, **kwargs)

    return record


def _record_scores(call: Callable, values: list) -> Callable:
    def record(*args: Any, return_attention_scores: bool = False, **kwargs: Any) -> Any:
        result, scores = call(*args, return_attention_scores=True, **kwargs)
        values.append(with_mask(scores, pairs(kwargs.get("mask"))))
        return (result, scores) if return_attention_scores else result

    return record


def _record_softmax(call: Callable, values: list, is_input: bool) -> Callable:
    """Records a softmax layer's input or output; its mask tells which pairs may attend."""

    def record(inputs: Any, mask: Any = None) -> Any:
        result = call(inputs, mask=mask)
        found = _of_heads(inputs if is_input else result)
        values.append(with_mask(found, None if mask is None else _of_heads(mask)))
        return result

    return record


def _of_heads(value: Any) -> Any:
    """`[batch, heads, queries, keys]`; some models group the heads that share keys, as Gemma."""
    if len(value.shape) != 5:
        return value
    shape = keras.ops.shape(value)
    return keras.ops.reshape(value, (shape[0], shape[1] * shape[2], *shape[3:]))


def _record_function(call: Callable, values: list, is_input: bool) -> Callable:
    """Records what a layer passes to the softmax function, or what that returns."""

    def see(logits: Any, scores: Any) -> None:
        mask = softmax.may_attend(logits)
        values.append(with_mask(logits if is_input else scores, mask))

    def record(*args: Any, **kwargs: Any) -> Any:
        with softmax.watched_softmax(see):
            return call(*args, **kwargs)

    return record


@contextlib.contextmanager
def wrapped(layer: Any, wrap: Callable, attribute: str = "call") -> Iterator[None]:
    """Puts `wrap(layer.call)` in place of `layer.call`, or of another function, for this thread."""
    thread = threading.get_ident()
    before, call = layer.__dict__.get(attribute), getattr(layer, attribute)
    inside = wrap(call)

    def in_this_thread(*args: Any, **kwargs: Any) -> Any:
        # Replicas of a tf.distribute strategy run the same layers in threads of their own.
        mine = threading.get_ident() == thread
        return (inside if mine else call)(*args, **kwargs)

    wrapper: Any = in_this_thread
    wrapper.before, wrapper.ended = before, False
    # Past Keras' attribute tracking: no change of the layer outlives the pass.
    object.__setattr__(layer, attribute, wrapper)
    try:
        yield
    finally:
        wrapper.ended = True
        _remove_ended(layer, attribute)


def _remove_ended(layer: Any, attribute: str) -> None:
    # Replicas that wait for each other inside of the pass (synchronized batch normalization) may
    # end in the order in which they began: a wrapper below one that still runs stays until then.
    call = layer.__dict__[attribute]
    while getattr(call, "ended", False):
        call = call.before
    if call is None:
        object.__delattr__(layer, attribute)
    else:
        object.__setattr__(layer, attribute, call)


# Keras' masks of recorded tensors.
#
# A tensor has a mask from the end of the layer call that made it until an attention layer removes
# it: Keras' `MultiHeadAttention` does so with its inputs, and after the pass only the last block of
# a transformer would still have one. So each mask is read when its layer is called, as
# `keras.layers.Layer.__call__` does, and set on a copy.


def mask_of(tensor: Any) -> Any:
    """The Keras mask of a tensor, or `None`."""
    return getattr(tensor, "_keras_mask", None)


def of_call(args: tuple, kwargs: dict) -> tuple[Any, Any]:
    """The first argument of a layer's `call`, and its mask."""
    given = args[0] if args else next(iter(kwargs.values()), None)
    mask = kwargs.get("mask")
    return given, keras.tree.map_structure(mask_of, given) if mask is None else mask


def of_output(layer: Any, output: Any, given: Any, mask: Any) -> list:
    """The masks that Keras will set on a layer's output when its call is over.

    Args:
        layer: A layer or operation.
        output: What its `call` returned.
        given: The first argument of its `call`.
        mask: The mask of that before the call.
    """
    tensors = keras.tree.flatten(output)
    carried = [mask_of(tensor) for tensor in tensors]
    if not getattr(layer, "supports_masking", False) or all(x is not None for x in carried):
        return carried
    computed = keras.tree.flatten(layer.compute_mask(given, mask))
    # In order, as Keras does: where a layer returns several tensors and computes one mask, it
    # belongs to the first.
    computed += [None] * (len(tensors) - len(computed))
    return [old if old is not None else new for old, new in zip(carried, computed, strict=False)]


def with_mask(value: Any, mask: Any) -> Any:
    """A copy that has a mask as Keras' tensors do; the model's own tensor keeps its own.

    Args:
        value: A tensor, or a structure of them.
        mask: As many masks, each a tensor or `None`.
    """
    masks, tensors = keras.tree.flatten(mask), keras.tree.flatten(value)
    if len(masks) != len(tensors) or all(each is None for each in masks):
        return value
    copies = [_copy(*pair) for pair in zip(tensors, masks, strict=True)]
    return keras.tree.pack_sequence_as(value, copies)


def _copy(tensor: Any, mask: Any) -> Any:
    if mask is None or tensor is None:
        return tensor
    tensor = tf.identity(tensor)
    tensor._keras_mask = mask if mask.dtype == tf.bool else tf.cast(mask, tf.float32) > 0.5
    return tensor


def pairs(masks: Any) -> Any:
    """`[batch, queries, keys]` of Keras' single-head attention, from its masks of both."""
    of_queries, of_keys = (
        (*masks, None, None)[:2] if isinstance(masks, (list, tuple)) else (None, None)
    )
    queries = None if of_queries is None else tf.cast(of_queries, "bool")[:, :, None]
    keys = None if of_keys is None else tf.cast(of_keys, "bool")[:, None, :]
    if queries is None or keys is None:
        return keys if queries is None else queries
    return queries & keys


def attention_mask(pairs: Any, tokens: Any, shape: Any) -> Any:
    """Which pairs of attention count: those that may attend, between tokens that count.

    Args:
        pairs: The mask of the attention, `[batch, heads, queries, keys]` or without heads, or
            `None`. It excludes padded keys, not padded queries.
        tokens: `[batch, time]`, for the queries and, where there are as many, for the keys; or a
            mask of pairs.
        shape: The shape of the attention.

    Returns:
        `[batch, heads, queries, keys]`, boolean; `heads` may be 1.
    """
    if len(tokens.shape) == 2:
        keys = tokens[:, None, :] if shape[-1] in (tokens.shape[1], None) else True
        tokens = tokens[:, :, None] & keys
    masks = [x if len(x.shape) == 4 else x[:, None] for x in (pairs, tokens) if x is not None]
    return functools.reduce(operator.and_, masks)


# The one tensor of a layer that returns several.


def shape_of(value: Any) -> tuple | None:
    """The shape of a tensor; `None` for anything else, such as a state that a layer leaves out."""
    shape = getattr(value, "shape", None)
    return None if shape is None else tuple(shape)


def chosen(where: str, tapped: tap.Tap, value: Any) -> Any:
    """The one tensor of a layer that a tap chooses.

    Args:
        where: Names the layer, for messages.
        tapped: The `Tap`.
        value: The layer's output or input: a tensor, or a structure of them.

    Raises:
        ValueError: There are several and none is chosen, or the chosen one does not exist.
    """
    by_key = _by_key(value)
    there = {key: each for key, each in by_key.items() if shape_of(each) is not None}
    if tapped.index is None:
        if len(there) == 1:
            return next(iter(there.values()))
        if not there:
            raise ValueError(f"{where} {_gives(tapped)} no tensor. Received: {value!r}")
        raise ValueError(
            f"{where} {_gives(tapped)} {len(there)} tensors, with the shapes {_listed(there)}. "
            f"Choose one of them: {tap.remedy(tapped, index=next(iter(there)))}."
        )
    # From the end, as in lists; the keys of a dict are not numbers.
    index = tapped.index
    if isinstance(index, int) and index < 0:
        index += len(by_key)
    if index not in there:
        why = "no tensor" if index in by_key else "nothing"
        raise ValueError(
            f"{where} {_gives(tapped)} {why} at index {tapped.index!r}. Its tensors, with their "
            f"shapes: {_listed(there)}. Choose one of them: "
            f"{tap.remedy(tapped, index=next(iter(there), 0))}."
        )
    return there[index]


def _by_key(value: Any) -> dict[int | str, Any]:
    """`{index: tensor}`: of a dict by its keys, of any other structure by position."""
    if isinstance(value, dict) and not any(map(keras.tree.is_nested, value.values())):
        return dict(value)
    return dict(enumerate(keras.tree.flatten(value)))


def _gives(tapped: tap.Tap) -> str:
    return "takes" if tapped.kind == "input" else "returns"


def _listed(there: dict) -> str:
    return ", ".join(f"{key!r}: {shape_of(each)}" for key, each in there.items())
