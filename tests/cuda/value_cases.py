"""Random rows on a device, and their losses and gradients held against the float64 truth."""

import numpy as np

from tests import reference, tolerances
from tests.cuda.kernel_device import DTYPES

CLASSES = [1, 7, 10, 31, 32, 33, 1000, 1001, 1024, 1025, 8000, 12001, 32003, 131072]
MIXING_WEIGHT = 0.3
# A GPU's exponentials are off by up to 2 ulp, 2.4e-7; the CPU's by a half.
GRADIENT_SIZE = 2.0


def rows_of(classes):
    """Enough rows for a second block; few where they are long."""
    return 66 if classes <= 32 else 33 if classes <= 64 else 3 if classes <= 8000 else 1


def make(classes, student, teacher, seed=0):
    rng = np.random.default_rng(seed)
    rows = rows_of(classes)
    logits = rng.normal(0.0, 2.0, (2, rows, classes)).astype(np.float32)
    labels = rng.integers(0, classes, rows)
    weights = (0.25 + rng.random((2, rows))).astype(np.float32)
    return logits[0].astype(DTYPES[student]), logits[1].astype(DTYPES[teacher]), labels, weights


def check(device, classes, student, teacher, divergence, hard, temperature, **options):
    s, t, labels, (hard_weight, soft_weight) = make(classes, student, teacher)
    arguments = {"divergence": divergence, "mixing_weight": MIXING_WEIGHT}
    if hard:
        arguments.update(labels=labels, hard_weight=hard_weight)
    found_hard, soft, gradient = device.run(
        s, t, temperature=temperature, soft_weight=soft_weight, **arguments, **options
    )
    truth = (temperature, divergence, MIXING_WEIGHT)
    tolerances.assert_loss(soft, reference.soft_target_loss(s, t, *truth), temperature)
    slope = soft_weight[:, None] * reference.soft_target_gradient(s, t, *truth)
    size = soft_weight.copy()
    if divergence == "reverse_kl":  # a difference of numbers of this size
        size *= np.maximum(1.0, reference.soft_target_loss(s, t, *truth) / temperature**2)
    if hard:
        tolerances.assert_loss(found_hard, reference.hard_loss(s, labels))
        slope += hard_weight[:, None] * reference.hard_gradient(s, labels)
        # Its largest entry is the label's, up to 1.
        soft_limit = tolerances.gradient_limit(s, t, temperature)[:, 0]
        size += hard_weight * tolerances.GRADIENT_RELATIVE / soft_limit
    tolerances.assert_gradient(gradient, slope, s, t, temperature, GRADIENT_SIZE * size)
