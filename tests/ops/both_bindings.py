"""Every call through pybind11 and through ctypes: the same bits, or the same error."""

import numpy as np

# What a wrong call may raise; anything else is a failure of the binding.
ERRORS = (ValueError, TypeError, OverflowError)


class BothBindings:
    """The functions that both bindings have; each call makes both, and compares.

    What a test holds against float64 then holds for both, and is computed in float64 once.
    """

    def __init__(self, module, ctypes):
        self._bindings = (module, ctypes)

    def __getattr__(self, name):
        functions = [getattr(binding, name) for binding in self._bindings]

        def call(*args, **kwargs):
            module, ctypes = (_outcome(function, args, kwargs) for function in functions)
            assert_same(module, ctypes)
            if isinstance(module, Exception):
                raise module
            return module

        return call


def _outcome(function, args, kwargs):
    try:
        return function(*args, **kwargs)
    except ERRORS as error:
        return error


def assert_same(module, ctypes):
    """Fails where the outcomes of both bindings differ: in a bit, a type or a message."""
    assert type(module) is type(ctypes), (module, ctypes)
    if isinstance(module, tuple):
        for left, right in zip(module, ctypes, strict=True):
            assert_same(left, right)
    elif isinstance(module, np.ndarray):
        assert (module.dtype, module.shape) == (ctypes.dtype, ctypes.shape)
        assert module.flags.c_contiguous
        assert module.flags["W"]
        assert module.tobytes() == ctypes.tobytes()
    elif isinstance(module, Exception):
        assert str(module) == str(ctypes)
    else:
        assert module == ctypes
