"""Are a model's probabilities what they say?"""

import numpy as np

BINS = 15


def reliability(confidence, is_right, weights):
    """The expected calibration error, and the curve that it is made of.

    `ECE = sum_b w_b / w |accuracy_b - confidence_b|` over 15 bins `((b - 1) / 15, b / 15]` of the
    confidence, the probability of the predicted class; `w_b` is the sum of the weights of the rows
    in a bin, `accuracy_b` and `confidence_b` are their weighted means.

    Args:
        confidence: Float64 `[rows]`, in 0 to 1.
        is_right: Bool `[rows]`, whether the predicted class is the true one.
        weights: Float64 `[rows]`.

    Returns:
        `(ece, bins)`: a float, and for each bin `{"low", "high", "count", "weight", "confidence",
        "accuracy"}`; the last two are `None` for an empty bin.

    Reference: Guo et al., "On Calibration of Modern Neural Networks",
    https://arxiv.org/abs/1706.04599
    """
    places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    sums = [
        np.bincount(places, weights=each, minlength=BINS)
        for each in (weights, weights * confidence, weights * is_right)
    ]
    error = np.abs(sums[2] - sums[1]).sum() / sums[0].sum()
    return float(error), [_bin(b, int(counts[b]), *(x[b] for x in sums)) for b in range(BINS)]


def _bin(place, count, weight, confidence, right):
    return {
        "low": place / BINS,
        "high": (place + 1) / BINS,
        "count": count,
        "weight": float(weight),
        "confidence": float(confidence / weight) if count else None,
        "accuracy": float(right / weight) if count else None,
    }
