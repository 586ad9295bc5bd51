"""The CUDA kernels as a user of Keras meets them, on a real GPU."""

import numpy as np
import pytest

from tests import reference, tolerances

pytestmark = pytest.mark.gpu


def loss_and_gradient(jit_compile, student, teacher, temperature=3.0):
    import tensorflow as tf

    import keras_kd as kd

    @tf.function(jit_compile=jit_compile)
    def step(student, teacher):
        with tf.GradientTape() as tape:
            tape.watch(student)
            loss = kd.ops.soft_target_loss(student, teacher, temperature)
        return loss, tape.gradient(loss, student)

    with tf.device("GPU:0"):
        loss, gradient = step(tf.constant(student), tf.constant(teacher))
    assert "GPU" in loss.device
    return loss.numpy(), gradient.numpy()


@pytest.mark.parametrize("outside", ["tensorflow", "xla"])
@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize("classes", [10, 1000, 32003])
def test_values(classes, jit_compile, outside, monkeypatch):
    monkeypatch.setenv("KERAS_KD_GPU", outside)
    monkeypatch.setenv("KERAS_KD_KERNEL", "native")  # no silent fallback
    logits = np.random.default_rng(0).normal(0, 2, (2, 5, classes)).astype("float32")
    loss, gradient = loss_and_gradient(jit_compile, *logits)
    tolerances.assert_loss(loss, reference.soft_target_loss(*logits, 3.0), 3.0)
    slope = reference.soft_target_gradient(*logits, 3.0)
    tolerances.assert_gradient(gradient, slope, *logits, 3.0, np.full(5, 2.0))


def test_one_custom_call_computes_loss_and_gradient(monkeypatch):
    import tensorflow as tf

    import keras_kd as kd

    monkeypatch.setenv("KERAS_KD_KERNEL", "native")

    @tf.function(jit_compile=True)
    def step(student, teacher):
        with tf.GradientTape() as tape:
            tape.watch(student)
            loss = kd.ops.soft_target_loss(student, teacher, 2.0)
        return loss, tape.gradient(loss, student)

    with tf.device("GPU:0"):
        logits = tf.zeros([4, 100])
        text = step.experimental_get_compiler_ir(logits, logits)(stage="optimized_hlo")
    assert text.count('custom_call_target="keras_kd_') == 1


@pytest.mark.parametrize("classes", [10, 1000])
def test_logits_in_another_layout(classes, monkeypatch):
    """A transpose, which XLA would rather leave to whoever reads the result."""
    import tensorflow as tf

    import keras_kd as kd

    monkeypatch.setenv("KERAS_KD_KERNEL", "native")
    logits = np.random.default_rng(0).normal(0, 2, (2, 5, classes)).astype("float32")

    @tf.function(jit_compile=True)
    def loss(student, teacher):
        return kd.ops.soft_target_loss(tf.transpose(student), tf.transpose(teacher), 3.0)

    with tf.device("GPU:0"):
        found = loss(*(tf.constant(x.T) for x in logits))
    tolerances.assert_loss(found.numpy(), reference.soft_target_loss(*logits, 3.0), 3.0)


def test_training(monkeypatch):
    import keras
    import tensorflow as tf

    import keras_kd as kd

    monkeypatch.setenv("KERAS_KD_KERNEL", "native")
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(512, 20)).astype("float32")
    y = (x[:, :4] ** 2).argmax(axis=1)
    make = lambda width: keras.Sequential(  # noqa: E731
        [keras.Input([20]), keras.layers.Dense(width, "relu"), keras.layers.Dense(4)]
    )
    teacher = make(256)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher.compile("adam", loss)
    teacher.fit(x, y, epochs=20, verbose=0)
    distiller = kd.Distiller(teacher, make(32))
    distiller.compile("adam", loss, jit_compile=True)
    history = distiller.fit(x, y, epochs=10, verbose=0).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert tf.config.list_physical_devices("GPU")
