"""Outputs and labels of a batch as rows of float64 logits and class indices."""

import numpy as np

# A probability of 0, or a logit of -inf, counts as the least that float32 can hold, exp(-104):
# whatever was below it has been lost.
LOWEST = -104.0


def flat_outputs(role, outputs):
    """Outputs `[..., classes]` as float64 `[rows, classes]`.

    Raises:
        ValueError: There are several outputs, or fewer than two classes.
    """
    if isinstance(outputs, (dict, list, tuple)):
        raise ValueError(
            f"The {role} has {len(outputs)} outputs in a {type(outputs).__name__}; classifiers "
            "with one output [..., classes] can be diagnosed. Make a model of one of them: "
            "keras.Model(model.inputs, output)."
        )
    array = np.asarray(outputs)
    if array.ndim < 2 or array.shape[-1] < 2:
        raise ValueError(
            f"The {role} gives outputs of shape {tuple(array.shape)}. Classifiers with outputs "
            "[batch, ..., classes] and at least two classes can be diagnosed; regression and "
            "single sigmoid outputs cannot."
        )
    return array.reshape(-1, array.shape[-1]).astype(np.float64)


def class_indices(labels, shape):
    """Labels as class indices.

    Args:
        labels: Class indices `[batch, ...]` or `[batch, ..., 1]`, or a probability for each class,
            `[batch, ..., classes]`, of which the largest counts.
        shape: Of the model's outputs.

    Returns:
        `(indices, classes)`: int64 `[rows]`, negative for rows without a label, and how many
        classes the labels name where they have a number for each, else `None`. `None` in place of
        both where they are no labels of one class a row.
    """
    labels = np.asarray(labels)
    if labels.ndim == len(shape) and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if not (np.issubdtype(labels.dtype, np.number) and np.isrealobj(labels)):
        return None
    if labels.shape == tuple(shape[:-1]):
        whole = np.isfinite(labels) & (np.floor(labels) == labels)
        return (labels.reshape(-1).astype(np.int64), None) if whole.all() else None
    if labels.ndim != len(shape) or labels.shape[:-1] != tuple(shape[:-1]):
        return None
    # A hundredth: label smoothing in half precision.
    if (labels < 0).any() or (abs(labels.sum(axis=-1, dtype=np.float64) - 1) > 0.01).any():
        return None
    return labels.argmax(axis=-1).reshape(-1), labels.shape[-1]


def are_finite(values):
    """Which rows `[rows]` have a distribution: no NaN, no +inf, and not only -inf."""
    return ~(np.isnan(values).any(-1) | np.isposinf(values).any(-1) | np.isneginf(values).all(-1))


def to_logits(values, from_logits):
    """Finite logits `[rows, classes]`, the largest of each row 0, of finite rows."""
    if not from_logits:
        positive = values > 0
        values = np.where(positive, np.log(np.where(positive, values, 1.0)), -np.inf)
    largest = values.max(axis=-1, keepdims=True)
    # Of a row of numbers that are no probabilities none may be left.
    shifted = values - np.where(np.isfinite(largest), largest, 0.0)
    return np.where(np.isneginf(shifted), LOWEST, shifted)
