"""The float64 truth that judges the kernels agrees with 60-digit arithmetic and its own slope."""

import decimal
import math

import numpy as np
import pytest

from tests import reference

DIGITS = 60


def _decimal_softmax(logits, temperature):
    exponentials = [
        (decimal.Decimal(float(x)) / decimal.Decimal(float(temperature))).exp() for x in logits
    ]
    total = sum(exponentials)
    return [value / total for value in exponentials]


def _decimal_kl(a, b):
    return sum(x * (x.ln() - y.ln()) for x, y in zip(a, b, strict=True))


def _decimal_loss(student, teacher, temperature, divergence, weight):
    p, q = _decimal_softmax(teacher, temperature), _decimal_softmax(student, temperature)
    if divergence == "forward_kl":
        value = _decimal_kl(p, q)
    elif divergence == "reverse_kl":
        value = _decimal_kl(q, p)
    else:
        w = decimal.Decimal(weight)
        m = [w * x + (1 - w) * y for x, y in zip(p, q, strict=True)]
        value = w * _decimal_kl(p, m) + (1 - w) * _decimal_kl(q, m)
    return float(value * decimal.Decimal(float(temperature)) ** 2)


@pytest.mark.parametrize("divergence", reference.DIVERGENCES)
@pytest.mark.parametrize("noise", [3.0, 1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_loss_matches_60_digits(divergence, noise, temperature):
    rng = np.random.default_rng(0)
    teacher = 4.0 * rng.standard_normal(9)
    student = teacher + noise * rng.standard_normal(9)
    with decimal.localcontext(prec=DIGITS):
        expected = _decimal_loss(student, teacher, temperature, divergence, 0.25)
    actual = reference.soft_target_loss(student, teacher, temperature, divergence, 0.25)
    # Inputs round at 1e-16 and the smallest differences here are 1e-6.
    assert actual == pytest.approx(expected, rel=1e-8)


def test_smallest_divergence_of_the_check_is_about_1e_12():
    rng = np.random.default_rng(0)
    teacher = 4.0 * rng.standard_normal(9)
    student = teacher + 1e-6 * rng.standard_normal(9)
    assert 1e-14 < reference.soft_target_loss(student, teacher) < 1e-11


@pytest.mark.parametrize("divergence", reference.DIVERGENCES)
@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_gradient_is_the_slope_of_the_loss(divergence, temperature):
    rng = np.random.default_rng(1)
    student, teacher = 2.0 * rng.standard_normal((2, 9))
    step = 1e-5
    shifts = step * np.eye(9)
    above = reference.soft_target_loss(student + shifts, teacher, temperature, divergence, 0.25)
    below = reference.soft_target_loss(student - shifts, teacher, temperature, divergence, 0.25)
    gradient = reference.soft_target_gradient(student, teacher, temperature, divergence, 0.25)
    np.testing.assert_allclose(gradient, (above - below) / (2 * step), rtol=1e-7, atol=1e-9)


def test_hard_loss_and_its_slope():
    student = np.array([[1.0, 2.0, 0.5], [0.0, 0.0, 0.0]])
    labels = np.array([1, 2])
    total = math.exp(1.0) + math.exp(2.0) + math.exp(0.5)
    expected = [math.log(total) - 2.0, math.log(3.0)]
    np.testing.assert_allclose(reference.hard_loss(student, labels), expected, rtol=1e-14)
    shifts = 1e-5 * np.eye(3)[:, None, :]
    slope = reference.hard_loss(student + shifts, np.stack([labels] * 3))
    slope = (slope - reference.hard_loss(student - shifts, np.stack([labels] * 3))) / 2e-5
    np.testing.assert_allclose(
        reference.hard_gradient(student, labels), slope.T, rtol=1e-7, atol=1e-10
    )


def test_values_computed_by_hand():
    """p = (3/4, 1/4) and q = (1/2, 1/2)."""
    teacher, student = np.log([3.0, 1.0]), np.zeros(2)
    forward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    backward = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    mixed = 0.5 * (0.75 * math.log(6 / 5) + 0.25 * math.log(2 / 3))
    mixed += 0.5 * (0.5 * math.log(4 / 5) + 0.5 * math.log(4 / 3))
    for divergence, expected in zip(reference.DIVERGENCES, (forward, backward, mixed), strict=True):
        actual = reference.soft_target_loss(student, teacher, divergence=divergence)
        assert actual == pytest.approx(expected, rel=1e-13)
    gradient = reference.soft_target_gradient(student, teacher)
    np.testing.assert_allclose(gradient, [-0.25, 0.25], rtol=1e-14)


def test_zero_probabilities():
    teacher, student = np.array([0.0, 0.0, -np.inf]), np.array([0.0, -np.inf, 0.0])
    both = np.array([0.0, -np.inf, -np.inf])
    assert reference.soft_target_loss(teacher, teacher) == 0.0
    assert reference.soft_target_loss(student, teacher) == np.inf
    assert reference.soft_target_loss(student, teacher, divergence="reverse_kl") == np.inf
    assert reference.soft_target_loss(both, both, divergence="jsd") == 0.0
    # p = (1/2, 1/2, 0), q = (1/2, 0, 1/2): the halves that do not overlap carry log 2 each.
    jsd = reference.soft_target_loss(student, teacher, divergence="jsd")
    assert jsd == pytest.approx(0.5 * math.log(2.0), rel=1e-14)
    np.testing.assert_allclose(
        reference.soft_target_gradient(student, teacher), [0.0, -0.5, 0.5], atol=1e-15
    )


@pytest.mark.parametrize("row", [[0.0, np.nan], [0.0, np.inf], [-np.inf, -np.inf]])
def test_rows_without_a_distribution_are_nan(row):
    fine = np.zeros(2)
    for divergence in reference.DIVERGENCES:
        assert np.isnan(reference.soft_target_loss(np.array(row), fine, divergence=divergence))
        assert np.isnan(reference.soft_target_loss(fine, np.array(row), divergence=divergence))
