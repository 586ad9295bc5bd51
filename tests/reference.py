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


def sparse_soft_target_loss(student, teacher, indices, tail, temperature=1.0, *options):
    """`soft_target_loss` of the kept classes and one more that pools all others."""
    pooled = pool(student, teacher, indices, tail, temperature)
    return soft_target_loss(*pooled, temperature, *options)


def sparse_soft_target_gradient(student, teacher, indices, tail, temperature=1.0, *options):
    """Derivative of each row's `sparse_soft_target_loss` in its student logits.

    A kept class is a class of the pooled problem; each other class has its share, by its
    probability among them, of the pooled class's slope.
    """
    pooled = pool(student, teacher, indices, tail, temperature)
    slope = soft_target_gradient(*pooled, temperature, *options)
    with np.errstate(all="ignore"):
        share = np.exp(log_softmax(_others(student, indices), temperature))
    everywhere = np.where(np.isneginf(pooled[0][..., -1:]), 0.0, slope[..., -1:] * share)
    np.put_along_axis(everywhere, np.asarray(indices), slope[..., :-1], axis=-1)
    return everywhere


def _others(student, indices):
    others = np.array(student, np.float64)
    np.put_along_axis(others, np.asarray(indices), -np.inf, axis=-1)
    return others


def pool(student, teacher, indices, tail, temperature):
    """Student and teacher logits of the kept classes and, last, of all others pooled."""
    student, teacher = np.asarray(student, np.float64), np.asarray(teacher, np.float64)
    kept = np.take_along_axis(student, np.asarray(indices), axis=-1)
    rest = np.asarray(tail, np.float64)[..., None]
    if kept.shape[-1] == student.shape[-1]:
        rest = np.full_like(rest, -np.inf)
    with np.errstate(all="ignore"):
        pooled = np.logaddexp.reduce(_others(student, indices) / temperature, axis=-1)
    return (
        np.concatenate([kept, temperature * pooled[..., None]], axis=-1),
        np.concatenate([teacher, temperature * rest], axis=-1),
    )


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
