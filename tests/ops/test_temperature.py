"""A temperature may be a number, a tensor or a variable, which a graph reads at each call."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd import ops
from tests import logits, reference, tolerances


def test_every_kind_of_number_is_the_same_temperature(kernel):
    student, teacher = logits.near_teacher(20, 10)
    expected = ops.soft_target_loss(student, teacher, 3.0)
    tolerances.assert_loss(expected, reference.soft_target_loss(student, teacher, 3.0), 3.0)
    for value in (
        3,
        np.float32(3),
        np.float64(3),
        np.int64(3),
        np.array(3.0),
        tf.constant(3.0),
        tf.constant(3),
        tf.constant(3.0, tf.float64),
        tf.constant(3.0, tf.bfloat16),
        tf.Variable(3.0),
        keras.Variable(3.0),
    ):
        actual = ops.soft_target_loss(student, teacher, value)
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_variable_is_live_in_a_graph(kernel, jit_compile):
    student, teacher = logits.near_teacher(20, 10)
    temperature = tf.Variable(1.0)
    traces = []

    @tf.function(jit_compile=jit_compile)
    def loss_of(student, teacher):
        traces.append(1)
        return ops.soft_target_loss(student, teacher, temperature)

    for value in (1.0, 5.0, 2.5):
        temperature.assign(value)
        expected = reference.soft_target_loss(student, teacher, value)
        tolerances.assert_loss(loss_of(student, teacher), expected, value)
    assert len(traces) == 1


@pytest.mark.parametrize("value", [0.0, -2.0, np.nan, np.inf])
@pytest.mark.parametrize("graph", [False, True])
def test_a_tensor_with_an_invalid_temperature_raises_when_it_is_read(kernel, value, graph):
    student, teacher = logits.near_teacher(4, 10)
    labels = np.zeros(4, np.int32)
    for op in (
        lambda t: ops.soft_target_loss(student, teacher, t),
        lambda t: ops.hard_and_soft_loss(student, teacher, labels, t),
    ):
        with pytest.raises(
            tf.errors.InvalidArgumentError,
            match=r"Invalid value for argument `temperature`\. Expected .* Received: temperature=",
        ):
            (tf.function(op) if graph else op)(tf.constant(value))


def test_no_gradient_flows_to_the_temperature(kernel):
    student, teacher = logits.near_teacher(4, 10)
    temperature = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        loss = ops.soft_target_loss(student, teacher, temperature)
    assert tape.gradient(loss, temperature) is None
