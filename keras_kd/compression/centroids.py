"""The values that clustered weights may have: where they begin, which is nearest."""

import numpy as np
import tensorflow as tf

KINDS = ("kmeans", "linear", "density")
_ITERATIONS = 20


def initial(weights, count, kind):
    """Values for weights to be clustered to, in rising order.

    Args:
        weights: NumPy array.
        count: How many, at least 2.
        kind: `"kmeans"`: Lloyd's algorithm from `"density"`; `"linear"`: from the smallest to the
            largest in equal steps; `"density"`: in the middle of parts with equally many weights.

    Returns:
        float array of shape `[count]`. Where the weights have no more values than that, these.
    """
    flat = np.sort(weights, axis=None)
    distinct = np.unique(flat)
    if len(distinct) <= count:
        return np.pad(distinct, (0, count - len(distinct)), mode="edge")
    if kind == "linear":
        return np.linspace(flat[0], flat[-1], count, dtype=flat.dtype)
    values = np.quantile(flat, (np.arange(count) + 0.5) / count).astype(flat.dtype)
    return _lloyd(flat, values) if kind == "kmeans" else values


def _lloyd(flat, values):
    """1-D k-means: each value becomes the mean of the weights that are nearest to it."""
    for _ in range(_ITERATIONS):
        nearest = np.searchsorted((values[1:] + values[:-1]) / 2, flat)
        counts = np.bincount(nearest, minlength=len(values))
        sums = np.bincount(nearest, flat, minlength=len(values))
        means = sums / np.maximum(counts, 1)
        values = np.sort(np.where(counts > 0, means, values)).astype(flat.dtype)
    return values


def with_zero(weights, count, kind):
    """As `initial`, with zero as one of the values, the others shared out to both signs.

    They are shared in proportion to how many weights are negative and positive.
    """
    negative, positive = weights[weights < 0], weights[weights > 0]
    total = max(len(negative) + len(positive), 1)
    below = round((count - 1) * len(negative) / total)
    parts = [
        initial(part, size, kind)
        for part, size in ((negative, below), (positive, count - 1 - below))
        if size and len(part)
    ]
    found = np.sort(np.concatenate([*parts, np.zeros(1, weights.dtype)]))
    return np.pad(found, (0, count - len(found)), mode="edge")


def nearest(weights, values):
    """The indices of the nearest of rising values, int32, of the shape of the weights."""
    bounds = (values[1:] + values[:-1]) / 2
    found = tf.searchsorted(bounds, tf.reshape(weights, [-1]))
    return tf.reshape(found, tf.shape(weights))
