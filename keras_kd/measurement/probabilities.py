"""Logits and probabilities: told apart, and made of each other."""

import numpy as np

from keras_kd.diagnosis import rows

# Sums of probabilities in 8 bits are off by half a step of 1 / 256 for each class.
_STEP = 1 / 256
# Float32 probabilities sum to 1 up to this.
_ROUNDING = 1e-3


def check(name, values, from_logits, sums_to_one):
    """Raises if outputs are not what the user says they are.

    Args:
        name: Of the model.
        values: Float64 `[rows, ...]`.
        from_logits: What the user says.
        sums_to_one: Whether the probabilities of a row do.
    """
    are_shares = bool((values >= 0).all() and (values <= 1 + _ROUNDING).all())
    if from_logits and are_shares and _look_like_probabilities(values, sums_to_one):
        raise ValueError(
            f"The outputs of {name} are probabilities. Say so: from_logits=False (of a teacher "
            "alone: teacher_from_logits=False)."
        )
    if from_logits:
        return
    if not are_shares or (sums_to_one and not _sum_to_one(values)):
        raise ValueError(
            f"The outputs of {name} are no probabilities: they lie from {values.min():.3g} to "
            f"{values.max():.3g}"
            + (f", a row sums to {values.sum(axis=-1).max():.3g}" if sums_to_one else "")
            + ". Of logits say from_logits=True (of a teacher alone: teacher_from_logits=True)."
        )


def _sum_to_one(values):
    # At most a half: 0 throughout is no distribution of many classes.
    tolerance = max(_ROUNDING, min(values.shape[-1] * _STEP, 0.5))
    return bool((abs(values.sum(axis=-1) - 1) < tolerance).all())


def _look_like_probabilities(values, sums_to_one):
    if sums_to_one:
        return _sum_to_one(values)
    # Logits of a trained model have both signs, and probabilities of two classes lie on both sides
    # of a half. Logits of zero weights, or of a model that says the same of all rows, do neither.
    return len(values) > 1 and bool((values < 0.5).any() and ((values > 0.5) & (values < 1)).any())


def to_logits(values, from_logits, is_yes_or_no):
    """Finite logits, the largest of each row 0.

    Args:
        values: Float64 `[rows, classes]`, or `[rows, ...]` of yes against no.
        from_logits: Whether they are logits, else probabilities.
        is_yes_or_no: Whether each number is a question of its own.

    Returns:
        Float64 `[rows, classes]`. Of yes or no one dimension more, `[..., 2]`: no and yes.
    """
    if is_yes_or_no:
        values = values if from_logits else np.clip(values, 0.0, 1.0)
        other = np.zeros_like(values) if from_logits else 1 - values
        values = np.stack([other, values], axis=-1)
    return rows.to_logits(values, from_logits)


def logs(logits):
    """Logarithms of the probabilities over the last dimension, of logits of at most 0."""
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
