"""Any leading dimensions, no rows, one class; and one graph for batches of any size."""

import numpy as np
import pytest
import tensorflow as tf

from keras_kd import ops
from tests import logits, reference, tolerances

WITH_DIVERGENCES = pytest.mark.parametrize("divergence", reference.DIVERGENCES)


def _check(mode, shape, divergence="forward_kl"):
    rows = int(np.prod(shape[:-1]))
    student, teacher = (x.reshape(shape) for x in logits.near_teacher(rows, shape[-1]))
    loss, gradient = mode.soft(student, teacher, divergence=divergence)
    assert loss.shape == shape[:-1]
    assert gradient.shape == shape
    tolerances.assert_loss(
        loss, reference.soft_target_loss(student, teacher, divergence=divergence)
    )
    slope = reference.soft_target_gradient(student, teacher, divergence=divergence)
    tolerances.assert_gradient(gradient, slope, student, teacher)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 7)], ids=str)
def test_every_way_in(op_mode, shape):
    _check(op_mode, shape)


@pytest.mark.parametrize("shape", [(1,), (1, 10), (2, 1, 3, 4), (1, 1, 1, 1, 65)], ids=str)
@WITH_DIVERGENCES
def test_any_leading_dimensions(arithmetic, shape, divergence):
    _check(arithmetic, shape, divergence)


@pytest.mark.parametrize("shape", [(0, 10), (3, 0, 100)], ids=str)
def test_no_rows(op_mode, shape):
    empty = np.zeros(shape, np.float32)
    loss, gradient = op_mode.soft(empty, empty)
    assert loss.shape == shape[:-1]
    assert gradient.shape == shape


@WITH_DIVERGENCES
def test_one_class_is_certain(arithmetic, divergence):
    student, teacher = logits.far_apart(19, 1, scale=30.0)
    loss, gradient = arithmetic.soft(student, teacher, 2.0, divergence)
    np.testing.assert_allclose(loss, np.zeros(19), rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradient, np.zeros((19, 1)), rtol=0, atol=2e-6)


def test_static_shapes_are_kept(kernel):
    """Layers after the loss, and Keras, look at them while the graph is built."""

    @tf.function(input_signature=[tf.TensorSpec([None, 7, 10])] * 2)
    def shapes(student, teacher):
        loss = ops.soft_target_loss(student, teacher)
        assert loss.shape.as_list() == [None, 7]
        assert tf.gradients(loss, student)[0].shape.as_list() == [None, 7, 10]
        hard, soft = ops.hard_and_soft_loss(student, teacher, tf.zeros([2, 7], tf.int32))
        assert hard.shape[-1] == soft.shape[-1] == 7
        return loss

    assert shapes(tf.zeros([2, 7, 10]), tf.zeros([2, 7, 10])).shape == (2, 7)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_one_graph_serves_every_batch_size(kernel, jit_compile):
    """The last, smaller batch of an epoch, and an empty one, trace nothing new."""
    traces = []

    @tf.function(input_signature=[tf.TensorSpec([None, 10])] * 2, jit_compile=jit_compile)
    def loss_of(student, teacher):
        traces.append(student.shape)
        return ops.soft_target_loss(student, teacher)

    for rows in (33, 7, 0):
        student, teacher = logits.near_teacher(rows, 10)
        loss = loss_of(student, teacher)
        tolerances.assert_loss(loss, reference.soft_target_loss(student, teacher))
    assert len(traces) == 1


def test_float64_is_computed_in_float32(arithmetic):
    """Keras models of a float64 policy work, without its precision, which logits do not have."""
    student, teacher = logits.near_teacher(8, 10)
    loss, gradient = arithmetic.soft(student.astype(np.float64), teacher.astype(np.float64))
    assert loss.dtype == np.float32
    assert gradient.dtype == np.float64
    tolerances.assert_loss(loss, reference.soft_target_loss(student, teacher))
    slope = reference.soft_target_gradient(student, teacher)
    tolerances.assert_gradient(gradient.astype(np.float32), slope, student, teacher)
