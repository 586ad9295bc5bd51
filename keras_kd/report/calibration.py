"""Confidence against accuracy, for each model."""

import numpy as np


def curve(entrant):
    """The reliability curve of a model: all of its seeds together.

    Returns:
        A list of `{"confidence", "accuracy", "count"}`, one for each bin that has rows; `[]` where
        nothing was measured.
    """
    bins: dict = {}
    for measurement in entrant.measurements:
        for row in measurement.reliability or []:
            if row["count"]:
                bins.setdefault((row["low"], row["high"]), []).append(row)
    return [_pooled(bins[key]) for key in sorted(bins)]


def _pooled(rows):
    counts = np.array([row["count"] for row in rows])
    weights = np.array([row.get("weight", row["count"]) for row in rows], np.float64)
    weights /= weights.sum()
    return {
        "confidence": float(weights @ [row["confidence"] for row in rows]),
        "accuracy": float(weights @ [row["accuracy"] for row in rows]),
        "count": int(counts.sum()),
    }
