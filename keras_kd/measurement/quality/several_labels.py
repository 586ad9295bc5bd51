"""Figures of classifiers that say yes or no to each of several labels of a row."""

import numpy as np

from keras_kd.measurement.quality import calibration, figures


def measure(rows, names):
    """The figures of a classifier with several labels.

    `accuracy` is the share of rows of which all labels are right, `log_loss` and `roc_auc` are
    means over labels, `ece` counts each label of each row.

    Args:
        rows: `Rows` of logits `[rows, labels]`, with labels 0 and 1 of the same shape.
        names: A name for each label.
    """
    metrics, weights = figures.sklearn(), figures.of_weights(rows.weights)
    labels, yes = rows.labels, rows.probabilities()
    predicted = (yes > 0.5).astype(int)
    quality = {"accuracy": metrics.accuracy_score(labels, predicted, sample_weight=weights)}
    for average in ("macro", "micro"):
        quality[f"f1_{average}"] = metrics.f1_score(
            labels, predicted, average=average, sample_weight=weights, zero_division=0
        )
    auc, notes = _auc(metrics, labels, yes, weights, names)
    quality |= auc
    quality["log_loss"] = np.mean(
        [
            metrics.log_loss(labels[:, i], yes[:, i], labels=[0, 1], sample_weight=weights)
            for i in range(len(names))
        ]
    )
    quality["ece"], bins = calibration.reliability(
        np.maximum(yes, 1 - yes).ravel(),
        (predicted == labels).ravel(),
        np.repeat(rows.weights, len(names)),
    )
    table = figures.table(labels, predicted, weights, names)
    quality = {name: float(value) for name, value in quality.items()}
    return figures.Figures(quality, predicted, labels, table, bins, None, notes)


def _auc(metrics, labels, yes, weights, names):
    both = [len(np.unique(labels[:, i])) == 2 for i in range(len(names))]
    if all(both):
        score = metrics.roc_auc_score(labels, yes, average="macro", sample_weight=weights)
        return {"roc_auc": score}, []
    listed = ", ".join(
        str(name) for name, has_both in zip(names, both, strict=True) if not has_both
    )
    return {}, [f"roc_auc: left out; all rows say the same of the label(s) {listed}."]
