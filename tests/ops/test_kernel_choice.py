"""`use_kernel` and KERAS_KD_KERNEL choose the implementation, and refuse names they do not know."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_kd
from keras_kd import ops
from tests import logits

KERNELS = ("auto", "native", "tensorflow")


def test_unknown_kernels_are_refused():
    with (
        pytest.raises(ValueError, match=r"`kernel`.*Received: 'cuda'") as error,
        ops.use_kernel("cuda"),
    ):
        pass
    for name in KERNELS:
        assert name in str(error.value)


def test_the_innermost_block_decides_and_ends(native):
    before = ops.kernel_status()["choice"]
    with ops.use_kernel("native"):
        with ops.use_kernel("tensorflow"):
            assert ops.kernel_status()["choice"] == "tensorflow"
        with pytest.raises(ValueError, match="Invalid"), ops.use_kernel("tensorflow"):
            ops.soft_target_loss(np.zeros((2, 3)), np.zeros((2, 3)), divergence="none")
        assert ops.kernel_status()["choice"] == "native"
    assert ops.kernel_status()["choice"] == before


def _operations(jit_compile=False):
    """The types of the operations in the graph of a loss, in its branches too."""
    student, teacher = logits.near_teacher(8, 10)
    function = tf.function(ops.soft_target_loss, jit_compile=jit_compile)
    graph = function.get_concrete_function(tf.constant(student), tf.constant(teacher)).graph
    definition = graph.as_graph_def()
    nodes = list(definition.node)
    for branch in definition.library.function:
        nodes += branch.node_def
    return {node.op for node in nodes}


def test_each_kernel_is_what_it_says(native):
    """Else the tests that compare them would compare one with itself."""
    with ops.use_kernel("native"):
        assert any(name.startswith("KerasKd") for name in _operations())
        assert "XlaCallModule" in _operations()
    with ops.use_kernel("tensorflow"):
        assert not any(name.startswith("KerasKd") for name in _operations())
        assert "XlaCallModule" not in _operations()
    with ops.use_kernel("auto"):
        assert any(name.startswith("KerasKd") for name in _operations())


def test_status_describes_the_native_library(native):
    with ops.use_kernel("auto"):
        status = ops.kernel_status()
    assert status["native"] is True
    assert status["native_error"] == ""
    assert status["instruction_set"] == native.instruction_set()
    assert status["instruction_sets"] == native.instruction_sets()
    assert status["threads"] == native.num_threads()
    with ops.use_kernel("tensorflow"):
        assert ops.kernel_status()["native"] is False


def test_the_environment_decides_without_a_block(monkeypatch):
    monkeypatch.setenv("KERAS_KD_KERNEL", "tensorflow")
    assert ops.kernel_status()["choice"] == "tensorflow"
    assert not any(name.startswith("KerasKd") for name in _operations())
    with ops.use_kernel("auto"):
        assert ops.kernel_status()["choice"] == "auto"


def test_unknown_kernel_of_the_environment_is_refused():
    code = "import numpy as np; from keras_kd import ops; x = np.zeros((2, 3), np.float32); "
    code += "ops.soft_target_loss(x, x)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_KD_KERNEL": "fastest"},
        cwd=pathlib.Path(keras_kd.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 1
    message = result.stderr.strip().splitlines()[-1]
    assert "KERAS_KD_KERNEL" in message
    for name in ("fastest", *KERNELS):
        assert name in message


def test_without_gradient_the_loss_is_the_same(kernel):
    student, teacher = logits.near_teacher(40, 100)
    labels = np.arange(40)
    alone = ops.soft_target_loss(student, teacher, 2.0, differentiable=False)
    np.testing.assert_allclose(
        alone, ops.soft_target_loss(student, teacher, 2.0), rtol=1e-6, atol=1e-12
    )
    parts = ops.combined_loss(student, teacher, labels, 0.3, 0.7, differentiable=False)
    for actual, expected in zip(
        parts, ops.combined_loss(student, teacher, labels, 0.3, 0.7), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-12)
