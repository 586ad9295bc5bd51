"""Outputs and labels: which samples count, logits and probabilities, and which task it is."""

import dataclasses
from typing import Any

import numpy as np

from keras_kd._utils import batches, statistics


@dataclasses.dataclass
class Rows:
    """The samples that count, one a row.

    Attributes:
        task: One of `tasks.NUMBERS`.
        labels: Class indices `[samples]`; 0 and 1 `[samples, labels]`; numbers
            `[samples, numbers]`.
        outputs: Log odds against the likeliest class, float64 `[samples, classes]`, or
            `[samples, labels, 2]` (no, yes) of several labels; of a regression numbers.
        weights: Float64 `[samples]`, above 0.
        counted: Bool, which of all samples these are.
    """

    task: str
    labels: Any
    outputs: Any
    weights: Any
    counted: Any

    @property
    def classes(self) -> int:
        """How many classes, labels or numbers there are."""
        return self.outputs.shape[1]

    @property
    def logits(self) -> np.ndarray:
        """`outputs` of a classifier."""
        return self.outputs

    @property
    def values(self) -> np.ndarray:
        """`outputs` of a regression."""
        return self.outputs

    def probabilities(self) -> np.ndarray:
        """Float64 `[samples, classes]`; of several labels that of each."""
        found = np.exp(log_probabilities(self.outputs))
        return found[..., 1] if self.task == "multilabel" else found


def select(
    task: str, name: str, outputs: np.ndarray, labels: Any, weights: Any, from_logits: bool
) -> Rows:
    """The samples that count: with a label, and a weight above 0.

    Args:
        task: One of `tasks.NUMBERS`.
        name: The model's name, for errors.
        outputs: Array `[samples, ...]`.
        labels: Array `[samples, ...]`.
        weights: Array `[samples, ...]`, or `None`.
        from_logits: Whether a classifier's outputs are logits.

    Raises:
        ValueError: They do not fit; outputs are not finite, or contradict `from_logits`.
    """
    values = flatten_outputs(task, name, outputs)
    found, weights, counted = check_labels(task, name, outputs, labels, weights)
    made = convert_outputs(task, name, values[counted], from_logits)
    return Rows(task, found[counted], made, weights[counted], counted)


def check_labels(
    task: str, name: str, outputs: np.ndarray, labels: Any, weights: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(labels, weights, counted)` of all samples.

    Args:
        task: One of `tasks.NUMBERS`.
        name: The model's name, for errors.
        outputs: Array `[samples, ...]`; only its shape is read.
        labels: Array `[samples, ...]`.
        weights: Array `[samples, ...]`, or `None`.

    Raises:
        ValueError: They do not fit.
    """
    values = flatten_outputs(task, name, outputs)
    found = _LABELS[task](labels, outputs, values)
    shape = (*outputs.shape[:-1], 2) if task == "multiclass" else (*_positions(task, outputs), 2)
    weights = batches.position_weights("data", weights, shape)
    counted = (weights > 0) & (found.reshape(len(found), -1) >= 0).all(axis=-1)
    if task == "regression":
        counted = weights > 0
    if not counted.any():
        raise ValueError("`data` has no sample with a label and a weight above 0.")
    _check_labels(task, found[counted], values.shape[-1])
    return found, weights, counted


def convert_labels(task: str, labels: Any, outputs: np.ndarray) -> np.ndarray:
    """Labels of all samples in the form that a task needs; negative where there is none.

    Args:
        task: One of `tasks.NUMBERS`.
        labels: Array `[samples, ...]`.
        outputs: Array `[samples, ...]`, what the labels are for.

    Raises:
        ValueError: They do not fit.
    """
    values = flatten_outputs(task, "The model", outputs)
    found = _LABELS[task](labels, outputs, values)
    if task == "multiclass":
        _check_labels(task, found, values.shape[-1])
    return found


def flatten_outputs(task: str, name: str, outputs: Any) -> np.ndarray:
    """Outputs as float64: `[samples, classes]`, `[samples]` of yes or no, `[samples, numbers]`."""
    outputs = np.asarray(outputs, np.float64)
    if task == "multiclass":
        if outputs.ndim < 2 or outputs.shape[-1] < 2:
            raise _misfit(task, name, outputs, "[samples, ..., classes], at least two classes")
        return outputs.reshape(-1, outputs.shape[-1])
    if task == "binary":
        return outputs.reshape(-1)
    if task == "multilabel" and outputs.ndim != 2:
        raise _misfit(task, name, outputs, "[samples, labels]")
    return outputs.reshape(len(outputs), -1)


def convert_outputs(task: str, name: str, values: np.ndarray, from_logits: bool) -> np.ndarray:
    """Outputs of the samples that count as `Rows.outputs`."""
    is_finite = np.isfinite(values).reshape(len(values), -1).all(axis=-1)
    if task == "multiclass" and from_logits:  # a class of probability 0 has a logit of -inf
        is_finite = statistics.are_finite(values)
    if not is_finite.all():
        raise ValueError(
            f"{name} gives NaN or infinities in {int((~is_finite).sum())} of {len(values)} samples "
            f"that count, first in sample {int(np.argmin(is_finite))} of them: it cannot be "
            "measured."
        )
    if task == "regression":
        return values
    check_from_logits(name, values, from_logits, sums_to_one=task == "multiclass")
    return to_logits(values, from_logits, is_yes_or_no=task != "multiclass")


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
    found = statistics.class_indices(labels, outputs.shape)
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
            "samples without a label the weight 0."
        )


# Logits and probabilities: how they are distinguished and converted.

# Sums of probabilities in 8 bits are off by half a step of 1 / 256 for each class.
_STEP = 1 / 256
# Float32 probabilities sum to 1 up to this.
_ROUNDING = 1e-3


def check_from_logits(name: str, values: np.ndarray, from_logits: bool, sums_to_one: bool) -> None:
    """Raises if outputs contradict `from_logits`.

    Args:
        name: The model's name.
        values: Float64 `[samples, ...]`.
        from_logits: What the user passed.
        sums_to_one: Whether the probabilities of a sample sum to 1.
    """
    are_shares = bool((values >= 0).all() and (values <= 1 + _ROUNDING).all())
    if from_logits and are_shares and _look_like_probabilities(values, sums_to_one):
        raise ValueError(
            f"The outputs of {name} are probabilities. Pass from_logits=False (of a teacher "
            "alone: teacher_from_logits=False)."
        )
    if from_logits:
        return
    if not are_shares or (sums_to_one and not _sum_to_one(values)):
        raise ValueError(
            f"The outputs of {name} are no probabilities: they range from {values.min():.3g} to "
            f"{values.max():.3g}"
            + (f", one sample sums to {values.sum(axis=-1).max():.3g}" if sums_to_one else "")
            + ". For logits pass from_logits=True (of a teacher alone: teacher_from_logits=True)."
        )


def _sum_to_one(values):
    # At most a half: 0 throughout is no distribution of many classes.
    tolerance = max(_ROUNDING, min(values.shape[-1] * _STEP, 0.5))
    return bool((abs(values.sum(axis=-1) - 1) < tolerance).all())


def _look_like_probabilities(values, sums_to_one):
    if sums_to_one:
        return _sum_to_one(values)
    # Logits of a trained model have both signs, and probabilities of two classes lie on both sides
    # of a half. Logits of zero weights, or of a model with one output for all, do neither.
    return len(values) > 1 and bool((values < 0.5).any() and ((values > 0.5) & (values < 1)).any())


def to_logits(values: np.ndarray, from_logits: bool, is_yes_or_no: bool) -> np.ndarray:
    """Finite logits, the largest of each sample 0.

    Args:
        values: Float64 `[samples, classes]`, or `[samples, ...]` of yes against no.
        from_logits: Whether they are logits, else probabilities.
        is_yes_or_no: Whether each number is a question of its own.

    Returns:
        Float64 `[samples, classes]`. Of yes or no one dimension more, `[..., 2]`: no and yes.
    """
    if is_yes_or_no:
        values = values if from_logits else np.clip(values, 0.0, 1.0)
        other = np.zeros_like(values) if from_logits else 1 - values
        values = np.stack([other, values], axis=-1)
    return statistics.to_logits(values, from_logits)


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities over the last dimension, of logits of at most 0."""
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


# Which task a model solves, by its outputs and the labels.


def infer_task(outputs: np.ndarray, labels: np.ndarray) -> str:
    """The task of outputs and labels.

    Args:
        outputs: Array `[samples, ...]` of numbers or strings.
        labels: Array `[samples, ...]`.

    Returns:
        One of `tasks.NUMBERS`, or `"text"`. Numbers between 0 and 1 that sum to 1 in each sample
        are one class per sample, zeros and ones that do not are several labels, other numbers are a
        regression.

    Raises:
        ValueError: They do not belong together.
    """
    if outputs.dtype.kind in "OSU":
        return "text"
    is_single = outputs.ndim == 1 or outputs.shape[-1] == 1
    are_alike = labels.size == outputs.size and len(labels) == len(outputs)
    if labels.dtype.kind in "biuf":
        if is_single and are_alike:
            if labels.dtype.kind == "i" and set(np.unique(labels)) == {-1, 0, 1}:
                raise ValueError(
                    "The labels are -1, 0 and 1: labels with some missing (-1), or "
                    "numbers? Pass task='binary' or task='regression'."
                )
            return "binary" if _are_flags(labels) else "regression"
        if not is_single and statistics.class_indices(labels, outputs.shape) is not None:
            return "multiclass"
        if are_alike:
            return "multilabel" if _are_flags(labels) and labels.ndim == 2 else "regression"
    raise ValueError(
        f"Labels of shape {labels.shape} and type {labels.dtype} do not belong to outputs of shape "
        f"{outputs.shape}. Expected class indices [samples], a number for each output, or "
        "reference strings of a model that gives strings; `task` sets which."
    )


def _are_flags(labels):
    return bool(np.isin(labels, (0, 1)).all())
