"""The labels' cross-entropy and the soft targets in one sweep, apart and combined."""

import numpy as np
import pytest
import tensorflow as tf

from keras_kd import ops
from tests import logits, reference, tolerances

ROWS, CLASSES = logits.ROWS, logits.SHORT
TEMPERATURE = 2.0


@pytest.fixture
def batch():
    return _batch(ROWS, CLASSES)


def _batch(rows, classes):
    student, teacher = logits.near_teacher(rows, classes, TEMPERATURE)
    labels = np.random.default_rng(0).integers(0, classes, rows)
    labels[[0, -1]] = [0, classes - 1]
    return student, teacher, labels


def _assert_hard(actual, student, labels):
    # log Z - logit: a difference that float32 holds to the size of its parts.
    np.testing.assert_allclose(actual, reference.hard_loss(student, labels), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("divergence", reference.DIVERGENCES)
def test_every_way_in(op_mode, divergence):
    _check(op_mode, ROWS, CLASSES, divergence)


@pytest.mark.parametrize("divergence", reference.DIVERGENCES)
@pytest.mark.parametrize("classes", [1, 2, 33, 100, 1001])
def test_every_class_count(arithmetic, classes, divergence):
    _check(arithmetic, ROWS if classes < 100 else 4, classes, divergence)


def _check(mode, rows, classes, divergence):
    student, teacher, labels = _batch(rows, classes)
    hard_up, soft_up = np.random.default_rng(1).standard_normal((2, rows)).astype(np.float32)
    hard, soft, gradient = mode.hard_and_soft(
        student,
        teacher,
        labels,
        TEMPERATURE,
        divergence=divergence,
        hard_upstream=hard_up,
        soft_upstream=soft_up,
    )
    assert hard.dtype == soft.dtype == np.float32
    _assert_hard(hard, student, labels)
    tolerances.assert_loss(
        soft, reference.soft_target_loss(student, teacher, TEMPERATURE, divergence), TEMPERATURE
    )
    slope = hard_up[:, None] * reference.hard_gradient(student, labels)
    slope += soft_up[:, None] * reference.soft_target_gradient(
        student, teacher, TEMPERATURE, divergence
    )
    _assert_mixed_gradient(gradient, slope, np.abs(hard_up) + np.abs(soft_up))


def _assert_mixed_gradient(actual, expected, size):
    limit = tolerances.GRADIENT_RELATIVE * TEMPERATURE * size[:, None]
    limit = limit + tolerances.half_ulp(actual.dtype) * np.abs(expected)
    limit = limit + tolerances.half_subnormal(actual.dtype)
    error = np.abs(actual.astype(np.float64) - expected)
    assert (error <= limit).all(), f"largest error {error.max()}, allowed {limit.max()}"


@pytest.mark.parametrize("only", ["hard_upstream", "soft_upstream"])
def test_the_two_upstream_gradients_do_not_mix(op_mode, batch, only):
    student, teacher, labels = batch
    options = {"hard_upstream": np.zeros(ROWS, np.float32)}
    options["soft_upstream"] = options["hard_upstream"]
    options[only] = np.ones(ROWS, np.float32)
    *_, gradient = op_mode.hard_and_soft(student, teacher, labels, TEMPERATURE, **options)
    slope = {
        "hard_upstream": reference.hard_gradient(student, labels),
        "soft_upstream": reference.soft_target_gradient(student, teacher, TEMPERATURE),
    }[only]
    _assert_mixed_gradient(gradient, slope, np.ones(ROWS))


def test_same_numbers_as_the_op_alone(op_mode, batch):
    student, teacher, labels = batch
    alone, alone_gradient = op_mode.soft(student, teacher, TEMPERATURE)
    _, soft, gradient = op_mode.hard_and_soft(
        student, teacher, labels, TEMPERATURE, hard_upstream=np.zeros(ROWS, np.float32)
    )
    np.testing.assert_allclose(soft, alone, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(gradient, alone_gradient, rtol=0, atol=1e-6)


def test_same_hard_loss_as_tensorflow(arithmetic, batch):
    student, teacher, labels = batch
    hard, *_ = arithmetic.hard_and_soft(student, teacher, labels, TEMPERATURE)
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, student)
    np.testing.assert_allclose(hard, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pair", logits.DTYPE_PAIRS, ids="-".join)
def test_dtype_pairs(arithmetic, pair):
    student, teacher = logits.near_teacher(ROWS, CLASSES, TEMPERATURE, dtypes=pair)
    labels = _batch(ROWS, CLASSES)[2]
    hard, soft, gradient = arithmetic.hard_and_soft(student, teacher, labels, TEMPERATURE)
    assert hard.dtype == soft.dtype == np.float32
    assert gradient.dtype == student.dtype
    _assert_hard(hard, student, labels)
    tolerances.assert_loss(
        soft, reference.soft_target_loss(student, teacher, TEMPERATURE), TEMPERATURE
    )
    slope = reference.hard_gradient(student, labels)
    slope = slope + reference.soft_target_gradient(student, teacher, TEMPERATURE)
    _assert_mixed_gradient(gradient, slope, np.full(ROWS, 2.0))


def test_label_dtypes_agree(arithmetic, batch):
    student, teacher, labels = batch
    long = arithmetic.hard_and_soft(student, teacher, labels.astype(np.int64))
    short = arithmetic.hard_and_soft(student, teacher, labels.astype(np.int32))
    for actual, expected in zip(short, long, strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (1, 2, 3)], ids=str)
def test_any_leading_dimensions(arithmetic, shape):
    student, teacher, labels = _batch(6, CLASSES)
    rows = int(np.prod(shape))
    student, teacher = (x[:rows].reshape(*shape, CLASSES) for x in (student, teacher))
    labels = labels[:rows].reshape(shape)
    hard, soft, gradient = arithmetic.hard_and_soft(student, teacher, labels)
    assert hard.shape == soft.shape == shape
    assert gradient.shape == student.shape
    if rows:
        _assert_hard(hard, student, labels)
        tolerances.assert_loss(soft, reference.soft_target_loss(student, teacher))


def test_ignored_labels_in_every_way_in(op_mode, batch):
    _check_ignored(op_mode, batch, -100)


@pytest.mark.parametrize("ignored", [-1, 3, 255])
def test_any_label_can_be_ignored(arithmetic, batch, ignored):
    _check_ignored(arithmetic, batch, ignored)


def _check_ignored(mode, batch, ignored):
    student, teacher, labels = batch
    labels[[2, 5, 39]] = ignored
    student[2] = np.nan  # A padded token may hold anything.
    skipped = labels == ignored
    hard, soft, gradient = mode.hard_and_soft(
        student, teacher, labels, TEMPERATURE, ignore_label=ignored
    )
    assert (hard[skipped] == 0).all()
    assert (soft[skipped] == 0).all()
    assert (gradient[skipped] == 0).all()
    _assert_hard(hard[~skipped], student[~skipped], labels[~skipped])
    tolerances.assert_loss(
        soft[~skipped],
        reference.soft_target_loss(student[~skipped], teacher[~skipped], TEMPERATURE),
        TEMPERATURE,
    )


def test_sample_weight_scales_both_and_zero_removes_the_row(op_mode, batch):
    student, teacher, labels = batch
    hard, soft, gradient = op_mode.hard_and_soft(student, teacher, labels, TEMPERATURE)
    weight = np.linspace(0.5, 2.0, ROWS, dtype=np.float32)
    weight[[4, 39]] = 0.0
    student = student.copy()
    student[4], student[39, 0] = np.nan, np.inf
    weighted = op_mode.hard_and_soft(student, teacher, labels, TEMPERATURE, sample_weight=weight)
    np.testing.assert_allclose(weighted[0], weight * hard, rtol=1e-6)
    np.testing.assert_allclose(weighted[1], weight * soft, rtol=1e-6)
    np.testing.assert_allclose(weighted[2], weight[:, None] * gradient, rtol=0, atol=2e-6)
    for values in weighted:
        assert (values[[4, 39]] == 0).all()


def test_infinities_and_nan(op_mode, batch):
    student, teacher, labels = batch
    student[0, labels[0]] = -np.inf
    student[1, 0] = np.nan
    teacher[2, 0] = np.inf
    hard, soft, gradient = op_mode.hard_and_soft(student, teacher, labels)
    assert hard[0] == np.inf
    assert soft[0] == np.inf
    assert np.isfinite(gradient[0]).all()
    assert np.isnan(hard[1])
    np.testing.assert_array_equal(np.isnan(soft), np.isin(np.arange(ROWS), [1, 2]))
    assert np.isfinite(hard[2:]).all()  # The teacher has no say in the labels' loss.


def test_combined_is_the_weighted_sum_in_one_sweep(op_mode, batch):
    student, teacher, labels = batch
    hard_weight, soft_weight = np.random.default_rng(2).uniform(0, 2, (2, ROWS)).astype(np.float32)
    hard_weight[7] = soft_weight[8] = 0.0
    upstream = np.random.default_rng(3).standard_normal(ROWS).astype(np.float32)
    total, hard, soft, gradient = op_mode.combined(
        student, teacher, labels, hard_weight, soft_weight, TEMPERATURE, upstream=upstream
    )
    # A part of weight zero is not computed, and shown as zero.
    assert hard[7] == soft[8] == 0
    shown = np.arange(ROWS) != 7
    _assert_hard(hard[shown], student[shown], labels[shown])
    shown = np.arange(ROWS) != 8
    expected = reference.soft_target_loss(student, teacher, TEMPERATURE)
    tolerances.assert_loss(soft[shown], expected[shown], TEMPERATURE)
    np.testing.assert_allclose(total, hard_weight * hard + soft_weight * soft, rtol=1e-6)
    slope = (upstream * hard_weight)[:, None] * reference.hard_gradient(student, labels)
    slope += (upstream * soft_weight)[:, None] * reference.soft_target_gradient(
        student, teacher, TEMPERATURE
    )
    _assert_mixed_gradient(gradient, slope, np.abs(upstream) * (hard_weight + soft_weight))


@pytest.mark.parametrize("divergence", ["reverse_kl", "jsd"])
def test_combined_divergences(arithmetic, batch, divergence):
    student, teacher, labels = batch
    half, two = np.float32(0.5), np.full(ROWS, 2.0, np.float32)
    total, _, soft, gradient = arithmetic.combined(
        student,
        teacher,
        labels,
        half,
        two,
        TEMPERATURE,
        divergence=divergence,
        mixing_weight=0.25,
    )
    expected = reference.soft_target_loss(student, teacher, TEMPERATURE, divergence, 0.25)
    tolerances.assert_loss(soft, expected, TEMPERATURE)
    np.testing.assert_allclose(
        total, 0.5 * reference.hard_loss(student, labels) + 2.0 * expected, rtol=1e-5
    )
    slope = 2.0 * reference.soft_target_gradient(student, teacher, TEMPERATURE, divergence, 0.25)
    slope += 0.5 * reference.hard_gradient(student, labels)
    _assert_mixed_gradient(gradient, slope, np.full(ROWS, 2.5))


def test_combined_skips_rows_without_any_weight(op_mode, batch):
    student, teacher, labels = batch
    student[3], teacher[39] = np.nan, np.nan
    hard_weight, soft_weight = np.ones((2, ROWS), np.float32)
    hard_weight[[3, 39]] = soft_weight[[3, 39]] = 0.0
    total, _, _, gradient = op_mode.combined(
        student, teacher, labels, hard_weight, soft_weight, TEMPERATURE
    )
    assert (total[[3, 39]] == 0).all()
    assert (gradient[[3, 39]] == 0).all()
    assert np.isfinite(total).all()
    assert np.isfinite(gradient).all()


def test_no_gradient_flows_through_the_parts_of_the_total(kernel, batch):
    student, teacher, labels = (tf.constant(values) for values in batch)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([student, teacher])
        total, hard, soft = ops.combined_loss(student, teacher, labels, 1.0, 1.0)
    assert tape.gradient(total, student) is not None
    assert tape.gradient(total, teacher) is None
    for part in (hard, soft):
        gradient = tape.gradient(part, student)
        assert gradient is None or not gradient.numpy().any()


WITH_WRONG_LABELS = pytest.mark.parametrize("label", [10, 12, -1, 2**32 + 1])


@WITH_WRONG_LABELS
@pytest.mark.parametrize("graph", [False, True])
def test_label_out_of_range_is_named(kernel, batch, label, graph):
    student, teacher, labels = batch
    labels[3] = label
    message = f"Label {label} at row 3 is out of range: expected 0 <= label < 10"
    for dtype in (np.int32, np.int64) if label < 2**31 else (np.int64,):
        wrong = labels.astype(dtype)
        for op in (
            lambda wrong: ops.hard_and_soft_loss(student, teacher, wrong),
            lambda wrong: ops.combined_loss(student, teacher, wrong, 1.0, 1.0),
        ):
            with pytest.raises(tf.errors.InvalidArgumentError, match=message):
                (tf.function(op) if graph else op)(wrong)


@WITH_WRONG_LABELS
def test_label_out_of_range_is_no_number_or_an_error_inside_xla(kernel, batch, label):
    """XLA's own operations cannot raise; a loss that looks right would hide the mistake."""
    student, teacher, labels = batch
    labels[3] = label

    @tf.function(jit_compile=True)
    def hard_loss(labels):
        return ops.hard_and_soft_loss(student, teacher, labels)[0]

    try:
        hard = hard_loss(labels).numpy()
    except tf.errors.OpError as error:
        assert f"Label {label} at row 3 is out of range" in str(error)  # noqa: PT017
    else:
        np.testing.assert_array_equal(np.isnan(hard), np.arange(ROWS) == 3)
