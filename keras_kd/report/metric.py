"""`Metric`: the number by which the models are compared, its direction and its unit."""

import dataclasses

from keras_kd.ops.arguments import invalid
from keras_kd.report import numbers

# The first of these that was measured, where the user names none.
_DEFAULTS = {
    "multiclass": ("accuracy",),
    "binary": ("accuracy",),
    "multilabel": ("f1_macro", "f1_micro", "accuracy"),
    "regression": ("rmse", "mae"),
    "text": ("rouge_l", "bleu"),
}
_LOWER_IS_BETTER = {"ece", "log_loss", "mae", "mse", "rmse"}
_LABELS = {
    "bleu": "BLEU",
    "ece": "calibration error",
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "log_loss": "log loss",
    "mae": "mean absolute error",
    "mse": "mean squared error",
    "r2": "R²",
    "rmse": "RMSE",
    "roc_auc": "ROC AUC",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
}
_NOT_FRACTIONS = {"bleu", "log_loss", "mae", "mse", "r2", "rmse"}


@dataclasses.dataclass(frozen=True)
class Metric:
    """One of the numbers of `Measurement.quality`.

    Args:
        key: Its key there.
    """

    key: str

    @property
    def label(self):
        """What a reader calls it."""
        return _LABELS.get(self.key, self.key.replace("_", " "))

    @property
    def is_fraction(self):
        """Whether it lies between 0 and 1 and is shown in percent."""
        return self.key not in _NOT_FRACTIONS

    @property
    def higher_is_better(self):
        """Whether more of it is better."""
        return self.key not in _LOWER_IS_BETTER

    def of(self, measurement):
        """Its value in a measurement."""
        return float(measurement.quality[self.key])

    def gain(self, new, old):
        """By how much a value is better than another one; negative where it is worse."""
        return new - old if self.higher_is_better else old - new

    def shown(self, value):
        """A value, or a difference, in the unit that is shown."""
        return 100 * value if self.is_fraction else value

    def text(self, mean, deviation=None):
        """A value: `"93.0 ± 0.3 %"`."""
        number = self.number(mean, deviation)
        return f"{number} %" if self.is_fraction else number

    def number(self, mean, deviation=None, sign=""):
        """A value or a difference without its unit: `"93.0 ± 0.3"`."""
        if deviation is not None:
            deviation = self.shown(deviation)
        if self.is_fraction:
            places = 1 if deviation is None else numbers.decimals(0.0, deviation)
        else:
            seen = (mean, 3) if not deviation else (deviation, 1)
            places = min(_places(mean, deviation), numbers.significant(*seen))
        return numbers.spread(self.shown(mean), deviation, places, sign)

    def interval(self, low, high):
        """Two ends, as precise as their distance is: `"+1.1 to +2.5"`."""
        most = _places(low, high)
        places = 1 if self.is_fraction else min(most, numbers.significant(high - low, 2))
        ends = [numbers.fixed(self.shown(end), places, "+") for end in (low, high)]
        return " to ".join(ends)

    def difference(self, mean, deviation=None, sign="+"):
        """A difference: `"+1.8 ± 0.3 points"`."""
        return self.with_unit(self.number(mean, deviation, sign))

    def with_unit(self, number):
        """A number of `number` as a difference: `"1.8 points"`."""
        return f"{number} points" if self.is_fraction or self.key == "bleu" else number

    def better_by(self, mean, deviation=None):
        """A gain in words: `"+1.8 ± 0.3 points of accuracy"`, `"1.0 ± 0.6 lower RMSE"`."""
        if self.higher_is_better:
            amount = self.difference(mean, deviation)
            return f"{amount} {'of ' if amount.endswith('points') else ''}{self.label}"
        amount = self.difference(abs(mean), deviation, sign="")
        return f"{amount} {'lower' if mean >= 0 else 'higher'} {self.label}"

    def changed(self, mean, deviation=None):
        """A gain in words: `"gained 1.8 ± 0.3 points of accuracy"`, `"raised RMSE by 0.1"`."""
        amount = self.difference(abs(mean), deviation, sign="")
        if self.is_fraction or self.key == "bleu":
            return f"{'gained' if mean >= 0 else 'cost'} {amount} of {self.label}"
        raised = (mean >= 0) == self.higher_is_better
        return f"{'raised' if raised else 'lowered'} {self.label} by {amount}"


def _places(*values):
    """How many decimals at most: four, unless they would show 0."""
    return 4 if max(abs(value or 0) for value in values) >= 1e-3 else 12


def choose(measurements, key=None):
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
