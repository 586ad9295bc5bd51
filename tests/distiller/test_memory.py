"""A distiller that was made and dropped leaves nothing, nor does a call of an operation."""

import pathlib

import keras
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import fresh_process

pytestmark = pytest.mark.in_turn(4)

# 200 of them in all 20 MB.
MOST = 100_000


@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="reads Linux' /proc")
def test_what_is_dropped_is_gone(tmp_path):
    kept = fresh_process.run_json("tests.distiller.kept_memory", tmp_path / "kept.json")
    assert kept["distiller"] < MOST
    assert kept["mutual"] < MOST
    # Keras keeps something of each model, whoever makes it: 0.3 MB, which differ by 0.05.
    assert kept["new"] - kept["networks"] < 1.5 * MOST
    assert kept["calls"] < 1000
    # TensorFlow keeps something of each function too; the graph of a model's step were megabytes.
    assert kept["traced"] - kept["plain"] < MOST


class Sensitivity(kd.losses.DistillationLoss):
    """Takes a gradient in its own formula, of an operation of the library."""

    def call(self, teacher_outputs, student_outputs):
        with tf.GradientTape() as tape:
            tape.watch(student_outputs)
            loss = kd.ops.soft_target_loss(student_outputs, teacher_outputs, 2.0)
        return keras.ops.mean(tf.square(tape.gradient(loss, student_outputs)), axis=-1)


def test_a_loss_that_takes_gradients_runs_in_the_symbolic_pass():
    networks = [keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]) for _ in range(2)]
    distiller = kd.Distiller(*networks, Sensitivity(), alpha=0, beta=1)
    assert not distiller.forward_passes.is_symbolic
    x = tf.random.stateless_normal([8, 4], (1, 2))
    loss = distiller.compute_loss(x, training=True)
    expected = Sensitivity().call(networks[0](x), networks[1](x))
    tf.debugging.assert_near(loss, tf.reduce_mean(expected), rtol=1e-5)
