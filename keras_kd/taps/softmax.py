"""Attention of layers that call `keras.ops.nn.softmax` instead of holding a softmax layer.

KerasHub's T5 is one. While such a layer runs and is tapped, the function is wrapped for its thread;
other threads, and other layers, see the function as it is.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_kd.models import paths

# By name: KerasHub does not export it.
_CLASSES = ("T5MultiHeadAttention",)
# What such layers add to the scores of pairs that may not attend, as a part of them.
_MASKED = -1e8

_lock = threading.Lock()
_open: dict[int, list[Callable]] = {}
_original: list[Callable] = []


def calling_softmax(layer: Any) -> Any:
    """The one such layer that is a layer or in it, or `None`."""
    if not isinstance(layer, keras.layers.Layer):
        return None
    every = [layer, *(inner for _, _, inner in paths.walk(layer))]
    found = {id(each): each for each in every if type(each).__name__ in _CLASSES}
    return next(iter(found.values())) if len(found) == 1 else None


@contextlib.contextmanager
def watched_softmax(see: Callable[[Any, Any], None]) -> Iterator[None]:
    """While it is open, `see(logits, scores)` is called for each softmax of this thread."""
    mine = _open.setdefault(threading.get_ident(), [])
    with _lock:
        if not _original:
            _original.append(keras.ops.nn.softmax)
            keras.ops.nn.softmax = _dispatch
        mine.append(see)
    try:
        yield
    finally:
        with _lock:
            mine.remove(see)
            if not any(_open.values()):
                keras.ops.nn.softmax = _original.pop()
                _open.clear()


def _dispatch(x: Any, axis: int = -1) -> Any:
    scores = _original[0](x, axis=axis)
    for see in _open.get(threading.get_ident(), [])[-1:]:
        see(x, scores)
    return scores


def may_attend(logits: Any) -> Any:
    """Which pairs are not masked."""
    return logits > _MASKED
