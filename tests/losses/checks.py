"""What holds for every loss, given its expected value in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.matrix import Mode

# Arguments of tf.function; None: eager.
MODES = {Mode("eager"): None, Mode("graph"): False, Mode("xla"): True}
STEP = 1e-5


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def normal(*shape, seed=1):
    return np.random.default_rng([seed, *shape]).normal(0, 1.5, shape).astype("float32")


def values_and_gradients(make, truth, teacher_shape, student_shape, mode, labels=None):
    """Compares the values with `truth`, and gradients with its central differences.

    Args:
        make: Gives the loss.
        truth: `(teacher, student[, labels]) -> values` in float64, or `(loss, ...)` if it has an
            attribute `of_loss`.
        teacher_shape: With the batch.
        student_shape: With the batch.
        mode: One of `MODES`.
        labels: For losses that take them.
    """
    teacher, student = normal(*teacher_shape, seed=1), normal(*student_shape, seed=2)
    given = {} if labels is None else {"labels": labels}
    loss = make()
    loss(teacher, student, **given)  # builds it, outside of a graph

    def value_and_gradient(teacher, student, **given):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss(teacher, student, **given)
        return value, tape.gradient(value, student)

    tensors = [tf.constant(x) for x in (teacher, student)]
    given = {key: tf.constant(x) for key, x in given.items()}
    if MODES[mode] is not None:
        # The size of the batch is not known when it is traced.
        specs = [tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in tensors]
        named = {key: tf.TensorSpec((None, *x.shape[1:]), x.dtype) for key, x in given.items()}
        traced = tf.function(value_and_gradient, jit_compile=MODES[mode], autograph=False)
        traced.get_concrete_function(*specs, **named)
        value_and_gradient = traced
    value, gradient = value_and_gradient(*tensors, **given)

    def expected(student):
        arguments = [np.float64(teacher), np.float64(student)]
        if labels is not None:
            arguments.append(labels)
        return truth(loss, *arguments) if hasattr(truth, "of_loss") else truth(*arguments)

    values = expected(student)
    assert value.shape == values.shape
    assert value.dtype == tf.float32
    np.testing.assert_allclose(value, values, rtol=2e-5, atol=1e-6)
    # Central differences of the float64 truth: their error is about 1e-9.
    for index in [(0,) * len(student_shape), tuple(n - 1 for n in student_shape)]:
        step = np.zeros(student_shape)
        step[index] = STEP
        both = [expected(np.float64(student) + sign * step).sum() for sign in (1, -1)]
        slope = (both[0] - both[1]) / (2 * STEP)
        assert gradient.numpy()[index] == pytest.approx(slope, abs=5e-6, rel=2e-5)


# Losses compute in float32 of float16 features; projectors round to 11 bits, some times on the way.
HALF_TOLERANCE = {"own": 2e-5, "projected": 8 * 2.0**-11}


def values_in_half_precision(make, truth, teacher_shape, student_shape, labels=None):
    """Compares what the distiller gets for float16 features under `mixed_float16` with `truth`."""
    teacher = normal(*teacher_shape, seed=1).astype("float16")
    student = normal(*student_shape, seed=2).astype("float16")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        loss = make()
        found, _ = loss.weighted(tf.constant(teacher), tf.constant(student), None, labels=labels)
    finally:
        keras.config.set_dtype_policy(before)
    arguments = [np.float64(teacher), np.float64(student)]
    arguments += [] if labels is None else [labels]
    expected = truth(loss, *arguments) if hasattr(truth, "of_loss") else truth(*arguments)
    tolerance = HALF_TOLERANCE["projected" if loss.trainable_weights else "own"]
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def of_loss(truth):
    """Marks a truth that needs the loss, for its weights."""
    truth.of_loss = True
    return truth


def zero_at_equality(make, shape, **given):
    features = tf.constant(normal(*shape))
    with tf.GradientTape() as tape:
        tape.watch(features)
        value = make()(tf.stop_gradient(features), features, **given)
    np.testing.assert_allclose(value, np.zeros(value.shape), atol=3e-7)
    np.testing.assert_allclose(tape.gradient(value, features), np.zeros(shape), atol=1e-6)


def finite_at_zero(make, teacher_shape, student_shape, **given):
    student = tf.Variable(np.zeros(student_shape, "float32"))
    with tf.GradientTape() as tape:
        value = make()(normal(*teacher_shape), student, **given)
    assert np.isfinite(value).all()
    assert np.isfinite(tape.gradient(value, student)).all()
