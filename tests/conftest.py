"""Fixtures that run a test over every way into the kernels.

Where the native library is missing its cases are skipped. Set `KERAS_KD_REQUIRE_NATIVE=1` to make
that a failure instead, as CI does.
"""

import os

import pytest

pytest_plugins = ["tests.extras", "tests.scheduling"]

# Where a GPU is, TensorFlow would take all of its memory, also from the tests that use the driver.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

OP_MODES = [
    f"{kernel}-{mode}"
    for kernel in ("native", "tensorflow")
    for mode in ("eager", "graph", "dynamic", "xla", "xla_dynamic")
]
# The code that computes, without the time to trace and compile: graph mode runs the operations of
# eager mode. XLA's own arithmetic is the business of the tests that run in every mode.
ARITHMETICS = ["native-eager", "tensorflow-eager"]
# `test_native_numpy.py` proves that no instruction set of the library is missing here.
INSTRUCTION_SETS = ["baseline", "avx2", "avx512"]


@pytest.fixture(params=OP_MODES)
def op_mode(request):
    """An `OpMode`: each implementation of the ops in each execution mode.

    For tests that keep to few shapes and options: each is traced, and compiled, once a mode.
    """
    return _op_mode(request)


@pytest.fixture(params=ARITHMETICS)
def arithmetic(request):
    """An `OpMode` for each implementation, eager; for tests with many shapes and options."""
    return _op_mode(request)


def _op_mode(request):
    from tests.op_mode import OpMode

    kernel, mode = request.param.split("-")
    if kernel == "native":
        request.getfixturevalue("native")
    return OpMode(kernel, mode)


@pytest.fixture(params=["native", "tensorflow"])
def kernel(request):
    """The name of the implementation that the ops use during the test."""
    from keras_kd import ops

    if request.param == "native":
        request.getfixturevalue("native")
    with ops.use_kernel(request.param):
        yield request.param


@pytest.fixture
def native():
    """The module `keras_kd._native`, with its library loaded."""
    from keras_kd import _library, _native

    try:
        _library.load()
    except _library.LibraryError as error:
        if os.environ.get("KERAS_KD_REQUIRE_NATIVE") == "1":
            raise
        pytest.skip(f"no native library: {error}")
    yield _native
    _native.set_instruction_set("auto")


@pytest.fixture(params=INSTRUCTION_SETS)
def instruction_set(request, native):
    """The name of an instruction set that the native kernels are forced to use."""
    if request.param not in native.instruction_sets():
        pytest.skip(f"this machine has no {request.param}")
    native.set_instruction_set(request.param)
    return request.param
