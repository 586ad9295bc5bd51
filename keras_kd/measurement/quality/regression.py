"""Figures of models that predict numbers."""

import numpy as np

from keras_kd.measurement.quality import figures


def measure(rows):
    """Mean absolute error, root of the mean square error, and R2.

    Several numbers a row count alike: `mae` and `rmse` are means over them of the errors of each.
    `r2 = 1 - sum of all squared errors / sum of all squared distances of the labels from the means
    of their columns`: the R2 of each, weighted by the variance of its labels, as of scikit-learn's
    `multioutput="variance_weighted"`. A mean would be that of the columns that hardly vary. A
    column whose labels are all the same has no R2 and is left out of it.

    Args:
        rows: `Rows` of values `[rows, numbers]`, with labels of the same shape.
    """
    metrics, weights = figures.sklearn(), figures.of_weights(rows.weights)
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
        notes.append("r2: left out; it needs two rows at least.")
    if varies.any() and not varies.all():
        notes.append(
            f"r2: {(~varies).sum()} of {len(varies)} numbers have the same label in all rows and "
            "do not count."
        )
    quality = {name: float(value) for name, value in quality.items()}
    if values.shape[1] == 1:
        labels, values = labels[:, 0], values[:, 0]
    return figures.Figures(quality, values, labels, notes=notes)
