"""Figures of classifiers that choose one class for each row."""

import numpy as np

from keras_kd.measurement.quality import calibration, figures

# Larger confusion matrices are no longer looked at, and large in a report.
MOST_CLASSES = 100


def measure(rows, names, top_k):
    """The figures of a classifier.

    `log_loss` is scikit-learn's, which takes a probability below 2.2e-16 for that.

    Args:
        rows: `Rows` of logits `[rows, classes]`.
        names: A label for each class.
        top_k: Whole numbers.
    """
    metrics, weights = figures.sklearn(), figures.of_weights(rows.weights)
    labels, probabilities = rows.labels, rows.probabilities()
    predicted = probabilities.argmax(axis=-1)
    every = np.arange(len(names))
    quality = {
        "accuracy": metrics.accuracy_score(labels, predicted, sample_weight=weights),
        **_top(metrics, rows, top_k, weights, every),
        **_f1(metrics, labels, predicted, weights),
    }
    auc, notes = _auc(metrics, labels, probabilities, weights, names)
    quality |= auc
    quality["log_loss"] = metrics.log_loss(
        labels, probabilities, labels=every, sample_weight=weights
    )
    quality["ece"], bins = calibration.reliability(
        probabilities.max(axis=-1), predicted == labels, rows.weights
    )
    return figures.Figures(
        {name: float(value) for name, value in quality.items()},
        predicted,
        labels,
        figures.table(labels, predicted, weights, names),
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
    # The macro average is over the classes that have rows, for every model the same. By default
    # scikit-learn adds those that a model predicts: one stray row in 300 made 1.0 of two classes
    # 0.67.
    options = {"sample_weight": weights, "zero_division": 0}
    present = np.unique(labels)
    return {
        "f1_macro": metrics.f1_score(labels, predicted, labels=present, average="macro", **options),
        "f1_micro": metrics.f1_score(labels, predicted, average="micro", **options),
    }


def _auc(metrics, labels, probabilities, weights, names):
    """One class against the rest, the mean over classes; needs rows of each."""
    missing = [name for i, name in enumerate(names) if not (labels == i).any()]
    if missing:
        listed = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        return {}, [f"roc_auc: left out; the data has no row of the class(es) {listed}."]
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
