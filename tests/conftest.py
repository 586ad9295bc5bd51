"""Fixtures that run a test over every way into the kernels.

Where the native library is missing its cases are skipped; `KERAS_KD_REQUIRE_NATIVE=1` makes that a
failure, as in CI.
"""

import os

import pytest

from tests import matrix
from tests.matrix import (  # noqa: F401 - pytest's hooks
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_configure_node,
    pytest_report_header,
    pytest_terminal_summary,
    pytest_testnodedown,
)

pytest_plugins = ["tests.extras", "tests.global_state", "tests.recording", "tests.scheduling"]

# Where a GPU is, TensorFlow would take all of its memory, also from the tests that use the driver.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

# `*dynamic` knows no dimension before the call. Where the quick matrix needs one of several it
# takes the first: plain TensorFlow, whose arithmetic XLA compiles itself, and always the same, so
# that tests share what is compiled.
EXECUTION = {
    "eager": "eager",
    "graph": "graph",
    "dynamic": "graph",
    "xla": "xla",
    "xla_dynamic": "xla",
}
OP_MODES = [
    matrix.Mode(f"{kernel}-{mode}", level, shares_tracing=True)
    for kernel in ("tensorflow", "native")
    for mode, level in EXECUTION.items()
]
# The code that computes, without the time to trace and compile: graph mode runs the operations of
# eager mode. XLA's own arithmetic is the business of the tests that run in every mode.
ARITHMETICS = ["native-eager", "tensorflow-eager"]
# `test_native_numpy.py` proves that no instruction set of the library is missing here.
INSTRUCTION_SETS = ["baseline", "avx2", "avx512"]


@pytest.fixture(params=OP_MODES)
def op_mode(request):
    """An `OpMode`: each implementation of the ops in each execution mode.

    For tests that keep to few shapes and options: each is traced, and compiled, once a mode. The
    quick matrix takes few of them, as `tests/matrix.py` says.
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
    """The module `keras_kd.ops.backends.ctypes`, with its library loaded."""
    from keras_kd.ops.backends import ctypes, shared_library

    try:
        shared_library.load()
    except shared_library.LibraryError as error:
        if os.environ.get("KERAS_KD_REQUIRE_NATIVE") == "1":
            raise
        pytest.skip(f"no native library: {error}")
    yield ctypes
    ctypes.set_instruction_set("auto")


@pytest.fixture(params=INSTRUCTION_SETS)
def instruction_set(request, native):
    """The name of an instruction set that the native kernels are forced to use."""
    if request.param not in native.instruction_sets():
        pytest.skip(f"this machine has no {request.param}")
    native.set_instruction_set(request.param)
    return request.param
