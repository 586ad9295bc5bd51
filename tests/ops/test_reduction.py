"""Losses reduced in the operation are the rows' losses, reduced."""

import numpy as np
import pytest
import tensorflow as tf

from keras_kd import ops
from tests import logits, matrix, reference, tolerances

ROWS, STEPS, CLASSES = 3, 5, 7

pytestmark = pytest.mark.usefixtures("kernel")


def _run(student, teacher, jit_compile=False, **options):
    @tf.function(jit_compile=jit_compile)
    def step(student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            loss = ops.soft_target_loss(student, teacher, temperature=2.0, **options)
        return loss, tape.gradient(loss, student)

    return [result.numpy() for result in step(tf.constant(student))]


@pytest.mark.parametrize("mode", matrix.modes("graph", "xla"))
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_against_float64(reduction, weighted, mode):
    student, teacher = logits.near_teacher(ROWS * STEPS, CLASSES)
    student, teacher = (x.reshape(ROWS, STEPS, CLASSES) for x in (student, teacher))
    weight = np.random.default_rng(0).uniform(0.5, 2.0, (ROWS, 1)).astype(np.float32)
    options = {"sample_weight": weight} if weighted else {}
    loss, gradient = _run(student, teacher, mode == "xla", reduction=reduction, **options)
    share = (weight if weighted else 1.0) / (ROWS * STEPS if reduction == "mean" else 1)
    expected = np.sum(share * reference.soft_target_loss(student, teacher, 2.0))
    slope = np.broadcast_to(share, (ROWS, STEPS))[..., None] * reference.soft_target_gradient(
        student, teacher, 2.0
    )
    assert loss.shape == ()
    tolerances.assert_loss(loss, expected)
    tolerances.assert_gradient(gradient, slope, student, teacher, 2.0, size=np.max(share))


def test_the_mean_counts_rows_of_weight_zero():
    """As Keras' sum_over_batch_size does."""
    student, teacher = logits.near_teacher(4, CLASSES)
    weight = np.array([0, 1, 1, 0], np.float32)
    loss, gradient = _run(student, teacher, reduction="mean", sample_weight=weight)
    tolerances.assert_loss(loss, reference.soft_target_loss(student, teacher, 2.0)[1:3].sum() / 4)
    np.testing.assert_array_equal(gradient[[0, 3]], 0)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_no_rows_reduce_to_zero(reduction):
    empty = np.zeros((0, CLASSES), np.float32)
    loss, gradient = _run(empty, empty, reduction=reduction)
    assert loss == 0
    assert gradient.shape == (0, CLASSES)


def test_an_upstream_gradient_scales_it():
    student, teacher = logits.near_teacher(4, CLASSES)
    with tf.GradientTape() as tape:
        variable = tf.Variable(student)
        loss = 3.0 * ops.soft_target_loss(variable, teacher, reduction="mean")
    expected = 0.75 * reference.soft_target_gradient(student, teacher)
    gradient = tape.gradient(loss, variable)
    tolerances.assert_gradient(gradient.numpy(), expected, student, teacher, size=0.75)


def test_another_reduction_is_refused():
    logits_ = np.zeros((4, 10), np.float32)
    with pytest.raises(ValueError, match=r"`reduction`\. Expected one of .*sum.*mean.*batchmean"):
        ops.soft_target_loss(logits_, logits_, reduction="batchmean")


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_one_weight_for_all_rows(jit_compile):
    """As a vector of equal weights, in both terms."""
    student, teacher = logits.near_teacher(9, CLASSES)
    labels = np.arange(9) % CLASSES

    @tf.function(jit_compile=jit_compile)
    def step(student, hard_weight, soft_weight):
        with tf.GradientTape() as tape:
            tape.watch(student)
            total, hard, soft = ops.combined_loss(
                student, teacher, labels, hard_weight, soft_weight, temperature=2.0
            )
            loss = 0.5 * tf.reduce_sum(total)
        return total, hard, soft, tape.gradient(loss, student)

    weights = np.float32(0.25), np.float32(0.125)
    one = step(tf.constant(student), *weights)
    each = step(tf.constant(student), *(np.full(9, weight) for weight in weights))
    for actual, expected in zip(one, each, strict=True):
        np.testing.assert_array_equal(actual, expected)
