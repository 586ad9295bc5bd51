"""The statistics of a report: its metric, scores of samples, paired comparisons."""

import dataclasses
from typing import Any

import numpy as np

from keras_kd._utils import formatting
from keras_kd._utils.validation import invalid, needs
from keras_kd.measurement.result import Measurement

# The first of these that was measured, where the user names none.
_DEFAULTS = {
    "multiclass": ("accuracy",),
    "binary": ("accuracy",),
    "multilabel": ("f1_macro", "f1_micro", "accuracy"),
    "regression": ("rmse", "mae"),
    "text": ("rouge_l", "bleu"),
    "translation": ("bleu",),
    "summarization": ("rouge_l",),
    "question_answering": ("f1",),
    "speech_recognition": ("wer",),
    "retrieval": ("recall_at_10", "recall_at_5", "recall_at_1", "mrr"),
    "similarity": ("spearman",),
    "language_model": ("perplexity",),
}
_LOWER_IS_BETTER = {"cer", "ece", "log_loss", "mae", "mse", "perplexity", "rmse", "wer"}
_LABELS = {
    "bleu": "BLEU",
    "cer": "character error rate",
    "chrf": "chrF",
    "ece": "calibration error",
    "exact_match": "exact match",
    "f1": "F1",
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "kendall": "Kendall's tau",
    "log_loss": "log loss",
    "mae": "mean absolute error",
    "mrr": "mean reciprocal rank",
    "mse": "mean squared error",
    "pearson": "Pearson's correlation",
    "r2": "R²",
    "rmse": "RMSE",
    "roc_auc": "ROC AUC",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "rouge_lsum": "ROUGE-Lsum",
    "spearman": "Spearman's correlation",
    "wer": "word error rate",
}
_NOT_FRACTIONS = {
    *("bleu", "chrf", "kendall", "log_loss", "mae", "mrr", "mse", "pearson", "perplexity", "r2"),
    *("rmse", "spearman"),
}
# Between 0 and 100 by themselves.
_IN_POINTS = {"bleu", "chrf"}


@dataclasses.dataclass(frozen=True)
class Metric:
    """One of the numbers of `Measurement.quality`.

    Args:
        key: Its key there.
    """

    key: str

    @property
    def label(self) -> str:
        """What a reader calls it."""
        return _LABELS.get(self.key, self.key.replace("_", " "))

    @property
    def is_fraction(self) -> bool:
        """Whether it lies between 0 and 1 and is shown in percent."""
        return self.key not in _NOT_FRACTIONS

    @property
    def higher_is_better(self) -> bool:
        """Whether more of it is better."""
        return self.key not in _LOWER_IS_BETTER

    def of(self, measurement: Measurement) -> float:
        """Its value in a measurement."""
        return float(measurement.quality[self.key])

    def gain(self, new: Any, old: Any) -> Any:
        """By how much a value is better than another one; negative where it is worse."""
        return new - old if self.higher_is_better else old - new

    def shown(self, value: float) -> float:
        """A value, or a difference, in the unit that is shown."""
        return 100 * value if self.is_fraction else value

    def text(self, mean: float, deviation: float | None = None) -> str:
        """A value: `"93.0 ± 0.3 %"`."""
        number = self.number(mean, deviation)
        return f"{number} %" if self.is_fraction else number

    def number(self, mean: float, deviation: float | None = None, sign: str = "") -> str:
        """A value or a difference without its unit: `"93.0 ± 0.3"`."""
        if deviation is not None:
            deviation = self.shown(deviation)
        if self.is_fraction:
            places = 1 if deviation is None else formatting.decimals(0.0, deviation)
        else:
            seen = (mean, 3) if not deviation else (deviation, 1)
            places = min(_places(mean, deviation), formatting.significant(*seen))
        return formatting.spread(self.shown(mean), deviation, places, sign)

    def interval(self, low: float, high: float) -> str:
        """Two ends, as precise as their distance is: `"+1.1 to +2.5"`."""
        most = _places(low, high)
        places = 1 if self.is_fraction else min(most, formatting.significant(high - low, 2))
        ends = [formatting.fixed(self.shown(end), places, "+") for end in (low, high)]
        return " to ".join(ends)

    def difference(self, mean: float, deviation: float | None = None, sign: str = "+") -> str:
        """A difference: `"+1.8 ± 0.3 points"`."""
        return self.with_unit(self.number(mean, deviation, sign))

    def with_unit(self, number: str) -> str:
        """A number of `number` as a difference: `"1.8 points"`."""
        return f"{number} points" if self.is_fraction or self.key in _IN_POINTS else number

    def better_by(self, mean: float, deviation: float | None = None) -> str:
        """A gain in words: `"+1.8 ± 0.3 points of accuracy"`, `"1.0 ± 0.6 lower RMSE"`."""
        if self.higher_is_better:
            amount = self.difference(mean, deviation)
            return f"{amount} {'of ' if amount.endswith('points') else ''}{self.label}"
        amount = self.difference(abs(mean), deviation, sign="")
        return f"{amount} {'lower' if mean >= 0 else 'higher'} {self.label}"

    def changed(self, mean: float, deviation: float | None = None) -> str:
        """A gain in words: `"gained 1.8 ± 0.3 points of accuracy"`, `"raised RMSE by 0.1"`."""
        amount = self.difference(abs(mean), deviation, sign="")
        if self.higher_is_better and (self.is_fraction or self.key in _IN_POINTS):
            return f"{'gained' if mean >= 0 else 'cost'} {amount} of {self.label}"
        raised = (mean >= 0) == self.higher_is_better
        return f"{'raised' if raised else 'lowered'} {self.label} by {amount}"


def _places(*values):
    """How many decimals at most: four, unless they would show 0."""
    return 4 if max(abs(value or 0) for value in values) >= 1e-3 else 12


def choose_metric(measurements: list[Measurement], key: str | None = None) -> Metric:
    """The metric that all of the measurements have.

    Args:
        measurements: A list of `Measurement`.
        key: The user's choice, or `None` for the usual one of the task.

    Raises:
        ValueError: They do not have it.
    """
    known = set.intersection(*(set(each.quality) for each in measurements))
    wanted = _DEFAULTS.get(measurements[0].task, ()) if key is None else (key,)
    found = [each for each in wanted if each in known]
    if not found:
        raise invalid("metric", f"one of {sorted(known)}, which all models have", repr(key))
    return Metric(found[0])


# Scores of samples, and how much a finite number of samples can show.


_CLASSES = {"multiclass", "binary", "multilabel"}
# 95 % of a normal distribution.
_Z = 1.959963984540054


def mean_and_deviation(values: Any) -> tuple[float, float | None]:
    """Mean, and the standard deviation of a sample, `None` of fewer than two values."""
    values = np.asarray(values, np.float64)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None


def sample_weights(measurement: Measurement) -> np.ndarray:
    """The weights of the samples, float64 `[samples]`, their mean 1."""
    if measurement.weights is None:
        return np.ones(measurement.samples)
    found = np.asarray(measurement.weights, np.float64)
    return found / found.mean()


def agreement(measurement: Measurement, classes: Any, rows: Any = ...) -> float:
    """For which share of some samples, by their weights, a model gives these classes.

    Args:
        measurement: A `Measurement` of one class for each sample.
        classes: One for each sample of the data.
        rows: Bool `[samples]`: which samples; the sum of their weights must not be 0. Default: all.
    """
    same = np.asarray(measurement.predictions) == np.asarray(classes)
    return float(np.average(same[rows], weights=sample_weights(measurement)[rows]))


def correct_samples(measurement: Measurement) -> np.ndarray | None:
    """Which samples are right, bool `[samples]`; `None` where the task has no right and wrong."""
    if measurement.task not in _CLASSES or measurement.predictions is None:
        return None
    same = np.asarray(measurement.predictions) == np.asarray(measurement.labels)
    return same.reshape(len(same), -1).all(axis=-1)


def absolute_errors(measurement: Measurement) -> np.ndarray | None:
    """Absolute errors of a regression, float64 `[samples, outputs]`, or `None`."""
    if measurement.task != "regression" or measurement.predictions is None:
        return None
    predictions = np.asarray(measurement.predictions, np.float64)
    labels = np.asarray(measurement.labels, np.float64).reshape(predictions.shape)
    return np.abs(predictions - labels).reshape(len(labels), -1)


def right_samples(metric: Metric, measurement: Measurement) -> np.ndarray | None:
    """For which samples a metric is 1, bool `[samples]`; `None` where it is not 0 or 1 for each.

    Args:
        metric: The accuracy, or the mean of scores of samples.
        measurement: A `Measurement`.
    """
    if metric.key == "accuracy" and measurement.task in _CLASSES:
        return correct_samples(measurement)
    scores = measurement.sample_scores.get(metric.key)
    if scores is None or not scores.is_mean or not np.isin(scores.numerators, (0, 1)).all():
        return None
    return scores.numerators == 1


def sample_gains(metric: Metric, new: Measurement, old: Measurement) -> Any:
    """The share of each sample in the gain of a metric; their weighted mean is the gain.

    For the accuracy it is 1 where only the new model is right and -1 where only the old one is; for
    other means the gain of the sample's score. For ratios, such as errors to words, and for the
    root of the mean square it is the influence of the sample, `(e_old^2 / rmse_old - e_new^2 /
    rmse_new) / 2` of the latter (that makes it the delta method).

    Args:
        metric: What is compared.
        new: The one model.
        old: The other one, measured on the same samples.

    Returns:
        Float64 `[samples]`, or `None` where the metric is no mean over samples.
    """
    if metric.key in new.sample_scores and metric.key in old.sample_scores:
        return metric.gain(*(_influences(metric, each) for each in (new, old)))
    if metric.key == "accuracy":
        is_right, was_right = correct_samples(new), correct_samples(old)
        if is_right is None or was_right is None:
            return None
        return is_right.astype(np.float64) - was_right
    sides = absolute_errors(new), absolute_errors(old)
    if sides[0] is None or sides[1] is None:
        return None
    if metric.key == "mae":
        return (sides[1] - sides[0]).mean(axis=-1)
    if metric.key == "rmse":
        of_rows = sample_weights(new)
        return _influence(sides[1], of_rows) - _influence(sides[0], of_rows)
    return None


def _influences(metric, measurement):
    return measurement.sample_scores[metric.key].influences(measurement.weights)


def _influence(absolute, of_rows):
    squares = (absolute**2).mean(axis=-1)
    root = np.sqrt(np.average(squares, weights=of_rows))
    return squares / (2 * root) + root / 2 if root > 0 else np.zeros_like(squares)


@dataclasses.dataclass(frozen=True)
class RowNoise:
    """What the finite number of test samples leaves open in a gain.

    Attributes:
        rows: Their number.
        mean: The gain on them.
        error: Its standard error: the deviation of the samples' gains over the root of their
            number; with sample weights
            `sqrt(n / (n - 1) sum_i w_i^2 (gain_i - mean)^2) / sum_i w_i`.
    """

    rows: int
    mean: float
    error: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the gain on other samples of the same kind."""
        return self.mean - self.visible, self.mean + self.visible

    @property
    def visible(self) -> float:
        """The smallest gain that so many samples distinguish from 0."""
        return _Z * self.error

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval does."""
        return abs(self.mean) > self.visible

    def rows_needed(self) -> int | None:
        """How many samples would distinguish a gain of this size from 0; `None` of a gain of 0."""
        if self.mean == 0:
            return None
        return int(np.ceil(self.rows * (self.visible / self.mean) ** 2))


def row_noise(metric: Metric, new: list[Measurement], old: list[Measurement]) -> RowNoise | None:
    """`RowNoise` of the mean gain over seeds, or `None` where the metric is no mean over samples.

    Args:
        metric: A `Metric`.
        new: Measurements by seed.
        old: Measurements of the same samples by seed.
    """
    by_seed = [sample_gains(metric, *pair) for pair in zip(new, old, strict=True)]
    if any(each is None or len(each) < 2 for each in by_seed):
        return None
    rows, of_rows = np.mean(by_seed, axis=0), sample_weights(new[0])
    mean, count = np.average(rows, weights=of_rows), len(rows)
    spread = np.sqrt(count / (count - 1) * ((of_rows * (rows - mean)) ** 2).sum())
    return RowNoise(count, float(mean), float(spread / of_rows.sum()))


# Paired comparison of two models: over seeds, and over the samples of the test data.


SIGNIFICANT = 0.05
CONFIDENCE = 0.95
T_TEST = "paired t-test"
MCNEMAR = "McNemar's exact test"
ROW_TEST = "paired t-test over the samples"
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
    row_noise: RowNoise | None

    @property
    def is_clear(self) -> bool:
        """Whether the seeds, and the samples where they can be tested, rule out a gain of 0."""
        by_rows = self.row_noise is None or self.row_noise.excludes_zero
        # McNemar's exact test is about the samples already, and the better one of few samples.
        by_rows = by_rows or self.test in (MCNEMAR, ROW_TEST)
        return self.p is not None and self.p < SIGNIFICANT and by_rows

    @property
    def seeds(self) -> int:
        """Their number."""
        return len(self.by_seed)

    def to_dict(self) -> dict:
        """For JSON."""
        found = dataclasses.asdict(self)
        del found["row_noise"]
        interval = None if self.row_noise is None else list(self.row_noise.interval)
        return {**found, "interval_of_rows": interval, "is_clear": self.is_clear}


def compare_paired(metric: Metric, new: Any, old: Any) -> Difference:
    """Compares two candidates seed by seed.

    With two seeds or more: the paired t-test, `t = mean / (deviation / sqrt(seeds))`. With one, or
    where all seeds differ by exactly the same, the samples decide, which show nothing about the
    luck of the initial weights. The accuracy, and other scores that are 0 or 1 for each sample:
    McNemar's exact test of the samples that only one of the two models gets right (a binomial test
    with probability 1/2). Errors, other means and ratios over samples, and samples with weights:
    the t-test of the samples' gains. Other metrics are no means over samples, and are not tested.

    Args:
        metric: What is compared.
        new: A `Candidate`.
        old: A `Candidate` with as many seeds.
    """
    differences = metric.gain(new.scores(metric), old.scores(metric))
    mean, deviation = mean_and_deviation(differences)
    noise = row_noise(metric, new.measurements, old.measurements)
    p: float | None
    test: str | None
    if deviation is not None and deviation > _NO_SPREAD:
        p, test = _t_test(differences), T_TEST
        interval = _t_interval(differences)
    else:
        p, test = p_over_samples(metric, new.measurements[0], old.measurements[0])
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


def smallest_clear(deviation: float, seeds: int) -> float:
    """The smallest mean gain that the t-test calls clear, at a deviation and a number of seeds."""
    quantile = _stats().t.ppf(1 - SIGNIFICANT / 2, seeds - 1)
    return float(quantile * deviation / np.sqrt(seeds))


def seeds_needed(mean: float, deviation: float, most: int = 50) -> int | None:
    """How many seeds make a mean clear at this deviation; `None` of more than `most`."""
    counts = range(2, most + 1)
    return next((n for n in counts if smallest_clear(deviation, n) < abs(mean)), None)


def p_over_samples(
    metric: Metric, new: Measurement, old: Measurement
) -> tuple[float | None, str | None]:
    """`(p, name of the test)` of one pair of models by their samples, or `(None, None)`.

    What is right or wrong by McNemar's exact test, unless samples have weights, which it does not
    take.
    """
    is_right, was_right = right_samples(metric, new), right_samples(metric, old)
    if new.weights is None and is_right is not None and was_right is not None:
        return mcnemar(is_right, was_right), MCNEMAR
    noise = row_noise(metric, [new], [old])
    if noise is None or noise.error == 0:
        return None, None
    p = 2 * _stats().t.sf(abs(noise.mean) / noise.error, noise.rows - 1)
    return float(p), ROW_TEST


def mcnemar(new: np.ndarray, old: np.ndarray) -> float:
    """The p-value of McNemar's exact test.

    Args:
        new: Which samples one model gets right, bool `[samples]`.
        old: Which samples the other one gets right, bool `[samples]`.
    """
    only_new, only_old = int(np.sum(new & ~old)), int(np.sum(old & ~new))
    if only_new + only_old == 0:
        return 1.0
    return float(_stats().binomtest(only_new, only_new + only_old, 0.5).pvalue)
