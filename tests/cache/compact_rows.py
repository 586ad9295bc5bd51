"""Rows of logits of many kinds, and what compact bytes must say of them, in float64."""

import numpy as np
import tensorflow as tf

from keras_kd.ops import compact_logits

# With those between the ones at which a level is kept.
TEMPERATURES = (0.5, 0.6, 1.0, 1.7, 2.0, 3.3, 4.0, 7.0, 11.0, 14.0, 16.0, np.inf)


def logsumexp(values):
    if not values.size:
        return -np.inf
    return np.log(np.exp(values - values.max()).sum()) + values.max()


def kept(logits, k):
    """The classes of the `k` largest, of equal ones the first, sorted; `[rows, k]`."""
    return np.sort(np.argsort(-logits, axis=-1, kind="stable")[:, :k], axis=-1)


def exact_rest(logits, classes, temperature):
    centered = logits - logits.max(-1, keepdims=True)
    rest = [np.delete(row, at) for row, at in zip(centered, classes, strict=True)]
    return [logsumexp(row[np.isfinite(row)] / temperature) for row in rest]


def through_bytes(logits, k):
    packed, is_sound = compact_logits.keep_compact(np.float32(logits), k)
    assert is_sound
    assert packed.dtype == tf.uint8
    assert packed.shape[-1] == compact_logits.bytes_of(k, logits.shape[-1])
    return compact_logits.expand(packed, k, logits.shape[-1])


KINDS = (
    *("normal", "narrow", "flat", "laplace", "exponential", "uniform", "ties", "peaked"),
    *("zipf", "steep zipf", "student", "two heaps", "cliff of 5", "cliff of 20", "cliff of 100"),
)


def logits_of(kind, rows, classes):
    """`[rows, classes]`, float64, of numbers that float32 has."""
    return np.float32(_logits_of(kind, rows, classes)).astype("float64")


def _logits_of(kind, rows, classes):
    rng = np.random.default_rng(classes)
    if kind.endswith("zipf"):
        ranks = rng.permuted(np.tile(np.arange(1, classes + 1), (rows, 1)), axis=-1)
        noise = 2 * rng.normal(size=ranks.shape)
        return -3 * np.log(ranks) if kind == "steep zipf" else -1.2 * np.log(ranks) + noise
    if kind.startswith("cliff"):  # as far as can be from a smooth curve: all others alike, far away
        return np.tile(np.where(np.arange(classes) < 51, 0.0, -float(kind.split()[-1])), (rows, 1))
    draw = {
        "normal": lambda size: 4 * rng.normal(size=size),
        "narrow": lambda size: 0.3 * rng.normal(size=size),
        "flat": lambda size: 1e-3 * rng.normal(size=size),
        "ties": lambda size: rng.normal(size=size).round(),
        "peaked": lambda size: rng.normal(size=size) + 20 * (rng.random(size) < 1e-3),
        "two heaps": lambda size: rng.normal(size=size) + 10 * (rng.random(size) < 1e-2),
        "laplace": lambda size: 3 * rng.laplace(size=size),
        "exponential": lambda size: 3 * rng.exponential(size=size),
        "uniform": lambda size: rng.uniform(-30, 0, size=size),
        "student": lambda size: 2 * rng.standard_t(3, size=size),
    }[kind]
    return draw((rows, classes))
