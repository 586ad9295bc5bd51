"""Which weights stay: masks of ones and zeros, by magnitude."""

import numpy as np

# Of each four in a row along the inputs two stay: what NVIDIA's sparse tensor cores compute with.
GROUP, STAY = 4, 2


def by_magnitude(weights, sparsity):
    """A mask that keeps the largest weights.

    `max(round(n (1 - sparsity)), 1)` of `n` stay, of equal ones the first.

    Args:
        weights: NumPy array.
        sparsity: The share to remove, from 0 to below 1.

    Returns:
        An array like `weights`, of ones and zeros.
    """
    stay = max(round(weights.size * (1 - sparsity)), 1)
    order = np.argsort(-np.abs(weights), axis=None, kind="stable")
    mask = np.zeros(weights.size, weights.dtype)
    mask[order[:stay]] = 1
    return mask.reshape(weights.shape)


def two_of_four(weights, axis):
    """A mask that keeps the two largest of each four in a row along an axis.

    Of an incomplete group at the end at most two stay.
    """
    rows = np.moveaxis(weights, axis, -1)
    groups = _in_groups(np.abs(rows))
    order = np.argsort(-groups, axis=-1, kind="stable")
    mask = np.zeros(groups.shape, weights.dtype)
    np.put_along_axis(mask, order[..., :STAY], 1, axis=-1)
    mask = mask.reshape(*rows.shape[:-1], -1)[..., : rows.shape[-1]]
    return np.moveaxis(mask, -1, axis)


def is_two_of_four(weights, axis):
    """Whether at most two of each four in a row along an axis are not zero."""
    groups = _in_groups(np.moveaxis(weights, axis, -1) != 0)
    return bool(np.all(groups.sum(-1) <= STAY))


def _in_groups(rows):
    missing = -rows.shape[-1] % GROUP
    padded = np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, missing)])
    return padded.reshape(*rows.shape[:-1], -1, GROUP)
