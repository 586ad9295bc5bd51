"""How good a model is in each row of the test data, and what so few rows can tell."""

import dataclasses

import numpy as np

_CLASSES = {"multiclass", "binary", "multilabel"}
# 95 % of a normal distribution.
_Z = 1.959963984540054


def weights(measurement):
    """The weights of the rows, float64 `[rows]`, their mean 1."""
    if measurement.weights is None:
        return np.ones(measurement.samples)
    found = np.asarray(measurement.weights, np.float64)
    return found / found.mean()


def share_that_says(measurement, classes, rows=...):
    """In which share of some rows, by their weights, a model says these classes.

    Args:
        measurement: A `Measurement` of one class for each row.
        classes: One for each row of the data.
        rows: Bool `[rows]`: which rows; the sum of their weights must not be 0. Default: all.
    """
    same = np.asarray(measurement.predictions) == np.asarray(classes)
    return float(np.average(same[rows], weights=weights(measurement)[rows]))


def right(measurement):
    """Which rows are right, bool `[rows]`; `None` where the task has no right and wrong."""
    if measurement.task not in _CLASSES or measurement.predictions is None:
        return None
    same = np.asarray(measurement.predictions) == np.asarray(measurement.labels)
    return same.reshape(len(same), -1).all(axis=-1)


def errors(measurement):
    """Absolute errors of a regression, float64 `[rows]` (a mean of several outputs), or `None`."""
    if measurement.task != "regression" or measurement.predictions is None:
        return None
    predictions = np.asarray(measurement.predictions, np.float64)
    labels = np.asarray(measurement.labels, np.float64).reshape(predictions.shape)
    return np.abs(predictions - labels).reshape(len(labels), -1)


def gains(metric, new, old):
    """The share of each row in the gain of a metric; their mean, by the rows' weights, is the gain.

    For the accuracy it is 1 where only the new model is right and -1 where only the old one is. For
    the root of the mean square it is the influence of the row, `(e_old^2 / rmse_old - e_new^2 /
    rmse_new) / 2` (that makes it the delta method).

    Args:
        metric: A `Metric`.
        new: A `Measurement`.
        old: One of the same rows.

    Returns:
        Float64 `[rows]`, or `None` where the metric is no mean over rows.
    """
    if metric.key == "accuracy":
        sides = right(new), right(old)
        return None if sides[0] is None else sides[0].astype(np.float64) - sides[1]
    sides = errors(new), errors(old)
    if sides[0] is None:
        return None
    if metric.key == "mae":
        return (sides[1] - sides[0]).mean(axis=-1)
    if metric.key == "rmse":
        of_rows = weights(new)
        return _influence(sides[1], of_rows) - _influence(sides[0], of_rows)
    return None


def _influence(absolute, of_rows):
    squares = (absolute**2).mean(axis=-1)
    root = np.sqrt(np.average(squares, weights=of_rows))
    return squares / (2 * root) + root / 2 if root > 0 else np.zeros_like(squares)


@dataclasses.dataclass(frozen=True)
class RowNoise:
    """What the finite number of test rows leaves open in a gain.

    Attributes:
        rows: Their number.
        mean: The gain on them.
        error: Its standard error: the deviation of the rows' gains over the root of their number;
            of rows with weights `sqrt(n / (n - 1) sum_i w_i^2 (gain_i - mean)^2) / sum_i w_i`.
    """

    rows: int
    mean: float
    error: float

    @property
    def interval(self):
        """95 % confidence interval of the gain on other rows of the same kind."""
        return self.mean - self.visible, self.mean + self.visible

    @property
    def visible(self):
        """The smallest gain that is told apart from 0 on so many rows."""
        return _Z * self.error

    @property
    def excludes_zero(self):
        """Whether the interval does."""
        return abs(self.mean) > self.visible

    def rows_needed(self):
        """How many rows would tell a gain of this size apart from 0; `None` of a gain of 0."""
        if self.mean == 0:
            return None
        return int(np.ceil(self.rows * (self.visible / self.mean) ** 2))


def noise(metric, new, old):
    """`RowNoise` of the mean gain over seeds, or `None` where rows cannot tell.

    Args:
        metric: A `Metric`.
        new: Measurements by seed.
        old: Likewise, of the same rows.
    """
    by_seed = [gains(metric, *pair) for pair in zip(new, old, strict=True)]
    if any(each is None or len(each) < 2 for each in by_seed):
        return None
    rows, of_rows = np.mean(by_seed, axis=0), weights(new[0])
    mean, count = np.average(rows, weights=of_rows), len(rows)
    spread = np.sqrt(count / (count - 1) * ((of_rows * (rows - mean)) ** 2).sum())
    return RowNoise(count, float(mean), float(spread / of_rows.sum()))
