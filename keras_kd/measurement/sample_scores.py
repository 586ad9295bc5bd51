"""`SampleScores`: the parts that samples have in a figure, for paired tests and slices."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class SampleScores:
    """A figure as a ratio of sums, `sum_i w_i a_i / sum_i w_i b_i`, or the exponential of one.

    Args:
        numerators: `a`, float64 `[samples]`: the scores of samples of a mean, the errors of texts.
        denominators: `b`, float64 `[samples]`: 1 of a mean, the words of each reference.
        is_exponential: Whether the figure is the exponential of the ratio, as the perplexity.
    """

    numerators: np.ndarray
    denominators: np.ndarray
    is_exponential: bool = False

    @classmethod
    def mean(cls, values: Any) -> "SampleScores":
        """Of a figure that is the mean of a value of each sample."""
        values = np.asarray(values, np.float64)
        return cls(values, np.ones_like(values))

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean of values."""
        return not self.is_exponential and bool((self.denominators == 1).all())

    def value(self, weights: Any = None, rows: Any = ...) -> float:
        """The figure of some samples.

        Args:
            weights: Float64 `[samples]`, or `None`: all are equal.
            rows: Which samples; default: all.
        """
        weights = np.ones(len(self.numerators)) if weights is None else np.asarray(weights)
        sums = [(weights * x)[rows].sum() for x in (self.numerators, self.denominators)]
        ratio = sums[0] / sums[1] if sums[1] else np.nan
        return float(np.exp(ratio) if self.is_exponential else ratio)

    def influences(self, weights: Any = None) -> np.ndarray:
        """A value for each sample whose weighted mean is the figure, to first order in each.

        `R + (a_i - R b_i) / mean(b)`, and of an exponential `exp(R) (1 + (a_i - R b_i) / mean(b))`:
        the deviation of these is that of the figure (the delta method).

        Args:
            weights: Float64 `[samples]`, or `None`.
        """
        weights = np.ones(len(self.numerators)) if weights is None else np.asarray(weights)
        base = np.average(self.denominators, weights=weights)
        ratio = np.average(self.numerators, weights=weights) / base
        steps = (self.numerators - ratio * self.denominators) / base
        return np.exp(ratio) * (1 + steps) if self.is_exponential else ratio + steps
