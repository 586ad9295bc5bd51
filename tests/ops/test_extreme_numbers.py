"""Logits and temperatures at the ends of float32: overflow, denormals, certainty."""

import numpy as np
import pytest

from tests import logits, reference, tolerances

MAX = float(np.finfo(np.float32).max)
ROWS = logits.ROWS
WITH_DIVERGENCES = pytest.mark.parametrize("divergence", reference.DIVERGENCES)

# (student, teacher) of three classes, whose differences or exponents leave float32.
HUGE = [
    ([1e30, 0.0, -1e30], [1e30, 0.0, -1e30]),
    ([0.0, 1e30, 0.0], [1e30, 0.0, 0.0]),
    ([MAX, -MAX, 0.0], [MAX, -MAX, 0.0]),
    ([-MAX, MAX, 0.0], [MAX, -MAX, 0.0]),
    ([0.0, -MAX, -MAX], [MAX, 0.0, -MAX]),
    ([1.0, 2.0, 3.0], [MAX, -MAX, 0.0]),
    ([1.0, 2.0, 3.0], [1e30, 1e30, 0.0]),
    ([1e30, 1e30, 0.0], [3.0, 2.0, 1.0]),
    ([80.0, -80.0, 0.0], [-80.0, 80.0, 0.0]),
    ([-104.0, 0.0, -88.0], [0.0, -104.0, -88.0]),
    ([-100.0, 0.0, 0.0], [0.0, -90.0, -1000.0]),
    ([1e4, 1e4 + 1, 1e4 - 1], [0.0, 1.0, -2.0]),
]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("classes", [logits.SHORT, logits.LONG])
@WITH_DIVERGENCES
def test_huge_logits(op_mode, temperature, classes, divergence):
    # Each row's three values over and over: their probabilities are shared out.
    pairs = np.resize(np.float32(HUGE), (ROWS, 2, 3)).transpose(1, 0, 2)
    student, teacher = pairs[..., np.arange(classes) % 3]
    loss, gradient = op_mode.soft(student, teacher, temperature, divergence)
    expected = reference.soft_target_loss(student, teacher, temperature, divergence)
    slope = reference.soft_target_gradient(student, teacher, temperature, divergence)
    tolerances.assert_loss(loss, expected, temperature)
    size = np.maximum(1.0, expected) if divergence == "reverse_kl" else np.ones(ROWS)
    rows = size < 1e30  # Beyond, the reverse KL's gradient is inf - inf.
    assert rows.sum() > ROWS // 2
    tolerances.assert_gradient(
        gradient[rows], slope[rows], student[rows], teacher[rows], temperature, size[rows]
    )


def _check(mode, student, teacher, temperature=1.0, divergence="forward_kl"):
    loss, gradient = mode.soft(student, teacher, temperature, divergence)
    exact = float(np.float32(temperature))
    expected = reference.soft_target_loss(student, teacher, exact, divergence)
    slope = reference.soft_target_gradient(student, teacher, exact, divergence)
    tolerances.assert_loss(loss, expected, exact)
    tolerances.assert_gradient(gradient, slope, student, teacher, exact)


@pytest.mark.parametrize("classes", [logits.SHORT, logits.LONG])
def test_rows_of_very_different_size(op_mode, classes):
    """A batch in which some rows need care must not lose precision in the others."""
    student, teacher = logits.near_teacher(ROWS, classes)
    student[0, 7], teacher[1, 7] = 1e30, MAX
    student[2] *= 1e4
    _check(op_mode, student, teacher)


@WITH_DIVERGENCES
def test_denormal_logits_are_all_but_equal(op_mode, divergence):
    student, teacher = logits.far_apart(ROWS, logits.SHORT, scale=1e-40)
    assert student.any()
    loss, gradient = op_mode.soft(student, teacher, divergence=divergence)
    np.testing.assert_allclose(loss, np.zeros(ROWS), rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradient, np.zeros(student.shape), rtol=0, atol=1e-7)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
@WITH_DIVERGENCES
def test_extreme_temperatures(op_mode, temperature, divergence):
    student, teacher = logits.far_apart(ROWS, logits.SHORT)
    if temperature < 1 and divergence == "reverse_kl":
        # Neighboring logits, else no two classes of a row have a probability at once.
        student, teacher = student * np.float32(1e-3), teacher * np.float32(1e-3)
    _check(op_mode, student, teacher, temperature, divergence)


@pytest.mark.parametrize("offset", [256.0, 4096.0])
def test_common_shifts_that_float32_holds_exactly(op_mode, offset):
    rng = np.random.default_rng(0)
    teacher = np.round(rng.uniform(-8, 8, (ROWS, logits.SHORT)) * 1024) / 1024
    student = teacher + np.round(rng.uniform(-1, 1, teacher.shape) * 16) / 1024
    _check(op_mode, np.float32(student), np.float32(teacher + offset))


@WITH_DIVERGENCES
def test_certain_rows(op_mode, divergence):
    """One class holds all but 1e-7 or much less of the probability, as at the end of training."""
    teacher = np.zeros((ROWS, logits.SHORT), np.float32)
    teacher[:, 3] = np.resize([15.0, 18.0, 20.0, 25.0, 40.0, 80.0], ROWS)
    student = teacher.copy()
    student[:, 3] += np.resize(np.float32([0.5, -1.0, 2.0, 3.0, -20.0, 1.0]), ROWS)
    _check(op_mode, student, teacher, divergence=divergence)


@WITH_DIVERGENCES
def test_a_class_that_only_one_of_the_two_believes_in(op_mode, divergence):
    """The probabilities of one class differ by factors up to 1e37."""
    student, teacher = np.zeros((2, ROWS, logits.SHORT), np.float32)
    gap = np.linspace(0.0, 87.0, ROWS, dtype=np.float32)
    student[:, 0] -= gap
    _check(op_mode, student, teacher, divergence=divergence)
    if divergence != "reverse_kl":  # Its slope is then as large as log p, not as q.
        _check(op_mode, teacher, student, divergence=divergence)
