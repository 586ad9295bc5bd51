"""What is chosen where a GPU is, or is not: the machine is played, the choice is real."""

import numpy as np
import pytest
import tensorflow as tf

from keras_kd import ops
from keras_kd.ops import arguments, dispatch, reference
from keras_kd.ops.backends import shared_library, xla
from tests import logits


class FakeLibrary:
    """`libkeras_kd_cuda.so` on a machine that its check refuses, or not."""

    def __init__(self, reason):
        self.reason = reason.encode()

    def keras_kd_cuda_check(self, message, size):
        message.value = self.reason
        return 1 if self.reason else 0


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """What is found out once for each process is found out for each of these tests."""
    cached = [xla._open, xla.cuda_unavailable, xla.register, xla.unavailable_on_gpu]
    for function in cached:
        function.cache_clear()
    monkeypatch.setattr(dispatch, "_warned", set())
    yield
    monkeypatch.undo()
    for function in cached:
        function.cache_clear()


def pretend_gpu(monkeypatch, reason):
    monkeypatch.setattr(dispatch, "gpu_is_visible", lambda: True)
    monkeypatch.setattr(xla, "unavailable_on_gpu", lambda: reason)


def test_a_missing_library_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_library, "CUDA_PATH", tmp_path / "libkeras_kd_cuda.so")
    assert "KERAS_KD_CUDA=ON" in xla.cuda_unavailable()
    with pytest.raises(shared_library.LibraryError, match="no CUDA kernels"):
        xla.build_info()


def test_a_broken_library_says_so(monkeypatch, tmp_path):
    path = tmp_path / "libkeras_kd_cuda.so"
    path.write_bytes(b"not a library")
    monkeypatch.setattr(shared_library, "CUDA_PATH", path)
    assert "cannot be used" in xla.cuda_unavailable()


@pytest.mark.parametrize("reason", ["the NVIDIA driver serves CUDA 12.4", "no GPU is visible"])
def test_the_librarys_reason_is_returned(monkeypatch, reason):
    monkeypatch.setattr(xla, "_open", lambda: FakeLibrary(reason))
    assert xla.cuda_unavailable() == reason


def test_a_tensorflow_without_cuda_is_reported(monkeypatch):
    monkeypatch.setattr(xla, "_open", lambda: FakeLibrary(""))
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: False)
    xla.cuda_unavailable.cache_clear()
    assert "built without CUDA" in xla.cuda_unavailable()


def test_inside_xla_the_fallback_warns_once(native, monkeypatch):
    pretend_gpu(monkeypatch, "the driver is too old")
    with ops.use_kernel("auto"):
        with pytest.warns(dispatch.KernelWarning, match="driver is too old"):
            assert not dispatch.xla_is_used()
        assert not dispatch.xla_is_used()  # a second warning would be an error here
        assert ops.kernel_status()["xla"] is False
    with (
        ops.use_kernel("native"),
        pytest.raises(shared_library.LibraryError, match="driver is too old"),
    ):
        dispatch.xla_is_used()
    with ops.use_kernel("tensorflow"):
        assert not dispatch.xla_is_used()


def test_inside_xla_the_gpus_kernel_is_used(native, monkeypatch):
    pretend_gpu(monkeypatch, "")
    assert dispatch.xla_is_used()
    assert ops.kernel_status()["xla"] is True


def _graph_operations():
    student, teacher = logits.near_teacher(8, 10)
    function = tf.function(ops.soft_target_loss)
    graph = function.get_concrete_function(tf.constant(student), tf.constant(teacher)).graph
    return graph.as_graph_def()


def _compiled_functions(definition):
    return [f for f in definition.library.function if f.attr["_XlaMustCompile"].b]


def test_outside_xla_the_switch_decides(native, monkeypatch):
    pretend_gpu(monkeypatch, "")
    assert not dispatch.gpu_kernel_is_used()
    assert not _compiled_functions(_graph_operations())
    monkeypatch.setenv("KERAS_KD_GPU", "xla")
    assert dispatch.gpu_kernel_is_used()
    assert _compiled_functions(_graph_operations())
    monkeypatch.setenv("KERAS_KD_GPU", "fastest")
    with pytest.raises(ValueError, match=r"KERAS_KD_GPU.*'tensorflow', 'xla'.*'fastest'"):
        dispatch.gpu_kernel_is_used()


def test_without_a_gpu_the_switch_does_nothing(native, monkeypatch):
    monkeypatch.setenv("KERAS_KD_GPU", "xla")
    assert not dispatch.gpu_kernel_is_used()


def test_modules_name_both_platforms(native):
    nodes = [
        node
        for function in _graph_operations().library.function
        for node in function.node_def
        if node.op == "XlaCallModule"
    ]
    assert nodes
    for node in nodes:
        assert list(node.attr["platforms"].list.s) == [b"CPU", b"CUDA"]


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("mode", ["eager", "graph", "dynamic"])
def test_a_small_computation_of_its_own(native, mode, hard):
    """`compute_compiled`, as the switch has it called outside of XLA."""
    if reason := xla.unavailable():  # which registers the kernels too
        pytest.skip(reason)
    student, teacher = map(tf.constant, logits.near_teacher(6, 33))
    options = {"labels": tf.range(6), "hard_weight": tf.fill([6], 0.3)} if hard else {}

    def run(student, teacher):
        problem = arguments.Problem(student, teacher, tf.constant(3.0), **options)
        return xla.compute_compiled(problem)

    if mode != "eager":
        shape = [None, None] if mode == "dynamic" else [6, 33]
        run = tf.function(run, input_signature=[tf.TensorSpec(shape)] * 2)
    problem = arguments.Problem(student, teacher, tf.constant(3.0), **options)
    for actual, expected in zip(run(student, teacher), reference.compute(problem), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-6)
