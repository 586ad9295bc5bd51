"""Which binding `ops.numpy` takes, what it says where there is none, and its threads."""

import json
import pathlib
import sys
import sysconfig

import numpy as np
import pytest

import keras_kd as kd
from keras_kd.ops.backends import ctypes, extension, shared_library
from tests import fresh_process, logits, reference, tolerances

CACHED = (kd.ops.numpy._functions, extension.load, shared_library.load)
WITH_MODULE = pytest.mark.skipif(
    bool(extension.unavailable()), reason="this Python has no module keras_kd._kernels"
)


@pytest.fixture
def fresh(native, monkeypatch):
    """`monkeypatch`, with nothing opened yet; afterwards all is opened again at its next use."""
    monkeypatch.delenv(kd.ops.numpy.VARIABLE, raising=False)
    for function in CACHED:
        function.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for function in CACHED:
        function.cache_clear()


def test_a_python_with_headers_has_the_module(native):
    """Else the tests of this folder would try ctypes alone, and pass."""
    headers = pathlib.Path(sysconfig.get_path("include")) / "Python.h"
    if not headers.exists():
        pytest.skip(f"no headers: {headers}")
    assert extension.unavailable() == ""
    assert extension.file_name() == f"_kernels{sysconfig.get_config_var('EXT_SUFFIX')}"


@WITH_MODULE
def test_the_module_is_taken_where_it_is(fresh):
    assert kd.ops.numpy.binding() == "pybind11"


@pytest.mark.parametrize("name", ["ctypes", pytest.param("pybind11", marks=WITH_MODULE)])
def test_a_binding_by_name(fresh, name):
    fresh.setenv("KERAS_KD_BINDING", name)
    assert kd.ops.numpy.binding() == name
    student, teacher = logits.near_teacher(8, 33, 2.0)
    labels = np.arange(8)
    loss = kd.ops.numpy.soft_target_loss(student, teacher, 2.0, sample_weight=2.0)
    tolerances.assert_loss(loss, 2 * reference.soft_target_loss(student, teacher, 2.0), 2.0)
    hard, soft, gradient = kd.ops.numpy.hard_and_soft_loss(
        student, teacher, labels, 2.0, hard_weight=0.5, soft_weight=1.5, gradient=True
    )
    np.testing.assert_array_equal(2 * soft, loss)
    tolerances.assert_loss(hard, reference.hard_loss(student, labels))
    slope = 0.5 * reference.hard_gradient(student, labels)
    slope += 1.5 * reference.soft_target_gradient(student, teacher, 2.0)
    tolerances.assert_gradient(gradient, slope, student, teacher, 2.0, size=2.0)
    kept, indices, tail = logits.keep_largest(teacher, 33, 2.0)
    sparse = kd.ops.numpy.sparse_soft_target_loss(student, kept, indices, tail, 2.0)
    np.testing.assert_allclose(2 * sparse, loss, rtol=1e-5)


def test_an_unknown_binding(fresh):
    fresh.setenv("KERAS_KD_BINDING", "cython")
    message = r"KERAS_KD_BINDING. Expected one of .'auto', 'pybind11', 'ctypes'.*'cython'"
    with pytest.raises(ValueError, match=message):
        kd.ops.numpy.binding()


def test_a_python_without_a_module(fresh, tmp_path):
    (tmp_path / "_kernels.cpython-36m-x86_64-linux-gnu.so").touch()
    fresh.setattr(extension, "_PACKAGE", tmp_path)
    assert kd.ops.numpy.binding() == "ctypes"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    reason = extension.unavailable()
    assert f"No module for cpython {version}" in reason
    assert "for other Pythons only (_kernels.cpython-36m-x86_64-linux-gnu.so)" in reason
    assert "python3-dev" in reason


def test_what_the_installation_left(fresh, tmp_path):
    fresh.setattr(extension, "_PACKAGE", tmp_path)
    fresh.setattr(extension, "_NOTE", tmp_path / "note.txt")
    (tmp_path / "note.txt").write_text("keras_kd._kernels was not built: no headers.\n")
    fresh.setenv("KERAS_KD_BINDING", "pybind11")
    with pytest.raises(RuntimeError, match=r"KERAS_KD_BINDING=pybind11.*was not built: no headers"):
        kd.ops.numpy.binding()


def test_a_module_that_cannot_be_opened(fresh):
    if extension.file_name() is None:
        pytest.skip("there is none")
    fresh.setitem(sys.modules, extension.NAME, None)
    assert "cannot be used" in extension.unavailable()
    assert kd.ops.numpy.binding() == "ctypes"


@pytest.mark.parametrize("name", ["auto", "ctypes", "pybind11"])
def test_without_the_library_there_is_an_error(fresh, tmp_path, name):
    fresh.setenv("KERAS_KD_BINDING", name)
    fresh.setattr(shared_library, "CORE_PATH", tmp_path / "libkeras_kd.so")
    student = np.zeros((2, 3), np.float32)
    for call in (
        kd.ops.numpy.binding,
        kd.ops.numpy.num_threads,
        lambda: kd.ops.numpy.soft_target_loss(student, student),
    ):
        with pytest.raises(RuntimeError, match=r"without its native library.*pip install"):
            call()


def test_threads(native):
    before = kd.ops.numpy.num_threads()
    try:
        kd.ops.numpy.set_num_threads(np.int64(3))
        assert kd.ops.numpy.num_threads() == native.num_threads() == 3
        assert shared_library.threads_are_chosen()
        kd.ops.numpy.set_num_threads(0)
        assert kd.ops.numpy.num_threads() >= 1
        assert not shared_library.threads_are_chosen()
        for wrong in (-1, 2**31):
            with pytest.raises(ValueError, match=f"Received: threads={wrong}"):
                kd.ops.numpy.set_num_threads(wrong)
        with pytest.raises(TypeError, match="integer"):
            kd.ops.numpy.set_num_threads(1.5)
    finally:
        ctypes.set_num_threads(before)


def test_tensorflow_does_not_take_chosen_threads_back(native):
    program = (
        "import keras_kd as kd, tensorflow as tf\n"
        "tf.config.threading.set_intra_op_parallelism_threads(2)\n"
        "kd.ops.numpy.set_num_threads(5)\n"
        "kd.ops.soft_target_loss(tf.zeros((2, 3)), tf.zeros((2, 3)))\n"
        "print(kd.ops.numpy.num_threads())\n"
    )
    assert fresh_process.run_preloaded(["-c", program]).stdout.split() == ["5"]


@pytest.mark.parametrize(
    ("value", "code", "words"),
    [("ctypes", 0, "ctypes was chosen"), ("cython", 1, "Expected one of")],
)
def test_doctor(native, value, code, words):
    env = fresh_process.environment(KERAS_KD_BINDING=value)
    done = fresh_process.run_preloaded(["-m", "keras_kd", "doctor", "--json"], env, check=False)
    facts = json.loads(done.stdout)
    assert done.returncode == code, done.stderr
    assert words in done.stdout
    assert facts["environment"]["KERAS_KD_BINDING"] == value
    if code == 0:
        assert facts["numpy"]["binding"] == value
        assert facts["numpy"]["module"] == (extension.file_name() or "none")


def test_doctor_where_the_module_is_missing(fresh, tmp_path, capsys):
    from keras_kd.cli import doctor

    fresh.setattr(extension, "_PACKAGE", tmp_path)
    fresh.setenv("KERAS_KD_BINDING", "pybind11")
    assert doctor.run() == 1
    printed = capsys.readouterr()
    assert "why none:" in printed.out
    assert "KERAS_KD_BINDING=pybind11 cannot be had" in printed.out
    assert "What KERAS_KD_BINDING names cannot be used" in printed.err
