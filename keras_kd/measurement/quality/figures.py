"""`Figures`: what the measures of any task give."""

import dataclasses
from typing import Any

import numpy as np

from keras_kd.teachers import host


@dataclasses.dataclass
class Figures:
    """Quality, as the fields of `Measurement` of the same names hold it."""

    quality: dict
    predictions: Any
    labels: Any
    per_class: list = dataclasses.field(default_factory=list)
    reliability: list = dataclasses.field(default_factory=list)
    confusion: list | None = None
    notes: list = dataclasses.field(default_factory=list)
    weights: Any = None
    counted: Any = None


def sklearn():
    """`sklearn.metrics`."""
    return host.needs("sklearn.metrics", "keras_kd.measure", "measure")


def of_weights(weights):
    """The weights for scikit-learn: `None` where all are 1, so that counts are whole numbers."""
    return None if (weights == 1).all() else weights


def table(labels, predictions, weights, names):
    """Precision, recall and F1 of each class.

    Args:
        labels: Class indices `[rows]`, or 0 and 1 `[rows, classes]`.
        predictions: Likewise.
        weights: Float64 `[rows]`, or `None`.
        names: A label for each class.
    """
    found = sklearn().precision_recall_fscore_support(
        labels,
        predictions,
        labels=np.arange(len(names)),
        sample_weight=weights,
        zero_division=0,
    )
    keys = ("precision", "recall", "f1", "support")
    return [
        {"label": name, **{key: number(values[i]) for key, values in zip(keys, found, strict=True)}}
        for i, name in enumerate(names)
    ]


def number(value):
    """A number of NumPy as one of Python; whole counts as `int`."""
    return int(value) if isinstance(value, np.integer) else float(value)
