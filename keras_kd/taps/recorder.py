"""Records inner tensors, and their masks, in the one forward pass of a model."""

import contextlib
import functools
import operator
import threading

import keras
import tensorflow as tf

from keras_kd.taps import tap

# Listens to inner layers in the one forward pass of a model.
#
# A tapped layer's `call` is wrapped while the model runs, so the output is the very tensor that the
# forward pass made: no second pass, no extractor model, any kind of model (nested, subclassed).


class Taps:
    """What is listened to in one model.

    Args:
        model: A Keras model.
        layers: A list of names or paths of its layers, or `Tap`s of them.
    """

    def __init__(self, model, layers):
        self._model = model
        self._taps = {}
        for layer in dict.fromkeys(layers):
            tapped, found = _tap_of(layer), tap.resolve(model, layer)[1]
            if tapped.kind.startswith("attention"):
                tap.check_attention(model, tapped.layer, found, tapped.kind)
            self._taps[layer] = tapped, found

    def run(self, forward):
        """Runs `forward()` and returns its result with what was tapped, `{layer: value}`."""
        if not all(getattr(layer, "built", True) for _, layer in self._taps.values()):
            forward()  # a model that builds itself in its first pass may call layers twice in it
        values = {layer: [] for layer in self._taps}
        with contextlib.ExitStack() as stack:
            for key, (tapped, layer) in self._taps.items():
                for listener in listeners(layer, tapped.kind, values[key]):
                    stack.enter_context(listener)
            result = forward()
        return result, {layer: self._one(layer, calls) for layer, calls in values.items()}

    def _one(self, key, calls):
        tapped = self._taps[key][0]
        where = f"Layer {tapped.layer!r} of model {self._model.name!r}"
        if not calls:
            raise ValueError(
                f"{where} was not called in the forward pass, or its {tapped.kind} was not "
                "computed. Tap a layer that the model calls; a layer of a quantized model or one "
                "that only builds others may be none."
            )
        if tapped.call is None and len(calls) > 1:
            listed = ", ".join(f"{i}: {_shapes(value)}" for i, value in enumerate(calls))
            raise ValueError(
                f"{where} was called {len(calls)} times in one forward pass, with the shapes "
                f"{listed}. Say which call is meant: {tap.remedy(tapped, call=0)}."
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
    def _check_reachable(where, value):
        graphs = _graphs_in_reach()
        if tf.is_symbolic_tensor(value) and all(value.graph is not x for x in graphs):
            raise ValueError(
                f"{where} runs inside of a loop or condition of another layer (such as a "
                "recurrent layer's cell), which its outputs cannot leave. Tap the layer around it."
            )


def _graphs_in_reach():
    """The graph that is built now and those around it, whose tensors it can use."""
    graphs = [tf.compat.v1.get_default_graph()]
    while getattr(graphs[-1], "outer_graph", None) is not None:
        graphs.append(graphs[-1].outer_graph)
    return graphs


def _tap_of(layer):
    return layer if isinstance(layer, tap.Tap) else tap.Tap(layer)


def _shapes(value):
    return keras.tree.map_structure(shape_of, value)


def listeners(layer, kind, values):
    """Context managers; while all of them are open, `values` gets what each call gives.

    Args:
        layer: A layer or operation.
        kind: One of `Tap`'s kinds.
        values: List to append to.
    """
    if kind == "output":
        return [wrapped(layer, lambda call: _outputs(layer, call, values))]
    if kind == "input":
        return [wrapped(layer, lambda call: _inputs(call, values))]
    inner, listening = tap.softmax_of(layer), []
    if tap.returns_scores(layer):
        # Unless asked for the scores Keras may compute attention without them.
        scores = values if inner is None else []
        listening.append(wrapped(layer, lambda call: _returned_scores(call, scores)))
    if inner is not None:
        is_input = kind == "attention_logits"
        listening.append(wrapped(inner, lambda call: _softmax(call, values, is_input)))
    return listening


def _outputs(layer, call, values):
    def listen(*args, **kwargs):
        given, mask = of_call(args, kwargs)
        result = call(*args, **kwargs)
        output = output_of(result, kwargs)
        values.append(kept(output, of_output(layer, output, given, mask)))
        return result

    return listen


def output_of(result, kwargs):
    """What a layer gives; asked for its scores, by one around it, an attention layer adds them."""
    both = isinstance(result, tuple) and kwargs.get("return_attention_scores")
    return result[0] if both else result


def _inputs(call, values):
    def listen(*args, **kwargs):
        values.append(kept(*of_call(args, kwargs)))
        return call(*args, **kwargs)

    return listen


def _returned_scores(call, values):
    def listen(*args, return_attention_scores=False, **kwargs):
        result, scores = call(*args, return_attention_scores=True, **kwargs)
        values.append(kept(scores, pairs(kwargs.get("mask"))))
        return (result, scores) if return_attention_scores else result

    return listen


def _softmax(call, values, is_input):
    """Records a softmax layer's input or output; its mask says which pairs may attend."""

    def listen(inputs, mask=None):
        result = call(inputs, mask=mask)
        values.append(kept(inputs if is_input else result, mask))
        return result

    return listen


@contextlib.contextmanager
def wrapped(layer, wrap, attribute="call"):
    """Puts `wrap(layer.call)` in place of `layer.call`, or of another function, for this thread."""
    thread = threading.get_ident()
    before, call = layer.__dict__.get(attribute), getattr(layer, attribute)
    inside = wrap(call)

    def listen(*args, **kwargs):
        # Replicas of a tf.distribute strategy run the same layers in threads of their own.
        mine = threading.get_ident() == thread
        return (inside if mine else call)(*args, **kwargs)

    listen.before, listen.ended = before, False
    # Past Keras' attribute tracking: nothing of the layer changes that outlives the pass.
    object.__setattr__(layer, attribute, listen)
    try:
        yield
    finally:
        listen.ended = True
        _remove_ended(layer, attribute)


def _remove_ended(layer, attribute):
    # Replicas that wait for each other inside of the pass (synchronised batch normalisation) may
    # end in the order in which they began: a listener below one that goes on stays until then.
    call = layer.__dict__[attribute]
    while getattr(call, "ended", False):
        call = call.before
    if call is None:
        object.__delattr__(layer, attribute)
    else:
        object.__setattr__(layer, attribute, call)


# The Keras masks of what is tapped, kept while a tensor has them.
#
# A mask hangs on a tensor from the end of the layer call that made it until an attention layer
# takes it off: Keras' `MultiHeadAttention` does so with its inputs, and after the pass only the
# last block of a transformer would still say what is padding. So each mask is read when its layer
# is called, as `keras.layers.Layer.__call__` does, and hung on a copy.


def of(tensor):
    """The Keras mask that a tensor carries, or `None`."""
    return getattr(tensor, "_keras_mask", None)


def of_call(args, kwargs):
    """What a layer's `call` is given first, and the mask of it."""
    given = args[0] if args else next(iter(kwargs.values()), None)
    mask = kwargs.get("mask")
    return given, keras.tree.map_structure(of, given) if mask is None else mask


def of_output(layer, output, given, mask):
    """The mask that Keras will give a layer's output when its call is over.

    Args:
        layer: A layer or operation.
        output: What its `call` returned.
        given: What its `call` was given first.
        mask: The mask of that before the call.
    """
    tensors = keras.tree.flatten(output)
    carried = [of(tensor) for tensor in tensors]
    if not getattr(layer, "supports_masking", False) or all(x is not None for x in carried):
        return carried
    computed = keras.tree.flatten(layer.compute_mask(given, mask))
    # In order, as Keras does: of a layer that gives several tensors and computes one mask, it is
    # the first one's.
    computed += [None] * (len(tensors) - len(computed))
    return [old if old is not None else new for old, new in zip(carried, computed, strict=False)]


def kept(value, mask):
    """A copy that carries a mask as Keras' tensors do; the model's own tensor keeps its own.

    Args:
        value: A tensor, or a structure of them.
        mask: As many masks, each a tensor or `None`.
    """
    masks, tensors = keras.tree.flatten(mask), keras.tree.flatten(value)
    if len(masks) != len(tensors) or all(each is None for each in masks):
        return value
    copies = [_copy(*pair) for pair in zip(tensors, masks, strict=True)]
    return keras.tree.pack_sequence_as(value, copies)


def _copy(tensor, mask):
    if mask is None or tensor is None:
        return tensor
    tensor = tf.identity(tensor)
    tensor._keras_mask = mask if mask.dtype == tf.bool else tf.cast(mask, tf.float32) > 0.5
    return tensor


def pairs(masks):
    """`[batch, queries, keys]` of Keras' single-head attention, from its masks of both."""
    of_queries, of_keys = (
        (*masks, None, None)[:2] if isinstance(masks, (list, tuple)) else (None, None)
    )
    queries = None if of_queries is None else tf.cast(of_queries, "bool")[:, :, None]
    keys = None if of_keys is None else tf.cast(of_keys, "bool")[:, None, :]
    if queries is None or keys is None:
        return keys if queries is None else queries
    return queries & keys


def of_attention(pairs, tokens, shape):
    """Which pairs of attention count: those that may attend, of tokens that count.

    Args:
        pairs: The mask of the attention, `[batch, heads, queries, keys]` or without heads, or
            `None`. It leaves padded keys out, and not padded queries.
        tokens: `[batch, time]`, of the queries and, where there are as many, of the keys; or a mask
            of pairs.
        shape: The attention's.

    Returns:
        `[batch, heads, queries, keys]`, boolean; `heads` may be 1.
    """
    if len(tokens.shape) == 2:
        keys = tokens[:, None, :] if shape[-1] in (tokens.shape[1], None) else True
        tokens = tokens[:, :, None] & keys
    masks = [x if len(x.shape) == 4 else x[:, None] for x in (pairs, tokens) if x is not None]
    return functools.reduce(operator.and_, masks)


# Which tensor is meant of a layer that gives several.


def shape_of(value):
    """The shape of a tensor; `None` of what is none, such as a state that a layer leaves out."""
    shape = getattr(value, "shape", None)
    return None if shape is None else tuple(shape)


def chosen(where, tapped, value):
    """The one tensor that a tap means.

    Args:
        where: Names the layer, for messages.
        tapped: The `Tap`.
        value: What the layer gave, or was given: a tensor, or a structure of them.

    Raises:
        ValueError: Several are there and none is chosen, or the chosen one is not there.
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
            f"Say which is meant: {tap.remedy(tapped, index=next(iter(there)))}."
        )
    # From the end, as in lists; the keys of a dict are no numbers.
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


def _by_key(value):
    """`{index: tensor}`: of a dict by its keys, of any other structure by position."""
    if isinstance(value, dict) and not any(map(keras.tree.is_nested, value.values())):
        return dict(value)
    return dict(enumerate(keras.tree.flatten(value)))


def _gives(tapped):
    return "is given" if tapped.kind == "input" else "gives"


def _listed(there):
    return ", ".join(f"{key!r}: {shape_of(each)}" for key, each in there.items())
