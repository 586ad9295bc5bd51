"""Paired comparison of two models: over seeds, and over the rows of the test data."""

import dataclasses

import numpy as np

from keras_kd.report import row_scores
from keras_kd.report.entrants import mean_and_deviation
from keras_kd.teachers.host import needs

SIGNIFICANT = 0.05
CONFIDENCE = 0.95
T_TEST = "paired t-test"
MCNEMAR = "McNemar's exact test"
ROW_TEST = "paired t-test over the rows"
# Differences of fractions that are equal in all seeds differ by rounding.
_NO_SPREAD = 1e-12


@dataclasses.dataclass(frozen=True)
class Difference:
    """By how much one model is better than another one.

    Attributes:
        by_seed: The gain of each seed; positive is better, whatever the metric.
        mean: Their mean.
        deviation: Their standard deviation, `None` of one seed.
        interval: 95 % confidence interval of the mean, or `None`.
        p: How often models that are equally good would differ as much, or `None`: not tested.
        test: The name of that test, or `None`.
        row_noise: What the finite test data leave open, a `RowNoise`, or `None`: not known.
    """

    by_seed: tuple[float, ...]
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None
    p: float | None
    test: str | None
    row_noise: row_scores.RowNoise | None

    @property
    def is_clear(self):
        """Whether the seeds, and the rows where they can tell, rule out that there is none."""
        by_rows = self.row_noise is None or self.row_noise.excludes_zero
        # McNemar's exact test is about the rows already, and the better one of few rows.
        by_rows = by_rows or self.test in (MCNEMAR, ROW_TEST)
        return self.p is not None and self.p < SIGNIFICANT and by_rows

    @property
    def seeds(self):
        """Their number."""
        return len(self.by_seed)

    def to_dict(self):
        """For JSON."""
        found = dataclasses.asdict(self)
        noise = found.pop("row_noise")
        interval = None if noise is None else list(self.row_noise.interval)
        return {**found, "interval_of_rows": interval, "is_clear": self.is_clear}


def compare(metric, new, old):
    """Compares two entrants seed by seed.

    With two seeds or more: the paired t-test, `t = mean / (deviation / sqrt(seeds))`. With one, or
    where all seeds differ by exactly the same, the rows decide, which say nothing about the luck of
    the initial weights. The accuracy: McNemar's exact test of the rows that only one of the two
    models gets right (a binomial test with probability 1/2). Errors, and the accuracy of rows with
    weights: the t-test of the rows' gains. Other metrics are no means over rows, and not tested.

    Args:
        metric: A `Metric`.
        new: An `Entrant`.
        old: An `Entrant` with as many seeds.

    Returns:
        A `Difference`.
    """
    differences = metric.gain(new.scores(metric), old.scores(metric))
    mean, deviation = mean_and_deviation(differences)
    noise = row_scores.noise(metric, new.measurements, old.measurements)
    if deviation is not None and deviation > _NO_SPREAD:
        p, test = _t_test(differences), T_TEST
        interval = _t_interval(differences)
    else:
        p, test = over_rows(metric, new.measurements[0], old.measurements[0])
        interval = None if noise is None else noise.interval
    return Difference(tuple(map(float, differences)), mean, deviation, interval, p, test, noise)


def _stats():
    return needs("scipy.stats", "keras_kd.report", "measure")


def _t_test(differences):
    return float(_stats().ttest_1samp(differences, 0.0).pvalue)


def _t_interval(differences):
    test = _stats().ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(CONFIDENCE)
    return float(low), float(high)


def smallest_clear(deviation, seeds):
    """The smallest mean gain that the t-test calls clear, at a deviation and a number of seeds."""
    quantile = _stats().t.ppf(1 - SIGNIFICANT / 2, seeds - 1)
    return float(quantile * deviation / np.sqrt(seeds))


def seeds_needed(mean, deviation, most=50):
    """How many seeds make a mean clear at this deviation; `None` of more than `most`."""
    counts = range(2, most + 1)
    return next((n for n in counts if smallest_clear(deviation, n) < abs(mean)), None)


def over_rows(metric, new, old):
    """`(p, name of the test)` of one pair of models by their rows, or `(None, None)`.

    The accuracy by McNemar's exact test, unless rows have weights, of which it knows nothing.
    """
    sides = row_scores.right(new), row_scores.right(old)
    if metric.key == "accuracy" and sides[0] is not None and new.weights is None:
        return mcnemar(*sides), MCNEMAR
    noise = row_scores.noise(metric, [new], [old])
    if noise is None or noise.error == 0:
        return None, None
    p = 2 * _stats().t.sf(abs(noise.mean) / noise.error, noise.rows - 1)
    return float(p), ROW_TEST


def mcnemar(new, old):
    """The p-value of McNemar's exact test.

    Args:
        new: Which rows one model gets right, bool `[rows]`.
        old: Likewise of the other one.
    """
    only_new, only_old = int(np.sum(new & ~old)), int(np.sum(old & ~new))
    if only_new + only_old == 0:
        return 1.0
    return float(_stats().binomtest(only_new, only_new + only_old, 0.5).pvalue)
