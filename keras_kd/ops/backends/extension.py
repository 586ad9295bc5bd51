"""Finds and opens `keras_kd._kernels`: the kernels on NumPy arrays, in C++ for one Python each.

`csrc/python` is the module, on the C interface of `libkeras_kd.so`. A wheel holds one for each
Python whose headers were there when it was built, a source build that of the Python that built it.
Where there is none `ctypes.py` computes the same bits: a small call takes 20 times as long.
"""

import functools
import importlib
import importlib.machinery
import pathlib
import sys
from types import ModuleType

from keras_kd import version
from keras_kd.ops.backends import shared_library

NAME = "keras_kd._kernels"
_PACKAGE = pathlib.Path(__file__).parents[2]
# `setup.py` leaves the reason here, since pip hides what it prints.
_NOTE = _PACKAGE / "lib" / "NO_MODULE.txt"


@functools.cache
def load() -> ModuleType:
    """Opens the module once.

    Returns:
        The module: the functions of `ctypes.py` but `triad`.

    Raises:
        LibraryError: `libkeras_kd.so` cannot be used, or this Python has no module, or one that
            cannot be opened.
    """
    shared_library.load()  # what is wrong with the library is said there
    if file_name() is None:
        raise shared_library.LibraryError(_why_missing())
    try:
        return importlib.import_module(NAME)
    except ImportError as error:
        raise shared_library.LibraryError(
            f"{file_name()} cannot be used: {error}. It belongs to another version than keras_kd "
            f"{version.__version__}, or to another system. {shared_library.REMEDY}"
        ) from error


def file_name() -> str | None:
    """The name of the file that this Python would open, or `None`."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = _PACKAGE / f"_kernels{suffix}"
        if path.exists():
            return path.name
    return None


def unavailable() -> str:
    """Why the module cannot be used; empty if it can."""
    try:
        load()
    except shared_library.LibraryError as error:
        return str(error)
    return ""


def _why_missing() -> str:
    found = sorted(path.name for path in _PACKAGE.glob("_kernels*.so"))
    python = f"{sys.implementation.name} {sys.version_info.major}.{sys.version_info.minor}"
    if found:
        reason = f"this installation holds {NAME} for other Pythons only ({', '.join(found)})"
    elif _NOTE.exists():
        reason = _NOTE.read_text(encoding="utf-8").strip().rstrip(".")
    else:
        reason = f"this installation holds no {NAME}"
    return (
        f"No module for {python}: {reason}. ctypes gives the same numbers, at a higher cost per "
        "call. Remedy: install the headers of this Python (python3-dev), then `pip install "
        "--force-reinstall --no-deps --no-binary keras-kd keras-kd`."
    )
