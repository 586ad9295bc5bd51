"""Weights of any shape that broadcasts to the rows."""

import numpy as np
import pytest

from tests import logits, reference, tolerances

ROWS, STEPS, CLASSES = 3, 4, 7


@pytest.mark.parametrize(
    "shape", [(), (1,), (STEPS,), (1, STEPS), (ROWS, 1), (ROWS, STEPS)], ids=str
)
def test_weights_broadcast_to_the_rows(arithmetic, shape):
    _check(arithmetic, shape)


def _check(mode, shape):
    student, teacher = logits.near_teacher(ROWS * STEPS, CLASSES)
    student, teacher = (x.reshape(ROWS, STEPS, CLASSES) for x in (student, teacher))
    weight = np.random.default_rng(0).uniform(0.5, 2.0, shape).astype(np.float32)
    loss, gradient = mode.soft(student, teacher, sample_weight=weight)
    expected = np.broadcast_to(weight, (ROWS, STEPS)) * reference.soft_target_loss(student, teacher)
    slope = np.asarray(weight * np.ones((ROWS, STEPS)))[..., None]
    slope = slope * reference.soft_target_gradient(student, teacher)
    assert loss.shape == (ROWS, STEPS)
    assert gradient.shape == student.shape
    tolerances.assert_loss(loss, expected)
    tolerances.assert_gradient(gradient, slope, student, teacher, size=2.0)


def test_every_way_in(op_mode):
    _check(op_mode, (ROWS, 1))


def test_weights_of_other_types_are_numbers_too(arithmetic):
    """Keras hands over masks as bool, and class weights as float64 or integers."""
    student, teacher = logits.near_teacher(8, CLASSES)
    plain = np.array([0, 1, 1, 0, 1, 0, 1, 1], np.float32)
    expected, slope = arithmetic.soft(student, teacher, sample_weight=plain)
    for dtype in (bool, np.int32, np.float64, np.float16):
        loss, gradient = arithmetic.soft(student, teacher, sample_weight=plain.astype(dtype))
        np.testing.assert_array_equal(loss, expected)
        np.testing.assert_array_equal(gradient, slope)
