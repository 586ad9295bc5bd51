"""The Keras masks of what is tapped, kept while a tensor has them.

A mask hangs on a tensor from the end of the layer call that made it until an attention layer takes
it off: Keras' `MultiHeadAttention` does so with its inputs, and after the pass only the last
block of a transformer would still say what is padding. So each mask is read when its layer is
called, as `keras.layers.Layer.__call__` does, and hung on a copy.
"""

import functools
import operator

import keras
import tensorflow as tf


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
