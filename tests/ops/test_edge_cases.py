"""Infinities, NaN and impossible classes; each spoils no more than its own row."""

import numpy as np
import pytest

from tests import logits, reference, tolerances

INF, NAN = np.inf, np.nan
ROWS = logits.ROWS
WITH_DIVERGENCES = pytest.mark.parametrize("divergence", reference.DIVERGENCES)
WITH_CLASSES = pytest.mark.parametrize("classes", [logits.SHORT, logits.LONG])


def _check(mode, student, teacher, divergence):
    loss, gradient = mode.soft(student, teacher, divergence=divergence)
    expected = reference.soft_target_loss(student, teacher, divergence=divergence)
    tolerances.assert_loss(loss, expected)
    slope = reference.soft_target_gradient(student, teacher, divergence=divergence)
    size = np.maximum(1.0, expected) if divergence == "reverse_kl" else 1.0
    tolerances.assert_gradient(gradient, slope, student, teacher, size=size)
    return loss


def _forbid(classes, who):
    """Logits with -inf at the first, the last and two middle classes of rows 0, 1 and 39."""
    student, teacher = logits.far_apart(ROWS, classes)
    for row, column in ((0, 0), (1, classes - 1), (ROWS - 1, 3), (ROWS - 1, 4)):
        if who in ("student", "both"):
            student[row, column] = -INF
        if who in ("teacher", "both"):
            teacher[row, column] = -INF
    if who == "both":  # One class is left.
        student[2, 1:] = teacher[2, 1:] = -INF
    return student, teacher


FORBIDDEN_ROWS = np.isin(np.arange(ROWS), [0, 1, ROWS - 1])


@WITH_CLASSES
@pytest.mark.parametrize(
    ("divergence", "who"),
    [
        ("forward_kl", "teacher"),
        ("forward_kl", "both"),
        ("reverse_kl", "student"),
        ("reverse_kl", "both"),
        ("jsd", "student"),
        ("jsd", "teacher"),
        ("jsd", "both"),
    ],
)
def test_impossible_classes_cost_nothing(op_mode, divergence, who, classes):
    loss = _check(op_mode, *_forbid(classes, who), divergence)
    assert np.isfinite(loss).all()


@WITH_CLASSES
def test_forward_kl_is_infinite_where_the_student_rules_out_a_likely_class(op_mode, classes):
    loss = _check(op_mode, *_forbid(classes, "student"), "forward_kl")
    np.testing.assert_array_equal(np.isposinf(loss), FORBIDDEN_ROWS)


@WITH_CLASSES
def test_reverse_kl_is_infinite_where_the_teacher_rules_out_a_likely_class(op_mode, classes):
    loss, _ = op_mode.soft(*_forbid(classes, "teacher"), divergence="reverse_kl")
    np.testing.assert_array_equal(np.isposinf(loss), FORBIDDEN_ROWS)
    assert not np.isnan(loss).any()


def _bad_value(kind):
    if kind == "payload":  # Sign set and bits in the mantissa.
        return np.array(0xFFE12345, np.uint32).view(np.float32)
    return {"nan": np.float32(NAN), "inf": np.float32(INF)}[kind]


@WITH_CLASSES
@WITH_DIVERGENCES
@pytest.mark.parametrize("kind", ["nan", "payload", "inf"])
def test_nan_and_infinity_spoil_their_row_only(op_mode, kind, classes, divergence):
    clean_student, clean_teacher = logits.near_teacher(ROWS, classes)
    student, teacher = clean_student.copy(), clean_teacher.copy()
    student[1, 0] = teacher[6, classes - 1] = student[38, 3] = teacher[38, 4] = _bad_value(kind)
    loss, gradient = op_mode.soft(student, teacher, divergence=divergence)
    spoilt = np.isin(np.arange(ROWS), [1, 6, 38])
    np.testing.assert_array_equal(np.isnan(loss), spoilt)
    np.testing.assert_array_equal(np.isnan(gradient).any(axis=-1), spoilt)
    clean_loss, clean_gradient = op_mode.soft(clean_student, clean_teacher, divergence=divergence)
    np.testing.assert_array_equal(loss[~spoilt], clean_loss[~spoilt])
    np.testing.assert_array_equal(gradient[~spoilt], clean_gradient[~spoilt])


@WITH_CLASSES
@WITH_DIVERGENCES
def test_a_row_of_minus_infinity_has_no_distribution(op_mode, classes, divergence):
    student, teacher = logits.near_teacher(ROWS, classes)
    student[0] = teacher[2] = student[39] = teacher[39] = -INF
    loss, _ = op_mode.soft(student, teacher, divergence=divergence)
    np.testing.assert_array_equal(np.isnan(loss), np.isin(np.arange(ROWS), [0, 2, 39]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_nan_and_infinity_of_low_precision(op_mode, dtype):
    student, teacher = logits.near_teacher(ROWS, logits.SHORT, dtypes=(dtype, dtype))
    student[1, 0], teacher[6, 9], student[39] = NAN, INF, -INF
    teacher[2, 0] = student[3, 0] = -INF
    loss, gradient = op_mode.soft(student, teacher)
    spoilt = np.isin(np.arange(ROWS), [1, 6, 39])
    np.testing.assert_array_equal(np.isnan(loss), spoilt)
    np.testing.assert_array_equal(np.isnan(gradient.astype(np.float32)).any(axis=-1), spoilt)
    assert np.isposinf(loss[3])
    expected = reference.soft_target_loss(student, teacher)
    tolerances.assert_loss(loss[~spoilt], expected[~spoilt])
