"""What must hold for any logits: signs, invariances, linearity and the slope of the loss."""

import numpy as np
import pytest
import tensorflow as tf

from tests import logits, reference

pytestmark = pytest.mark.parametrize("divergence", reference.DIVERGENCES)

ROWS, CLASSES = logits.ROWS, logits.SHORT
TEMPERATURE = 2.0


@pytest.fixture
def pair():
    return logits.near_teacher(ROWS, CLASSES, TEMPERATURE)


@pytest.fixture
def exact_pair():
    """Multiples of 1/64 below 16: sums with small integers are exact in float32."""
    student, teacher = logits.far_apart(ROWS, CLASSES, scale=2.0)
    return np.round(student * 64) / 64, np.round(teacher * 64) / 64


def test_never_negative_and_zero_for_equal_logits(op_mode, pair, divergence):
    student, teacher = pair
    loss, _ = op_mode.soft(student, teacher, TEMPERATURE, divergence)
    assert (loss >= 0).all()
    loss, gradient = op_mode.soft(teacher, teacher, TEMPERATURE, divergence)
    assert (loss >= 0).all()
    assert loss.max() <= 1e-12
    assert np.abs(gradient).max() <= 1e-7


def test_a_constant_added_to_a_row_changes_nothing(op_mode, exact_pair, divergence):
    student, teacher = exact_pair
    loss, gradient = op_mode.soft(student, teacher, TEMPERATURE, divergence)
    shift = np.arange(-ROWS, ROWS, 2, dtype=np.float32)[:, None]
    for moved in ((student + shift, teacher), (student, teacher + 64), (student - 64, teacher)):
        shifted_loss, shifted_gradient = op_mode.soft(*moved, TEMPERATURE, divergence)
        np.testing.assert_allclose(shifted_loss, loss, rtol=2e-6)
        np.testing.assert_allclose(shifted_gradient, gradient, rtol=0, atol=1e-6)


def test_order_of_classes_does_not_matter(op_mode, pair, divergence):
    student, teacher = pair
    order = np.random.default_rng(1).permutation(CLASSES)
    loss, gradient = op_mode.soft(student, teacher, TEMPERATURE, divergence)
    moved_loss, moved_gradient = op_mode.soft(
        student[:, order], teacher[:, order], TEMPERATURE, divergence
    )
    np.testing.assert_allclose(moved_loss, loss, rtol=1e-5, atol=1e-11)
    np.testing.assert_allclose(moved_gradient, gradient[:, order], rtol=0, atol=1e-6)


def test_rows_do_not_see_each_other(op_mode, pair, divergence):
    student, teacher = pair
    order = np.random.default_rng(2).permutation(ROWS)
    loss, gradient = op_mode.soft(student, teacher, TEMPERATURE, divergence)
    moved_loss, moved_gradient = op_mode.soft(
        student[order], teacher[order], TEMPERATURE, divergence
    )
    np.testing.assert_allclose(moved_loss, loss[order], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(moved_gradient, gradient[order], rtol=0, atol=1e-7)


def test_gradient_of_a_row_sums_to_zero(op_mode, pair, divergence):
    _, gradient = op_mode.soft(*pair, TEMPERATURE, divergence)
    assert np.abs(gradient).max() > 1e-2
    assert np.abs(gradient.sum(axis=-1, dtype=np.float64)).max() <= 2e-6 * TEMPERATURE


def test_temperature_is_a_scale_of_the_logits(op_mode, pair, divergence):
    """T^2 keeps the gradient's size: logits and temperature times four, loss times sixteen."""
    student, teacher = pair
    loss, gradient = op_mode.soft(student, teacher, TEMPERATURE, divergence)
    hot_loss, hot_gradient = op_mode.soft(4 * student, 4 * teacher, 4 * TEMPERATURE, divergence)
    np.testing.assert_allclose(hot_loss, 16 * loss, rtol=1e-6, atol=1e-11)
    np.testing.assert_allclose(hot_gradient, 4 * gradient, rtol=0, atol=1e-6)


def test_gradient_is_the_slope_of_the_float64_loss(op_mode, pair, divergence):
    student, teacher = pair
    upstream = np.random.default_rng(3).standard_normal(ROWS).astype(np.float32)
    _, gradient = op_mode.soft(student, teacher, TEMPERATURE, divergence, upstream=upstream)
    step = 1e-4
    for column in range(CLASSES):
        shift = step * np.eye(CLASSES)[column]
        above = reference.soft_target_loss(student + shift, teacher, TEMPERATURE, divergence)
        below = reference.soft_target_loss(student - shift, teacher, TEMPERATURE, divergence)
        slope = upstream * (above - below) / (2 * step)
        np.testing.assert_allclose(gradient[:, column], slope, rtol=0, atol=2e-5)


def test_gradient_is_what_tensorflow_derives_from_the_definition(arithmetic, pair, divergence):
    student, teacher = pair
    _, gradient = arithmetic.soft(student, teacher, TEMPERATURE, divergence, mixing_weight=0.25)
    variable = tf.Variable(student, dtype=tf.float64)
    with tf.GradientTape() as tape:
        loss = _definition(variable, tf.constant(teacher, tf.float64), divergence, 0.25)
    expected = tape.gradient(loss, variable).numpy()
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-5)


def _definition(student, teacher, divergence, weight):
    p, q = tf.nn.softmax(teacher / TEMPERATURE), tf.nn.softmax(student / TEMPERATURE)
    m = weight * p + (1 - weight) * q
    value = {
        "forward_kl": _kl(p, q),
        "reverse_kl": _kl(q, p),
        "jsd": weight * _kl(p, m) + (1 - weight) * _kl(q, m),
    }[divergence]
    return TEMPERATURE**2 * value


def _kl(a, b):
    return tf.reduce_sum(a * (tf.math.log(a) - tf.math.log(b)), axis=-1)


def test_upstream_gradient_scales_each_row(op_mode, pair, divergence):
    _, gradient = op_mode.soft(*pair, TEMPERATURE, divergence)
    upstream = np.random.default_rng(4).standard_normal(ROWS).astype(np.float32)
    upstream[:4] = [0.0, -3.0, 65536.0, 1e-6]
    _, scaled = op_mode.soft(*pair, TEMPERATURE, divergence, upstream=upstream)
    np.testing.assert_allclose(scaled, upstream[:, None] * gradient, rtol=1e-6, atol=1e-13)
    assert (scaled[0] == 0).all()


def test_a_nan_upstream_stays_in_its_row(op_mode, pair, divergence):
    upstream = np.ones(ROWS, np.float32)
    upstream[5] = np.nan
    _, gradient = op_mode.soft(*pair, TEMPERATURE, divergence, upstream=upstream)
    np.testing.assert_array_equal(np.isnan(gradient).all(axis=-1), np.isnan(upstream))
    np.testing.assert_array_equal(np.isnan(gradient).any(axis=-1), np.isnan(upstream))


def test_sample_weight_is_linear(arithmetic, pair, divergence):
    loss, gradient = arithmetic.soft(*pair, TEMPERATURE, divergence)
    weight = np.random.default_rng(5).uniform(0.0, 4.0, ROWS).astype(np.float32)
    weight[::5] = 0.0
    weighted, slope = arithmetic.soft(*pair, TEMPERATURE, divergence, sample_weight=weight)
    np.testing.assert_allclose(weighted, weight * loss, rtol=1e-6, atol=1e-13)
    np.testing.assert_allclose(slope, weight[:, None] * gradient, rtol=1e-6, atol=1e-12)


def test_weight_zero_removes_a_row_that_is_not_a_number(op_mode, pair, divergence):
    student, teacher = (values.copy() for values in pair)
    student[3, 2] = teacher[20, 1] = np.nan
    student[ROWS - 1] = np.inf
    weight = np.ones(ROWS, np.float32)
    weight[[3, 20, ROWS - 1]] = 0.0
    loss, gradient = op_mode.soft(student, teacher, TEMPERATURE, divergence, sample_weight=weight)
    assert (loss[[3, 20, ROWS - 1]] == 0).all()
    assert (gradient[[3, 20, ROWS - 1]] == 0).all()
    expected, slope = op_mode.soft(*pair, TEMPERATURE, divergence, sample_weight=weight)
    np.testing.assert_array_equal(loss, expected)
    np.testing.assert_array_equal(gradient, slope)
