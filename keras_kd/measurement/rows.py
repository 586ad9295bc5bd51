"""Outputs and labels as the rows that count."""

import dataclasses
from typing import Any

import numpy as np

from keras_kd.diagnosis import batches
from keras_kd.diagnosis import rows as class_rows
from keras_kd.measurement import probabilities


@dataclasses.dataclass
class Rows:
    """What is compared, row by row.

    Attributes:
        task: One of `tasks.TASKS` but text.
        labels: Class indices `[rows]`; 0 and 1 `[rows, labels]`; numbers `[rows, numbers]`.
        outputs: Log odds against the likeliest class, float64 `[rows, classes]`, or
            `[rows, labels, 2]` (no, yes) of several labels; of a regression numbers.
        weights: Float64 `[rows]`, above 0.
        counted: Bool, which of all rows these are.
    """

    task: str
    labels: Any
    outputs: Any
    weights: Any
    counted: Any

    @property
    def classes(self):
        """How many classes, labels or numbers there are."""
        return self.outputs.shape[1]

    @property
    def logits(self):
        """Of a classifier, as of `outputs`."""
        return self.outputs

    @property
    def values(self):
        """Of a regression, as of `outputs`."""
        return self.outputs

    def probabilities(self):
        """Float64 `[rows, classes]`; of several labels that of each."""
        found = np.exp(probabilities.logs(self.outputs))
        return found[..., 1] if self.task == "multilabel" else found


def of(task, name, outputs, labels, weights, from_logits):
    """The rows that count: with a label, and a weight above 0.

    Args:
        task: One of `tasks.TASKS` but text.
        name: Of the model, for errors.
        outputs: Array `[rows, ...]`.
        labels: Likewise.
        weights: Likewise, or `None`.
        from_logits: Whether a classifier's outputs are logits.

    Raises:
        ValueError: They do not fit; outputs are not finite, or not what `from_logits` says.
    """
    values = flat(task, name, outputs)
    found, weights, counted = check_labels(task, name, outputs, labels, weights)
    made = converted(task, name, values[counted], from_logits)
    return Rows(task, found[counted], made, weights[counted], counted)


def check_labels(task, name, outputs, labels, weights):
    """`(labels, weights, counted)` of all rows.

    Args:
        task: As of `of`.
        name: Likewise.
        outputs: Likewise; only the shape is looked at.
        labels: Likewise.
        weights: Likewise.

    Raises:
        ValueError: They do not fit.
    """
    values = flat(task, name, outputs)
    found = _LABELS[task](labels, outputs, values)
    shape = (*outputs.shape[:-1], 2) if task == "multiclass" else (*_positions(task, outputs), 2)
    weights = batches.row_weights("data", weights, shape)
    counted = (weights > 0) & (found.reshape(len(found), -1) >= 0).all(axis=-1)
    if task == "regression":
        counted = weights > 0
    if not counted.any():
        raise ValueError("`data` has no row with a label and a weight above 0.")
    _check_labels(task, found[counted], values.shape[-1])
    return found, weights, counted


def labels_of(task, labels, outputs):
    """Labels in the form of a task, as of `Rows`, of all rows; negative where there is none.

    Args:
        task: One of `tasks.TASKS` but text.
        labels: Array `[rows, ...]`.
        outputs: Array `[rows, ...]`, what the labels are for.

    Raises:
        ValueError: They do not fit.
    """
    values = flat(task, "The model", outputs)
    found = _LABELS[task](labels, outputs, values)
    if task == "multiclass":
        _check_labels(task, found, values.shape[-1])
    return found


def flat(task, name, outputs):
    """Outputs as float64: `[rows, classes]`, or `[rows]` of yes or no, or `[rows, numbers]`."""
    outputs = np.asarray(outputs, np.float64)
    if task == "multiclass":
        if outputs.ndim < 2 or outputs.shape[-1] < 2:
            raise _misfit(task, name, outputs, "[rows, ..., classes], two classes at least")
        return outputs.reshape(-1, outputs.shape[-1])
    if task == "binary":
        return outputs.reshape(-1)
    if task == "multilabel" and outputs.ndim != 2:
        raise _misfit(task, name, outputs, "[rows, labels]")
    return outputs.reshape(len(outputs), -1)


def converted(task, name, values, from_logits):
    """Outputs of the rows that count as `Rows.outputs`."""
    is_finite = np.isfinite(values).reshape(len(values), -1).all(axis=-1)
    if task == "multiclass" and from_logits:  # a class of probability 0 has a logit of -inf
        is_finite = class_rows.are_finite(values)
    if not is_finite.all():
        raise ValueError(
            f"{name} gives NaN or infinities in {int((~is_finite).sum())} of {len(values)} rows "
            f"that count, first in row {int(np.argmin(is_finite))} of them: it cannot be measured."
        )
    if task == "regression":
        return values
    probabilities.check(name, values, from_logits, sums_to_one=task == "multiclass")
    return probabilities.to_logits(values, from_logits, is_yes_or_no=task != "multiclass")


def _positions(task, outputs):
    """The shape of what has a weight each."""
    is_single = outputs.ndim > 1 and outputs.shape[-1] == 1
    if task == "binary":
        return outputs.shape[:-1] if is_single else outputs.shape
    return outputs.shape[:1]


def _misfit(task, name, outputs, expected):
    return ValueError(
        f"The task is {task!r}, but {name} gives outputs of shape {outputs.shape}. "
        f"Expected {expected}. Choose another `task`, or one of several outputs with `output`."
    )


def _classes(labels, outputs, values):
    found = class_rows.class_indices(labels, outputs.shape)
    if found is None:
        raise _wrong(labels, outputs, "class indices, or a probability for each class")
    return found[0]


def _flags(labels, outputs, values):
    if labels.size != values.size or not np.isin(labels, (-1, 0, 1)).all():
        raise _wrong(labels, outputs, "a 0 or 1 for each output (-1: no label)")
    return labels.reshape(values.shape).astype(np.int64)


def _numbers(labels, outputs, values):
    if labels.dtype.kind not in "biuf" or labels.size != values.size:
        raise _wrong(labels, outputs, "a number for each output")
    return labels.reshape(values.shape).astype(np.float64)


_LABELS = {
    "multiclass": _classes,
    "binary": _flags,
    "multilabel": _flags,
    "regression": _numbers,
}


def _wrong(labels, outputs, expected):
    return ValueError(
        f"Expected {expected} as labels of outputs of shape {outputs.shape}. "
        f"Received: shape {labels.shape}, {labels.dtype}."
    )


def _check_labels(task, labels, classes):
    if task == "multiclass" and labels.max() >= classes:
        raise ValueError(
            f"The data has the label {labels.max()}, but the model only {classes} classes "
            "(0 is the first)."
        )
    if task == "regression" and not np.isfinite(labels).all():
        raise ValueError(
            f"{int((~np.isfinite(labels)).any(axis=-1).sum())} labels are NaN or infinite. Give "
            "rows without a label the weight 0."
        )
