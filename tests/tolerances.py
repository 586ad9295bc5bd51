"""The accuracy that keras_kd promises, against the float64 truth on the same rounded inputs."""

import ml_dtypes
import numpy as np

from tests import reference

LOSS_RELATIVE = 1e-5
# The relative promise holds down to this divergence; below it, its absolute size there holds.
SMALLEST_DIVERGENCE = 1e-6
# Of temperature times the largest probability in the row.
GRADIENT_RELATIVE = 2e-6


def assert_loss(actual, expected, temperature=1.0):
    """Per-row losses within 1e-5 of the truth; infinities and NaN in the same rows."""
    with np.errstate(over="ignore"):
        expected = np.float32(expected)  # What the result can hold.
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])
    actual, expected = np.float64(actual[finite]), np.float64(expected[finite])
    floor = SMALLEST_DIVERGENCE * temperature**2
    limit = LOSS_RELATIVE * np.maximum(np.abs(expected), floor)
    _assert_within(np.abs(actual - expected), limit, "loss")


def assert_gradient(actual, expected, student, teacher, temperature=1.0, size=1.0):
    """Gradient entries within 2e-6 of T times the row's largest probability, then rounded.

    `size` per row multiplies the promise: the upstream factor, or, for the reverse KL of models
    that are far apart, `max(1, KL)`: its gradient `q (log q - log p - KL)` is a difference.
    """
    limit = gradient_limit(student, teacher, temperature) * np.asarray(size)[..., None]
    limit = limit + half_ulp(actual.dtype) * np.abs(expected) + half_subnormal(actual.dtype)
    error = np.abs(actual.astype(np.float64) - expected)
    _assert_within(error, np.broadcast_to(limit, error.shape), "gradient")


def gradient_limit(student, teacher, temperature):
    """The promised absolute error per row, before the result is rounded to its dtype."""
    p = np.exp(reference.log_softmax(teacher, temperature)).max(axis=-1, keepdims=True)
    q = np.exp(reference.log_softmax(student, temperature)).max(axis=-1, keepdims=True)
    return GRADIENT_RELATIVE * temperature * np.maximum(p, q)


def half_ulp(dtype):
    """Relative error of rounding to `dtype`; nothing for float32, whose promise includes it."""
    return 0.0 if dtype == np.float32 else float(ml_dtypes.finfo(dtype).eps) / 2


def half_subnormal(dtype):
    """Absolute error of rounding to `dtype` near zero."""
    return float(ml_dtypes.finfo(dtype).smallest_subnormal) / 2


def _assert_within(error, limit, name):
    # `not <=` also catches NaN, which a maximum or `>` would let through.
    wrong = ~(error <= limit)
    if wrong.any():
        worst = np.argmax(np.where(wrong, np.nan_to_num(error / limit, nan=np.inf), 0.0))
        raise AssertionError(
            f"{wrong.sum()} of {wrong.size} {name} values are outside the promise; the worst, "
            f"at flat index {worst}, is off by {error.flat[worst]:.3g}, "
            f"allowed {limit.flat[worst]:.3g}"
        )
