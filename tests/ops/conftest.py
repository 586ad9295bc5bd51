"""The kernels on NumPy arrays, through both bindings at once where this Python has the module."""

import pytest

from tests.ops.both_bindings import BothBindings


@pytest.fixture
def native(native):
    """`BothBindings`, with the library loaded; without the module the ctypes binding alone."""
    from keras_kd.ops.backends import extension

    return native if extension.unavailable() else BothBindings(extension.load(), native)


@pytest.fixture(params=["pybind11", "ctypes"])
def binding(request, native):
    """The functions of one binding, alone."""
    from keras_kd.ops.backends import ctypes, extension

    if request.param == "ctypes":
        return ctypes
    if extension.unavailable():
        pytest.skip(extension.unavailable())
    return extension.load()
