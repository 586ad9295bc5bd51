"""Figures of models that predict numbers."""

from keras_kd.measurement.quality import figures


def measure(rows):
    """Mean absolute error, root of the mean square error, and R2.

    Several numbers a row count alike: `mae` and `rmse` are means over them of the errors of each,
    `r2` of the R2 of each, as of scikit-learn.

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
    if len(labels) > 1:
        quality["r2"] = metrics.r2_score(labels, values, sample_weight=weights)
    else:
        notes.append("r2: left out; it needs two rows at least.")
    quality = {name: float(value) for name, value in quality.items()}
    if values.shape[1] == 1:
        labels, values = labels[:, 0], values[:, 0]
    return figures.Figures(quality, values, labels, notes=notes)
