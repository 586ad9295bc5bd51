"""Float64 NumPy truth of every op, written from the definitions.

It shares no code with the package. `test_reference.py` holds it against 60-digit arithmetic, so
that it can judge float32 results down to divergences of 1e-12. Logits are `[..., classes]`;
per-row values are `[...]`. A logit of -inf is a class of probability zero; a row that holds NaN
or +inf, or nothing but -inf, has no distribution and gives NaN.
"""

import numpy as np

DIVERGENCES = ("forward_kl", "reverse_kl", "jsd")


def log_softmax(logits, temperature=1.0):
    """Log-probabilities of `logits / temperature` along the last axis."""
    with np.errstate(all="ignore"):
        scaled = np.asarray(logits).astype(np.float64) / temperature
        shifted = scaled - scaled.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def kl(log_a, log_b):
    """`KL(a || b) = sum a (log a - log b)` along the last axis.

    Near `a == b` the terms cancel to nothing, so there it sums `a (d + exp(-d) - 1)` with
    `d = log a - log b`: the same sum, since probabilities add up to one, of terms that are never
    negative.
    """
    with np.errstate(all="ignore"):
        a, b, d = np.exp(log_a), np.exp(log_b), log_a - log_b
        near = a * (d + np.expm1(-d))
        far = a * d + b - a
        terms = np.where(np.abs(d) <= 1.0, near, far)
        return np.where(a == 0.0, b, terms).sum(axis=-1)


def soft_target_loss(student, teacher, temperature=1.0, divergence="forward_kl", mixing_weight=0.5):
    """`T^2` times the divergence of the softened teacher p and the softened student q."""
    log_p, log_q = log_softmax(teacher, temperature), log_softmax(student, temperature)
    if divergence == "forward_kl":
        value = kl(log_p, log_q)
    elif divergence == "reverse_kl":
        value = kl(log_q, log_p)
    else:
        log_m = _log_mixture(log_p, log_q, mixing_weight)
        value = mixing_weight * kl(log_p, log_m) + (1.0 - mixing_weight) * kl(log_q, log_m)
    return temperature**2 * value


def soft_target_gradient(
    student, teacher, temperature=1.0, divergence="forward_kl", mixing_weight=0.5
):
    """Derivative of each row's `soft_target_loss` in its student logits."""
    log_p, log_q = log_softmax(teacher, temperature), log_softmax(student, temperature)
    if divergence == "forward_kl":
        return temperature * (np.exp(log_q) - np.exp(log_p))
    if divergence == "reverse_kl":
        return temperature * _kl_gradient(log_q, log_p)
    log_m = _log_mixture(log_p, log_q, mixing_weight)
    return temperature * (1.0 - mixing_weight) * _kl_gradient(log_q, log_m)


def hard_loss(student, labels):
    """Cross-entropy of the student at temperature 1 with integer labels."""
    picked = np.take_along_axis(log_softmax(student), np.asarray(labels)[..., None], axis=-1)
    return -picked[..., 0]


def hard_gradient(student, labels):
    """Derivative of each row's `hard_loss` in its student logits."""
    gradient = np.exp(log_softmax(student))
    labels = np.asarray(labels)[..., None]
    picked = np.take_along_axis(gradient, labels, axis=-1)
    np.put_along_axis(gradient, labels, picked - 1.0, axis=-1)
    return gradient


def _log_mixture(log_p, log_q, weight):
    with np.errstate(all="ignore"):
        return np.logaddexp(np.log(weight) + log_p, np.log1p(-weight) + log_q)


def _kl_gradient(log_q, log_reference):
    """`q (log q - log reference - KL(q || reference))`: zero where q is zero."""
    with np.errstate(all="ignore"):
        q = np.exp(log_q)
        gap = log_q - log_reference - kl(log_q, log_reference)[..., None]
        return np.where(q == 0.0, 0.0, q * gap)
