"""Loss and gradient agree with float64 for every size, temperature, divergence and dtype."""

import functools

import numpy as np
import pytest

from tests import logits, reference, tolerances

CLASSES = [1, 2, 7, 10, 31, 33, 100, 1000, 1001, 32003, 131072]
TEMPERATURES = [0.5, 1.0, 2.0, 4.0, 20.0]
LOW_PRECISION_PAIRS = [pair for pair in logits.DTYPE_PAIRS if pair != ("float32", "float32")]
SOME_PAIRS = [("bfloat16", "bfloat16"), ("float16", "float16"), ("float16", "float32")]
WITH_DIVERGENCES = pytest.mark.parametrize("divergence", reference.DIVERGENCES)


@functools.cache
def _case(rows, classes, temperature, divergence):
    student, teacher = logits.near_teacher(rows, classes, temperature)
    loss = reference.soft_target_loss(student, teacher, temperature, divergence)
    gradient = reference.soft_target_gradient(student, teacher, temperature, divergence)
    return student, teacher, loss, gradient


def _check(mode, rows, classes, temperature, divergence):
    student, teacher, loss, gradient = _case(rows, classes, temperature, divergence)
    actual_loss, actual_gradient = mode.soft(student, teacher, temperature, divergence)
    assert actual_loss.dtype == np.float32
    assert actual_gradient.dtype == np.float32
    tolerances.assert_loss(actual_loss, loss, temperature)
    tolerances.assert_gradient(actual_gradient, gradient, student, teacher, temperature)


@WITH_DIVERGENCES
@pytest.mark.parametrize("classes", [logits.SHORT, logits.LONG])
def test_every_way_in(op_mode, classes, divergence):
    for temperature in TEMPERATURES:
        _check(op_mode, logits.ROWS, classes, temperature, divergence)


@WITH_DIVERGENCES
@pytest.mark.parametrize("classes", CLASSES)
def test_every_class_count(arithmetic, classes, divergence):
    rows = logits.ROWS if classes <= 100 else 8 if classes <= 1001 else 4
    for temperature in TEMPERATURES if classes <= 1001 else [2.0]:
        _check(arithmetic, rows, classes, temperature, divergence)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 31, 1001, 32003])
@pytest.mark.parametrize("op_mode", ["native-xla", "tensorflow-xla"], indirect=True)
def test_class_counts_inside_xla(op_mode, classes):
    for divergence in ("forward_kl", "jsd"):
        _check(op_mode, 8 if classes <= 1001 else 4, classes, 2.0, divergence)


def test_noise_spans_the_promised_divergences():
    """Otherwise the tests above would not cover small divergences."""
    _, _, loss, _ = _case(8, 1000, 1.0, "forward_kl")
    levels = loss.reshape(-1, 4).mean(axis=0)
    np.testing.assert_array_less([0.3, 3e-3, 3e-5, 3e-7], levels)
    np.testing.assert_array_less(levels, [3.0, 3e-2, 3e-4, 3e-6])


@pytest.mark.parametrize("weight", [0.01, 0.3, 0.99])
def test_jsd_mixing_weight(arithmetic, weight):
    for student, teacher in (
        logits.near_teacher(logits.ROWS, logits.SHORT, 2.0),
        logits.far_apart(logits.ROWS, logits.SHORT, scale=10.0),
    ):
        loss, gradient = arithmetic.soft(student, teacher, 2.0, "jsd", mixing_weight=weight)
        expected = reference.soft_target_loss(student, teacher, 2.0, "jsd", weight)
        slope = reference.soft_target_gradient(student, teacher, 2.0, "jsd", weight)
        tolerances.assert_loss(loss, expected, 2.0)
        tolerances.assert_gradient(gradient, slope, student, teacher, 2.0)


@pytest.mark.parametrize("shift", [3.0, 100.0])
@WITH_DIVERGENCES
def test_student_with_another_common_shift(arithmetic, shift, divergence):
    """Softmax does not see a row's common shift, so nothing in training holds it down."""
    student, teacher = logits.near_teacher(logits.ROWS, logits.SHORT, 2.0)
    student += np.float32(shift)
    loss, gradient = arithmetic.soft(student, teacher, 2.0, divergence)
    expected = reference.soft_target_loss(student, teacher, 2.0, divergence)
    slope = reference.soft_target_gradient(student, teacher, 2.0, divergence)
    tolerances.assert_loss(loss, expected, 2.0)
    tolerances.assert_gradient(gradient, slope, student, teacher, 2.0)


@pytest.mark.parametrize("pair", SOME_PAIRS, ids="-".join)
def test_every_way_in_with_low_precision(op_mode, pair):
    _check_low_precision(op_mode, pair, logits.SHORT, "forward_kl")


@WITH_DIVERGENCES
@pytest.mark.parametrize("pair", LOW_PRECISION_PAIRS, ids="-".join)
@pytest.mark.parametrize("classes", [7, 150])
def test_dtype_pairs(arithmetic, pair, classes, divergence):
    _check_low_precision(arithmetic, pair, classes, divergence)


def _check_low_precision(mode, pair, classes, divergence):
    """The inputs are rounded first; only the gradient is rounded again, and only once."""
    student, teacher = logits.near_teacher(logits.ROWS, classes, 2.0, dtypes=pair)
    loss, gradient = mode.soft(student, teacher, 2.0, divergence)
    assert loss.dtype == np.float32
    assert gradient.dtype == student.dtype
    expected = reference.soft_target_loss(student, teacher, 2.0, divergence)
    slope = reference.soft_target_gradient(student, teacher, 2.0, divergence)
    tolerances.assert_loss(loss, expected, 2.0)
    tolerances.assert_gradient(gradient, slope, student, teacher, 2.0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gradient_is_no_worse_than_plain_low_precision_arithmetic(arithmetic, dtype):
    student, teacher = logits.near_teacher(40, 150, 2.0, dtypes=(dtype, dtype))
    _, gradient = arithmetic.soft(student, teacher, 2.0)
    truth = reference.soft_target_gradient(student, teacher, 2.0)
    plain = (_plain_softmax(student, 2.0) - _plain_softmax(teacher, 2.0)) * student.dtype.type(2)
    error = np.abs(gradient.astype(np.float64) - truth).max(axis=-1)
    plain_error = np.abs(plain.astype(np.float64) - truth).max(axis=-1)
    small = tolerances.gradient_limit(student, teacher, 2.0)[:, 0]
    assert (error <= plain_error + small).all()
    assert error.mean() < plain_error.mean() / 2


def _plain_softmax(values, temperature):
    """Softmax that rounds to the dtype of `values` after every step."""
    scaled = values / values.dtype.type(temperature)
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True, dtype=values.dtype)
