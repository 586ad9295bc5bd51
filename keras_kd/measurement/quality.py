"""Quality by task: classes, several labels, numbers; calibration."""

import dataclasses
from typing import Any

import numpy as np

from keras_kd._utils import validation
from keras_kd.measurement.predictions import Rows


@dataclasses.dataclass
class Figures:
    """The figures of any task, under the names of the fields of `Measurement`."""

    quality: dict
    predictions: Any
    labels: Any
    per_class: list = dataclasses.field(default_factory=list)
    reliability: list = dataclasses.field(default_factory=list)
    confusion: list | None = None
    notes: list = dataclasses.field(default_factory=list)
    weights: Any = None
    counted: Any = None
    sample_scores: dict = dataclasses.field(default_factory=dict)


def sklearn() -> Any:
    """`sklearn.metrics`."""
    return validation.needs("sklearn.metrics", "keras_kd.measure", "measure")


def weights_unless_ones(weights: np.ndarray) -> np.ndarray | None:
    """The weights for scikit-learn: `None` where all are 1, so that counts are whole numbers."""
    return None if (weights == 1).all() else weights


def per_class_table(
    labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray | None, names: list
) -> list[dict]:
    """Precision, recall and F1 of each class.

    Args:
        labels: Class indices `[samples]`, or 0 and 1 `[samples, classes]`.
        predictions: In the same form.
        weights: Float64 `[samples]`, or `None`.
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


def number(value: Any) -> int | float:
    """A number of NumPy as one of Python; whole counts as `int`."""
    return int(value) if isinstance(value, np.integer) else float(value)


# Calibration: does a model predict as sure as it is right?

BINS = 15


def reliability(
    confidence: np.ndarray, is_right: np.ndarray, weights: np.ndarray
) -> tuple[float, list[dict]]:
    """The expected calibration error, and the curve that it is made of.

    `ECE = sum_b w_b / w |accuracy_b - confidence_b|` over 15 bins `((b - 1) / 15, b / 15]` of the
    confidence, the probability of the predicted class; `w_b` is the sum of the weights of the
    samples in a bin, `accuracy_b` and `confidence_b` are their weighted means.

    Args:
        confidence: Float64 `[samples]`, in 0 to 1.
        is_right: Bool `[samples]`, whether the predicted class is the true one.
        weights: Float64 `[samples]`.

    Returns:
        `(ece, bins)`: a float, and for each bin `{"low", "high", "count", "weight", "confidence",
        "accuracy"}`; the last two are `None` for an empty bin.

    Reference: Guo et al., "On Calibration of Modern Neural Networks",
    https://arxiv.org/abs/1706.04599
    """
    places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    sums = [
        np.bincount(places, weights=each, minlength=BINS)
        for each in (weights, weights * confidence, weights * is_right)
    ]
    error = np.abs(sums[2] - sums[1]).sum() / sums[0].sum()
    return float(error), [_bin(b, int(counts[b]), *(x[b] for x in sums)) for b in range(BINS)]


def _bin(place, count, weight, confidence, right):
    return {
        "low": place / BINS,
        "high": (place + 1) / BINS,
        "count": count,
        "weight": float(weight),
        "confidence": float(confidence / weight) if count else None,
        "accuracy": float(right / weight) if count else None,
    }


# Classifiers that choose one class for each sample.

# Nobody reads a larger confusion matrix, and it is large in a report.
MOST_CLASSES = 100


def measure_classes(rows: Rows, names: list, top_k: tuple[int, ...]) -> Figures:
    """The figures of a classifier.

    `log_loss` is scikit-learn's, which takes a probability below 2.2e-16 for that.

    Args:
        rows: Logits `[samples, classes]`.
        names: A label for each class.
        top_k: Whole numbers.
    """
    metrics, weights = sklearn(), weights_unless_ones(rows.weights)
    labels, probabilities = rows.labels, rows.probabilities()
    predicted = probabilities.argmax(axis=-1)
    every = np.arange(len(names))
    quality = {
        "accuracy": metrics.accuracy_score(labels, predicted, sample_weight=weights),
        **_top(metrics, rows, top_k, weights, every),
        **_f1(metrics, labels, predicted, weights),
    }
    auc, notes = _auc_of_classes(metrics, labels, probabilities, weights, names)
    quality |= auc
    quality["log_loss"] = metrics.log_loss(
        labels, probabilities, labels=every, sample_weight=weights
    )
    quality["ece"], bins = reliability(
        probabilities.max(axis=-1), predicted == labels, rows.weights
    )
    return Figures(
        {name: float(value) for name, value in quality.items()},
        predicted,
        labels,
        per_class_table(labels, predicted, weights, names),
        bins,
        _confusion(metrics, labels, predicted, weights, every),
        notes,
    )


def _top(metrics, rows, top_k, weights, every):
    return {
        f"top_{k}_accuracy": metrics.top_k_accuracy_score(
            rows.labels, rows.logits, k=k, labels=every, sample_weight=weights
        )
        for k in top_k
        if 1 < k < len(every)
    }


def _f1(metrics, labels, predicted, weights):
    # The macro average is over the classes that have samples, for every model the same. By default
    # scikit-learn adds those that a model predicts: one stray sample in 300 made 1.0 of two classes
    # 0.67.
    options = {"sample_weight": weights, "zero_division": 0}
    present = np.unique(labels)
    return {
        "f1_macro": metrics.f1_score(labels, predicted, labels=present, average="macro", **options),
        "f1_micro": metrics.f1_score(labels, predicted, average="micro", **options),
    }


def _auc_of_classes(metrics, labels, probabilities, weights, names):
    """One class against the rest, the mean over classes; needs samples of each."""
    missing = [name for i, name in enumerate(names) if not (labels == i).any()]
    if missing:
        listed = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        return {}, [f"roc_auc: left out; the data has no sample of the class(es) {listed}."]
    if len(names) == 2:
        score = metrics.roc_auc_score(labels, probabilities[:, 1], sample_weight=weights)
    else:
        score = metrics.roc_auc_score(
            labels, probabilities, multi_class="ovr", average="macro", sample_weight=weights
        )
    return {"roc_auc": score}, []


def _confusion(metrics, labels, predicted, weights, every):
    if len(every) > MOST_CLASSES:
        return None
    found = metrics.confusion_matrix(labels, predicted, labels=every, sample_weight=weights)
    return found.tolist()


# Classifiers with several labels per sample.


def measure_several_labels(rows: Rows, names: list) -> Figures:
    """The figures of a classifier with several labels.

    `accuracy` is the share of samples whose labels are all right, `log_loss` and `roc_auc` are
    means over labels, `ece` counts each label of each sample.

    Args:
        rows: Logits `[samples, labels]`, with labels 0 and 1 of the same shape.
        names: A name for each label.
    """
    metrics, weights = sklearn(), weights_unless_ones(rows.weights)
    labels, yes = rows.labels, rows.probabilities()
    predicted = (yes > 0.5).astype(int)
    quality = {"accuracy": metrics.accuracy_score(labels, predicted, sample_weight=weights)}
    for average in ("macro", "micro"):
        quality[f"f1_{average}"] = metrics.f1_score(
            labels, predicted, average=average, sample_weight=weights, zero_division=0
        )
    auc, notes = _auc_of_labels(metrics, labels, yes, weights, names)
    quality |= auc
    quality["log_loss"] = np.mean(
        [
            metrics.log_loss(labels[:, i], yes[:, i], labels=[0, 1], sample_weight=weights)
            for i in range(len(names))
        ]
    )
    quality["ece"], bins = reliability(
        np.maximum(yes, 1 - yes).ravel(),
        (predicted == labels).ravel(),
        np.repeat(rows.weights, len(names)),
    )
    table = per_class_table(labels, predicted, weights, names)
    quality = {name: float(value) for name, value in quality.items()}
    return Figures(quality, predicted, labels, table, bins, None, notes)


def _auc_of_labels(metrics, labels, yes, weights, names):
    both = [len(np.unique(labels[:, i])) == 2 for i in range(len(names))]
    if all(both):
        score = metrics.roc_auc_score(labels, yes, average="macro", sample_weight=weights)
        return {"roc_auc": score}, []
    listed = ", ".join(
        str(name) for name, has_both in zip(names, both, strict=True) if not has_both
    )
    return {}, [f"roc_auc: left out; all samples have the same value of the label(s) {listed}."]


# Models that predict numbers.


def measure_regression(rows: Rows) -> Figures:
    """Mean absolute error, root of the mean square error, and R2.

    Several numbers per sample count alike: `mae` and `rmse` are means over them of the errors of
    each.
    `r2 = 1 - sum of all squared errors / sum of all squared distances of the labels from the means
    of their columns`: the R2 of each, weighted by the variance of its labels, as of scikit-learn's
    `multioutput="variance_weighted"`. A mean would be that of the columns that hardly vary. A
    column whose labels are all the same has no R2 and is left out of it.

    Args:
        rows: Values `[samples, numbers]`, with labels of the same shape.
    """
    metrics, weights = sklearn(), weights_unless_ones(rows.weights)
    labels, values = rows.labels, rows.values
    quality = {
        "mae": metrics.mean_absolute_error(labels, values, sample_weight=weights),
        "rmse": metrics.root_mean_squared_error(labels, values, sample_weight=weights),
    }
    notes = []
    varies = np.ptp(labels, axis=0) > 0
    if varies.any():
        quality["r2"] = metrics.r2_score(
            labels[:, varies],
            values[:, varies],
            sample_weight=weights,
            multioutput="variance_weighted",
        )
    elif len(labels) > 1:
        notes.append("r2: left out; the labels are all the same.")
    else:
        notes.append("r2: left out; it needs at least two samples.")
    if varies.any() and not varies.all():
        notes.append(
            f"r2: {(~varies).sum()} of {len(varies)} numbers have the same label in all samples "
            "and do not count."
        )
    quality = {name: float(value) for name, value in quality.items()}
    if values.shape[1] == 1:
        labels, values = labels[:, 0], values[:, 0]
    return Figures(quality, values, labels, notes=notes)
