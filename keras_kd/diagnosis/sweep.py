"""Sums over rows at many temperatures: what calibration needs, in one pass over the data.

A temperature cannot be searched for without going through the data again and again, or keeping all
logits. Instead the negative log-likelihood and its first two derivatives in `log T` are summed at
49 temperatures from 1/8 to 32. Between two neighbours a cubic through values and slopes is exact to
about 1e-5 of the temperature. It takes 0.03 s of processor time for 1000 rows of 10 classes, and
0.5 s of 1000.
"""

import numpy as np

# Neighbours differ by 12 %.
GRID = 2.0 ** (np.arange(-18, 31) / 6)
BINS = 15


class TemperatureSweep:
    """Sums over labelled rows, at each of some temperatures.

    Args:
        temperatures: More than those of the grid, such as the one of distillation.

    Attributes:
        temperatures: All of them, rising.
    """

    def __init__(self, *temperatures):
        self.temperatures = np.unique(np.concatenate([GRID, [1.0], temperatures]))
        count = len(self.temperatures)
        self.weight = self.squares = self.sure = 0.0
        self.nll, self.slope, self.curvature, self.entropy = np.zeros((4, count))
        # For each bin of confidence: weight, confidence and right answers.
        self.bins = np.zeros((count, BINS, 3))

    def add(self, logits, labels, weights):
        """Takes rows in: finite logits `[rows, classes]`, the largest 0; labels and weights."""
        of_label = logits[np.arange(len(labels)), labels]
        squares = logits * logits
        right = logits.argmax(axis=-1) == labels
        self.weight += weights.sum()
        self.squares += (weights**2).sum()
        for k, temperature in enumerate(self.temperatures):
            e = np.exp(logits / temperature)
            total = e.sum(axis=-1)
            # Of the logits divided by the temperature, under the softened probabilities.
            mean = np.einsum("rc,rc->r", e, logits) / (total * temperature)
            second = np.einsum("rc,rc->r", e, squares) / (total * temperature**2)
            label, log_total = of_label / temperature, np.log(total)
            self.nll[k] += weights @ (log_total - label)
            self.slope[k] += weights @ (label - mean)
            self.curvature[k] += weights @ (mean + np.maximum(second - mean**2, 0.0) - label)
            self.entropy[k] += weights @ (log_total - mean)
            confidence = 1.0 / total
            self._add_bins(k, confidence, right, weights)
            if temperature == 1.0:
                self.sure += weights @ (confidence > 0.99)

    def _add_bins(self, k, confidence, right, weights):
        # Bin b holds confidences above b / 15 and up to (b + 1) / 15.
        bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        sums = np.stack([weights, weights * confidence, weights * right], axis=-1)
        np.add.at(self.bins[k], bins, sums)

    def at(self, temperature):
        """Index of one of the temperatures."""
        return int(np.flatnonzero(self.temperatures == temperature)[0])

    def mean(self, name, temperature):
        """Mean over the rows of `"nll"` or `"entropy"` (in nats) at one of the temperatures."""
        return float(getattr(self, name)[self.at(temperature)] / self.weight)

    def confidence(self):
        """Mean probability of the likeliest class at each temperature."""
        return self.bins[:, :, 1].sum(axis=-1) / self.weight

    def accuracy(self):
        """Share of right answers."""
        return float(self.bins[0, :, 2].sum() / self.weight)

    def calibration_errors(self):
        """Expected calibration error at each temperature."""
        return np.abs(self.bins[:, :, 2] - self.bins[:, :, 1]).sum(axis=-1) / self.weight

    def noise(self):
        """The calibration error to expect at T = 1 of a calibrated model, for so few rows.

        In a bin of `n` rows and confidence `c` the share of right answers misses `c` by `sqrt(2 c
        (1 - c) / (pi n))` on average.
        """
        weight, confidence, _ = self.bins[self.at(1.0)].T
        held = weight > 0
        share = weight[held] / self.weight
        c = np.clip(confidence[held] / weight[held], 0.0, 1.0)
        rows = share * self.weight**2 / self.squares
        return float(np.sum(share * np.sqrt(2 * c * (1 - c) / (np.pi * rows))))

    def fit(self):
        """The temperature of the least negative log-likelihood.

        Returns:
            `(temperature, nll, calibration_error)`, or `None` where it lies outside 1/8 to 32 or
            nowhere, as of a teacher that is always right.
        """
        # In 1 / T the likelihood is convex, so its slope changes its sign once.
        falling = np.flatnonzero(self.slope < 0)
        if not len(falling) or falling[-1] == len(self.slope) - 1:
            return None
        k = falling[-1]
        u = np.log(self.temperatures[k : k + 2])
        width = u[1] - u[0]
        slope = _cubic(self.slope[k : k + 2], width * self.curvature[k : k + 2])
        s = _root(slope)
        nll = _cubic(self.nll[k : k + 2], width * self.slope[k : k + 2])(s) / self.weight
        errors = self.calibration_errors()[k : k + 2]
        error = (1 - s) * errors[0] + s * errors[1]
        return float(np.exp(u[0] + s * width)), float(nll), float(error)


def _cubic(values, slopes):
    """Hermite's cubic on 0 to 1 through two values with two slopes."""

    def at(s):
        past, left = s * s * (3 - 2 * s), s * (1 - s)
        return (
            (1 - past) * values[0] + past * values[1] + left * ((1 - s) * slopes[0] - s * slopes[1])
        )

    return at


def _root(function):
    """Where a function that is below 0 at 0, and not at 1, crosses 0."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if function(middle) > 0 else (middle, high)
    return 0.5 * (low + high)
