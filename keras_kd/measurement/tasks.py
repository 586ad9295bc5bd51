"""Which task a model solves, told from its outputs and the labels."""

import numpy as np

from keras_kd.diagnosis import rows

TASKS = ("multiclass", "binary", "multilabel", "regression", "text")


def infer(outputs, labels):
    """The task of outputs and labels.

    Args:
        outputs: Array `[rows, ...]` of numbers or strings.
        labels: Array `[rows, ...]`.

    Returns:
        One of `TASKS`. Numbers between 0 and 1 that sum to 1 in each row are a class for each row,
        zeros and ones that do not are several labels, other numbers are to be predicted.

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
                    "The labels are -1, 0 and 1: answers of which some are missing (-1), or "
                    "numbers? Say task='binary' or task='regression'."
                )
            return "binary" if _are_flags(labels) else "regression"
        if not is_single and rows.class_indices(labels, outputs.shape) is not None:
            return "multiclass"
        if are_alike:
            return "multilabel" if _are_flags(labels) and labels.ndim == 2 else "regression"
    raise ValueError(
        f"Labels of shape {labels.shape} and type {labels.dtype} do not belong to outputs of shape "
        f"{outputs.shape}. Expected class indices [rows], a number for each output, or reference "
        "strings of a model that gives strings; `task` says which."
    )


def _are_flags(labels):
    return bool(np.isin(labels, (0, 1)).all())
