"""What the tests of `sparse_soft_target_loss` hold results against."""

import numpy as np

from tests import logits, reference, tolerances

# The logarithm of the rest's sum of exponentials is known to this; the loss feels it where teacher
# and student give the rest different mass.
REST_LOGARITHM = 3e-7


def case(rows, classes, kept, temperature=1.0, dtypes=("float32", "float32"), seed=0):
    """Student logits, and a sparse teacher near them with its `kept` largest logits."""
    student, teacher = logits.near_teacher(rows, classes, temperature, seed, dtypes)
    return student, *logits.keep_largest(teacher, kept, temperature, seed)


def kept_counts(classes):
    """1, 2, 5, all but one and all of the classes, as far as there are so many."""
    return sorted({k for k in (1, 2, 5, classes - 1, classes) if 1 <= k <= classes})


def check(mode, inputs, temperature=1.0, divergence="forward_kl", **options):
    """Runs a mode; loss and gradient must be the truth's. Returns the loss."""
    loss, gradient = mode.sparse(*inputs, temperature, divergence, **options)
    assert_close(loss, gradient, inputs, temperature, divergence)
    return loss


def assert_close(loss, gradient, inputs, temperature=1.0, divergence="forward_kl", *options):
    student = inputs[0]
    assert loss.dtype == np.float32
    assert gradient.dtype == student.dtype
    pooled = reference.pool(*inputs, temperature)
    assert_loss(
        loss,
        reference.sparse_soft_target_loss(*inputs, temperature, divergence, *options),
        pooled,
        temperature,
    )
    slope = reference.sparse_soft_target_gradient(*inputs, temperature, divergence, *options)
    tolerances.assert_gradient(gradient, slope, *pooled, temperature)


def assert_loss(actual, expected, pooled, temperature=1.0):
    """As `tolerances.assert_loss`, and what the rest's logarithm adds."""
    p, q = (np.exp(reference.log_softmax(x, temperature))[..., -1] for x in pooled)
    slack = np.nan_to_num(temperature**2 * REST_LOGARITHM * np.abs(p - q))
    nearest = np.clip(np.float64(actual), expected - slack, expected + slack)
    tolerances.assert_loss(actual, np.where(np.isfinite(expected), nearest, expected), temperature)
