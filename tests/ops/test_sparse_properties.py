"""What must hold for any sparse teacher: bounds, invariances, the slope, odd rows, weights."""

import numpy as np
import pytest
import tensorflow as tf

from keras_kd import ops
from tests import logits, matrix, reference, tolerances
from tests.ops import sparse_checks

ROWS, CLASSES, KEPT = logits.ROWS, logits.SHORT, 3
TEMPERATURE = 2.0
INF = np.inf
WITH_DIVERGENCES = pytest.mark.parametrize("divergence", reference.DIVERGENCES)
WITH_CLASSES = pytest.mark.parametrize("classes", [logits.SHORT, logits.LONG])


@pytest.fixture
def inputs():
    return sparse_checks.case(ROWS, CLASSES, KEPT, TEMPERATURE)


@WITH_DIVERGENCES
def test_never_negative_and_zero_for_equal_models(arithmetic, inputs, divergence):
    loss, _ = arithmetic.sparse(*inputs, TEMPERATURE, divergence)
    assert (loss >= 0).all()
    _, teacher = logits.near_teacher(ROWS, CLASSES, TEMPERATURE)
    kept = logits.keep_largest(teacher, KEPT, TEMPERATURE)
    loss, gradient = arithmetic.sparse(teacher, *kept, TEMPERATURE, divergence)
    assert (loss >= 0).all()
    assert loss.max() <= 1e-11
    assert np.abs(gradient).max() <= 1e-6


@WITH_DIVERGENCES
def test_a_lower_bound_of_the_full_divergence(arithmetic, divergence):
    student, teacher = logits.far_apart(ROWS, CLASSES)
    full = reference.soft_target_loss(student, teacher, TEMPERATURE, divergence)
    losses = [
        arithmetic.sparse(
            student, *logits.keep_largest(teacher, kept, TEMPERATURE), TEMPERATURE, divergence
        )[0]
        for kept in (1, 3, 6, CLASSES)
    ]
    for less, more in zip(losses, [*losses[1:], full], strict=True):
        assert (less <= more * (1 + 1e-5)).all()
    assert (losses[0] < 0.9 * full).any()


@WITH_DIVERGENCES
def test_a_rest_that_is_shared_out_alike_costs_nothing(arithmetic, divergence):
    """The student's rest is the teacher's but for a constant."""
    student, teacher = logits.near_teacher(ROWS, CLASSES, TEMPERATURE)
    kept = logits.keep_largest(teacher, KEPT, TEMPERATURE)
    alike = teacher + np.float32(0.5)
    np.put_along_axis(alike, kept[1], np.take_along_axis(student, kept[1], -1), -1)
    full = reference.soft_target_loss(alike, teacher, TEMPERATURE, divergence)
    loss, _ = arithmetic.sparse(alike, *kept, TEMPERATURE, divergence)
    np.testing.assert_allclose(loss, full, rtol=2e-5, atol=1e-9)


@WITH_CLASSES
@WITH_DIVERGENCES
def test_all_classes_kept_is_the_dense_loss(arithmetic, classes, divergence):
    student, teacher = logits.near_teacher(ROWS, classes, TEMPERATURE)
    values, indices, _ = logits.keep_largest(teacher, classes, TEMPERATURE)
    tail = np.resize(np.float32([3.0, -INF, np.nan]), ROWS)  # not looked at
    loss, gradient = arithmetic.sparse(student, values, indices, tail, TEMPERATURE, divergence)
    expected = reference.soft_target_loss(student, teacher, TEMPERATURE, divergence)
    slope = reference.soft_target_gradient(student, teacher, TEMPERATURE, divergence)
    tolerances.assert_loss(loss, expected, TEMPERATURE)
    tolerances.assert_gradient(gradient, slope, student, teacher, TEMPERATURE)


def test_kept_classes_have_the_dense_gradient_of_the_forward_kl(arithmetic):
    student, teacher = logits.far_apart(ROWS, logits.LONG)
    kept = logits.keep_largest(teacher, 5, TEMPERATURE)
    _, gradient = arithmetic.sparse(student, *kept, TEMPERATURE)
    _, dense = arithmetic.soft(student, teacher, TEMPERATURE)
    actual, expected = (np.take_along_axis(x, kept[1], axis=-1) for x in (gradient, dense))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6)


@WITH_DIVERGENCES
def test_a_constant_added_to_a_row_changes_nothing(arithmetic, divergence):
    student, teacher = (np.round(x * 64) / 64 for x in logits.far_apart(ROWS, CLASSES))
    values, indices, tail = logits.keep_largest(teacher, KEPT, TEMPERATURE)
    loss, gradient = arithmetic.sparse(student, values, indices, tail, TEMPERATURE, divergence)
    shift = np.arange(-ROWS, ROWS, 2, dtype=np.float32)
    for moved in (
        (student + shift[:, None], values, indices, tail),
        (student, values + shift[:, None], indices, tail + shift / np.float32(TEMPERATURE)),
    ):
        moved_loss, moved_gradient = arithmetic.sparse(*moved, TEMPERATURE, divergence)
        np.testing.assert_allclose(moved_loss, loss, rtol=1e-5)  # the tail is rounded
        np.testing.assert_allclose(moved_gradient, gradient, rtol=0, atol=1e-5)


@WITH_DIVERGENCES
def test_gradient_of_a_row_sums_to_zero(arithmetic, inputs, divergence):
    _, gradient = arithmetic.sparse(*inputs, TEMPERATURE, divergence)
    assert np.abs(gradient).max() > 1e-2
    assert np.abs(gradient.sum(axis=-1, dtype=np.float64)).max() <= 2e-6 * TEMPERATURE


@WITH_DIVERGENCES
def test_gradient_is_the_slope_of_the_float64_loss(arithmetic, inputs, divergence):
    student, *teacher = inputs
    upstream = np.random.default_rng(3).standard_normal(ROWS).astype(np.float32)
    _, gradient = arithmetic.sparse(*inputs, TEMPERATURE, divergence, upstream=upstream)
    step = 1e-4
    for column in range(CLASSES):
        shift = step * np.eye(CLASSES)[column]
        above, below = (
            reference.sparse_soft_target_loss(moved, *teacher, TEMPERATURE, divergence)
            for moved in (student + shift, student - shift)
        )
        slope = upstream * (above - below) / (2 * step)
        np.testing.assert_allclose(gradient[:, column], slope, rtol=0, atol=2e-5)


@WITH_DIVERGENCES
def test_a_rest_of_almost_nothing(arithmetic, divergence):
    """1 minus the kept probabilities would be zero, and the rest's exponentials beside theirs."""
    student, teacher = logits.near_teacher(ROWS, CLASSES)
    values, indices, tail = logits.keep_largest(teacher, KEPT)
    lift = np.linspace(20.0, 180.0, ROWS, dtype=np.float32)[:, None]
    kept = np.take_along_axis(student, indices, -1) + lift
    np.put_along_axis(student, indices, kept, -1)
    inputs = student, values + lift - 1, indices, tail
    assert np.isfinite(sparse_checks.check(arithmetic, inputs, 1.0, divergence)).all()


@WITH_CLASSES
@pytest.mark.parametrize("scale", [300.0, 1e30])
def test_huge_logits(arithmetic, classes, scale):
    student, teacher = logits.far_apart(ROWS, classes, scale=scale)
    inputs = student, *logits.keep_largest(teacher, 5)
    if scale > 1e6:  # float32 holds no sum of these
        inputs = (*inputs[:3], np.full(ROWS, -INF, np.float32))
    sparse_checks.check(arithmetic, inputs)


@WITH_CLASSES
@WITH_DIVERGENCES
def test_a_student_without_a_rest(arithmetic, classes, divergence):
    """-inf in all other classes, and no mass in the teacher's: nothing is lost or learned there."""
    student, values, indices, tail = sparse_checks.case(ROWS, classes, KEPT)
    kept = np.take_along_axis(student, indices, -1)
    student[::3] = -INF
    np.put_along_axis(student, indices, kept, -1)
    tail[::3] = -INF
    inputs = student, values, indices, tail
    assert np.isfinite(sparse_checks.check(arithmetic, inputs, divergence=divergence)).all()


def test_a_rest_that_only_the_teacher_has_is_infinitely_far(arithmetic):
    student, values, indices, tail = sparse_checks.case(ROWS, CLASSES, KEPT)
    kept = np.take_along_axis(student, indices, -1)
    student[5] = -INF
    np.put_along_axis(student, indices, kept, -1)
    loss, gradient = arithmetic.sparse(student, values, indices, tail)
    np.testing.assert_array_equal(np.isposinf(loss), np.arange(ROWS) == 5)
    assert not np.isnan(gradient).any()


@WITH_CLASSES
@pytest.mark.parametrize("bad", [np.nan, INF])
def test_nan_and_infinity_spoil_their_row_only(arithmetic, classes, bad):
    clean = sparse_checks.case(ROWS, classes, KEPT)
    student, values, indices, tail = (x.copy() for x in clean)
    student[1, indices[1, 0]] = values[6, 1] = tail[7] = bad
    student[38, np.setdiff1d(np.arange(classes), indices[38])[0]] = bad
    loss, gradient = arithmetic.sparse(student, values, indices, tail)
    spoilt = np.isin(np.arange(ROWS), [1, 6, 7, 38])
    np.testing.assert_array_equal(np.isnan(loss), spoilt)
    np.testing.assert_array_equal(np.isnan(gradient).any(axis=-1), spoilt)
    clean_loss, clean_gradient = arithmetic.sparse(*clean)
    np.testing.assert_array_equal(loss[~spoilt], clean_loss[~spoilt])
    np.testing.assert_array_equal(gradient[~spoilt], clean_gradient[~spoilt])


def test_weight_zero_removes_a_row_whatever_it_holds(op_mode, inputs):
    student, values, indices, tail = (x.copy() for x in inputs)
    student[3, 2] = values[20, 1] = tail[21] = np.nan
    indices[4, 0], indices[5, 0] = CLASSES, indices[5, 1]
    gone = np.isin(np.arange(ROWS), [3, 4, 5, 20, 21])
    weight = np.where(gone, 0, 1.5).astype(np.float32)
    loss, gradient = op_mode.sparse(student, values, indices, tail, 2.0, sample_weight=weight)
    assert (loss[gone] == 0).all()
    assert (gradient[gone] == 0).all()
    expected, slope = op_mode.sparse(*inputs, 2.0)
    np.testing.assert_allclose(loss[~gone], 1.5 * expected[~gone], rtol=1e-6)
    np.testing.assert_allclose(gradient[~gone], 1.5 * slope[~gone], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (4,), (3, 1), (3, 4)], ids=str)
def test_weights_broadcast_and_leading_dimensions_stay(arithmetic, shape):
    flat = sparse_checks.case(12, 7, 2)
    inputs = [x.reshape(3, 4, *x.shape[1:]) for x in flat]
    weight = np.random.default_rng(0).uniform(0.5, 2.0, shape).astype(np.float32)
    loss, gradient = arithmetic.sparse(*inputs, sample_weight=weight)
    expected = np.broadcast_to(weight, (3, 4)) * reference.sparse_soft_target_loss(*inputs)
    slope = reference.sparse_soft_target_gradient(*inputs)
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(
        gradient, np.broadcast_to(weight, (3, 4))[..., None] * slope, rtol=0, atol=4e-6
    )


@pytest.mark.parametrize("mode", matrix.modes("graph", "xla"))
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_reductions(kernel, reduction, mode):
    student, *teacher = sparse_checks.case(12, 7, 2, TEMPERATURE)
    weight = np.linspace(0, 2, 12, dtype=np.float32)

    @tf.function(jit_compile=mode == "xla")
    def step(student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            loss = ops.sparse_soft_target_loss(
                student, *teacher, TEMPERATURE, sample_weight=weight, reduction=reduction
            )
        return loss, tape.gradient(loss, student)

    loss, gradient = step(tf.constant(student))
    share = weight / (12 if reduction == "mean" else 1)
    expected = share * reference.sparse_soft_target_loss(student, *teacher, TEMPERATURE)
    slope = reference.sparse_soft_target_gradient(student, *teacher, TEMPERATURE)
    np.testing.assert_allclose(loss, expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(gradient, share[:, None] * slope, rtol=0, atol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_one_graph_serves_every_batch_and_every_k(kernel, jit_compile):
    float_rows, rows = tf.TensorSpec([None, None]), tf.TensorSpec([None])
    signature = [tf.TensorSpec([None, 10]), float_rows, tf.TensorSpec([None, None], tf.int32), rows]
    loss_of = tf.function(
        ops.sparse_soft_target_loss, input_signature=signature, jit_compile=jit_compile
    )
    for count, kept in ((33, 3), (7, 10), (0, 2)):
        inputs = sparse_checks.case(count, 10, kept)
        loss = loss_of(*inputs).numpy()
        assert loss.shape == (count,)
        pooled = reference.pool(*inputs, 1.0)
        sparse_checks.assert_loss(loss, reference.sparse_soft_target_loss(*inputs), pooled)


def test_odd_rows_in_every_way_in(op_mode):
    """An empty rest, a teacher of no mass there, a NaN, huge logits: each as in float64."""
    student, values, indices, tail = sparse_checks.case(ROWS, CLASSES, KEPT)
    kept = np.take_along_axis(student, indices, -1)
    student[3:5] = -INF
    np.put_along_axis(student, indices, kept, -1)
    tail[3:7], values[8, 0], student[9, 4] = -INF, -INF, 1e30
    student[38, 0] = np.nan
    inputs = student, values, indices, tail
    loss, gradient = op_mode.sparse(*inputs)
    np.testing.assert_array_equal(np.isnan(loss), np.arange(ROWS) == 38)
    np.testing.assert_array_equal(np.isnan(gradient).any(-1), np.arange(ROWS) == 38)
    some = np.arange(ROWS) != 38
    sparse_checks.assert_close(loss[some], gradient[some], tuple(x[some] for x in inputs))


@pytest.mark.parametrize("shape", [(0, 10), (3, 0, 100)], ids=str)
def test_no_rows(arithmetic, shape):
    kept = np.zeros((*shape[:-1], 2), np.float32)
    inputs = np.zeros(shape, np.float32), kept, kept.astype(np.int32), kept[..., 0]
    loss, gradient = arithmetic.sparse(*inputs)
    assert loss.shape == shape[:-1]
    assert gradient.shape == shape


def test_float64_logits_are_computed_in_float32(arithmetic):
    student, values, indices, tail = sparse_checks.case(8, 10, 3)
    wide = (student.astype(np.float64), values.astype(np.float64), indices, np.float64(tail))
    loss, gradient = arithmetic.sparse(*wide)
    assert gradient.dtype == np.float64
    sparse_checks.assert_close(loss, gradient.astype(np.float32), (student, values, indices, tail))


@WITH_DIVERGENCES
@pytest.mark.parametrize("temperature", [0.7, 3.0, 4.7])
def test_a_rest_that_is_masked_by_a_number(arithmetic, divergence, temperature):
    """The teacher gives the rest -1e3 to -1e10, or -inf; the student gives it mass."""
    for mask in (-1e3, -1e7, -1e8, -1e9, -1e10, -INF):
        for offset in (0.0, 500.0):
            student, teacher, indices, _ = sparse_checks.case(ROWS, CLASSES, KEPT, temperature)
            tail = np.full(ROWS, mask / temperature + np.log(CLASSES - KEPT), np.float32)
            inputs = (student + np.float32(offset), teacher, indices, tail)
            loss, gradient = arithmetic.sparse(*inputs, temperature, divergence)
            expected = reference.sparse_soft_target_loss(
                *inputs, np.float32(temperature), divergence
            )
            np.testing.assert_allclose(loss, expected, rtol=2e-5)
            if divergence != "reverse_kl":  # whose slopes are as large as the mask
                slope = reference.sparse_soft_target_gradient(
                    *inputs, np.float32(temperature), divergence
                )
                np.testing.assert_allclose(gradient, slope, rtol=0, atol=1e-5 * temperature)


@WITH_DIVERGENCES
@pytest.mark.parametrize("offset", [100.0, 1000.0, -10_000.0])
def test_an_offset_of_a_row_costs_no_digits(arithmetic, divergence, offset):
    student, teacher = logits.near_teacher(ROWS, CLASSES, TEMPERATURE)
    kept = logits.keep_largest(teacher + np.float32(offset), KEPT, TEMPERATURE)
    inputs = (student - np.float32(offset), *kept)
    sparse_checks.check(arithmetic, inputs, TEMPERATURE, divergence)


def test_numbers_as_large_as_float32_has_them(arithmetic):
    """One kept logit of 1e30 beside others: the reverse divergence is as large, and no zero."""
    student = np.float32([[0.0, 1.0, 2.0, 0.5]])
    given = (np.float32([[1e30]]), np.int32([[0]]), np.float32([0.0]))
    for temperature in (0.00106, 3.0):
        loss, _ = arithmetic.sparse(student, *given, temperature, "reverse_kl")
        expected = reference.sparse_soft_target_loss(
            student, *given, np.float32(temperature), "reverse_kl"
        )
        np.testing.assert_allclose(loss, expected, rtol=2e-5)
