"""Checks of arguments: each returns the value, or raises an error that says what was expected.

Data is checked in `batches`. Messages have four parts: what is wrong, what was expected, what was
received, and where it helps a remedy.
"""

import importlib
import inspect
import math
import os
import re
import types
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

# Errors, warnings and missing packages.


def invalid(name: str, expected: str, received: Any) -> ValueError:
    """The error for an argument.

    Args:
        name: Of the argument.
        expected: What it may be.
        received: What it was, as it is shown: pass `repr(value)` for texts and objects.
    """
    return ValueError(
        f"Invalid value for argument `{name}`. Expected {expected}. Received: {name}={received}"
    )


def briefly(value: Any) -> str:
    """A value for a message: of an array the type and shape, not its numbers."""
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return repr(value) if shape is None else f"{kind} of shape {tuple(shape)}"


_INSIDE = ("contextlib", "keras", "keras_kd", "tensorflow")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns at the user's line: the first one up the stack outside of us, Keras and TensorFlow."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and _package_of(frame) in _INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level if frame is not None else 2)


def _package_of(frame: types.FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def needs(module: str, who: str, extra: str) -> types.ModuleType:
    """Imports a module; raises with what to install where that fails.

    Args:
        module: Its name.
        who: What needs it, for the message.
        extra: The extra of this package that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package, missing = module.split(".")[0], (error.name or "").split(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            message = f"{who} needs {package}: pip install 'keras-kd[{extra}]'"
        elif isinstance(error, ModuleNotFoundError) and missing != package:
            message = (
                f"{who} needs {package}, which is installed, but misses {error.name}: "
                f"pip install {missing}, or all that belongs to it: "
                f"pip install 'keras-kd[{extra}]'"
            )
        else:
            message = (
                f"{who} needs {package}, which is installed, but cannot be imported: {error}. "
                f"Install it again: pip install 'keras-kd[{extra}]' --upgrade"
            )
        raise ImportError(message, name=error.name) from error


# Numbers and booleans.


def non_negative(name: str, value: Any) -> float:
    """Returns a finite number >= 0 as float."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise invalid(name, "a number", repr(value))
    if not (value >= 0 and math.isfinite(value)):
        raise invalid(name, "a finite number, at least 0", value)
    return float(value)


def positive(name: str, value: Any) -> float:
    """Returns a finite number above 0 as float."""
    if non_negative(name, value) == 0:
        raise invalid(name, "a finite number above 0", value)
    return float(value)


def fraction(name: str, value: Any) -> float:
    """Returns a number from 0 to 1 as float."""
    if non_negative(name, value) > 1:
        raise invalid(name, "a number between 0 and 1", value)
    return float(value)


def integer(name: str, value: Any, least: int, optional: bool = False) -> Any:
    """Returns an integer, at least `least` (or `None`, if optional)."""
    if optional and value is None:
        return None
    if not is_integer(value) or value < least:
        or_none = ", or None" if optional else ""
        raise invalid(name, f"an integer, at least {least}{or_none}", repr(value))
    return int(value)


def is_integer(value: Any) -> bool:
    """Whether it is an integer of Python or NumPy; booleans do not count."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def seed(name: str, value: Any) -> int | None:
    """Returns an integer, at least 0, or `None`."""
    return integer(name, value, 0, optional=True)


def boolean(name: str, value: Any) -> bool:
    """Returns a bool. Any other value would silently count as true or false."""
    if not isinstance(value, (bool, np.bool_)):
        raise invalid(name, "True or False", repr(value))
    return bool(value)


# Texts and names.


def text(name: str, value: Any, what: str = "a text", optional: bool = False) -> Any:
    """Returns a text that is not empty (or `None`, if optional)."""
    if optional and value is None:
        return None
    if not isinstance(value, str) or not value:
        raise invalid(name, f"{what}{', or None' if optional else ''}", repr(value))
    return value


def one_of(name: str, value: Any, choices: Iterable[str]) -> str:
    """Returns one of some texts."""
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        raise invalid(name, f"one of {choices}", repr(value))
    return value


def layer_name(name: str, value: Any) -> str | None:
    """Returns a text that Keras takes for the name of a model or layer, or `None`."""
    if value is not None and (not isinstance(value, str) or not value or "/" in value):
        raise invalid(name, "a text without '/', or None", repr(value))
    return value


def input_name(name: str, value: Any) -> str | None:
    """Returns the name of an input, or `None`."""
    return text(name, value, "the name of one of the student's inputs", optional=True)


def output_key(name: str, value: Any) -> str | int | None:
    """Returns the name or the index of an output, or `None`."""
    if is_integer(value):
        return int(value)
    if value is None or (isinstance(value, str) and value):
        return value
    raise invalid(
        name, "the name of an output, an index into the list of outputs, or None", repr(value)
    )


def names(name: str, value: Any, what: str) -> list:
    """Returns a list of different names, texts or integers.

    Args:
        name: Of the argument.
        value: A list, a tuple or an array.
        what: What is expected, in words.
    """
    listed = value.tolist() if isinstance(value, np.ndarray) else value
    is_list = isinstance(listed, (list, tuple))
    if not is_list or not all(_is_name(each) for each in listed):
        raise invalid(name, what, repr(value))
    if len(set(listed)) != len(listed):
        twice = sorted({str(each) for each in listed if listed.count(each) > 1})
        raise invalid(name, f"{what}; {', '.join(twice)} is there twice", repr(value))
    return list(listed)


def _is_name(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else is_integer(value)


# Models, layers and functions.


def model(name: str, value: Any) -> keras.Model:
    """Returns a `keras.Model`."""
    if not isinstance(value, keras.Model):
        raise invalid(name, "a keras.Model", f"{value!r} of type {type(value).__name__}")
    return value


def layer_arguments(given: dict[str, Any]) -> None:
    """Refuses arguments of Keras' layers that a loss or teacher would ignore; sets the dtype.

    Args:
        given: The keyword arguments for `keras.layers.Layer`, which are changed.
    """
    regularizer = given.pop("activity_regularizer", None)
    if regularizer is not None:
        raise invalid(
            "activity_regularizer",
            "None: the outputs of a loss or teacher are not penalized. Give it to a layer",
            repr(regularizer),
        )
    dtype = given.setdefault("dtype", "float32")
    dtype = "float32" if dtype is None else dtype
    if keras.dtype_policies.get(dtype).name != "float32":
        raise invalid("dtype", "'float32', in which losses and teachers hold numbers", repr(dtype))


def function(name: str, value: Any, arguments: Sequence[str], optional: bool = False) -> Any:
    """Returns a function that can be called with these arguments.

    Args:
        name: Of the argument.
        value: The function.
        arguments: What it is called with, in words, such as `("student", "path")`.
        optional: Whether `None` is taken.
    """
    if optional and value is None:
        return None
    of = f"of ({', '.join(arguments)})" if arguments else "without arguments"
    what = f"a function {of}{', or None' if optional else ''}"
    if not callable(value):
        raise invalid(name, what, repr(value))
    other = unfit_signature(value, arguments)
    if other is not None:
        raise invalid(name, what, f"{value!r}, which takes {other}")
    return value


def unfit_signature(value: Any, arguments: Sequence[str]) -> inspect.Signature | None:
    """The signature of a function that cannot be called with these arguments, else `None`."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # some functions written in C have none
        return None
    try:
        signature.bind(*arguments)
    except TypeError:
        return signature
    return None


# Paths.


# `pathlib` makes one slash of two; a single letter is a drive of Windows.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def path(name: str, value: Any, what: str = "a file") -> str:
    """Returns a path of this machine as text.

    Args:
        name: Of the argument.
        value: A text or an `os.PathLike`.
        what: What is there, in words.
    """
    found = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(found, str) or not found:
        raise invalid(name, f"the path of {what}", repr(value))
    if "://" in found or is_address(found):
        raise invalid(
            name, f"the path of {what}; addresses of buckets are none: copy them", repr(value)
        )
    return found


def is_address(path: str) -> bool:
    """Whether it begins like the address of a store; `gs:` would become a local folder."""
    return _ADDRESS.match(path) is not None


def existing_file(name: str, value: Any, what: str) -> None:
    """Raises unless there is a file.

    Args:
        name: Of the argument.
        value: Its path.
        what: Its kind, in words, such as `"an .onnx file"`.
    """
    is_path = isinstance(value, (str, bytes, os.PathLike))
    if not is_path or not os.path.isfile(value):
        raise ValueError(f"`{name}` must be {what}. Received: {name}={value!r}")


def folder(name: str, value: Any) -> str | None:
    """Returns the path of a folder, which may not exist yet, as text, or `None`."""
    if value is None:
        return None
    found = path(name, value, "a folder, or None")
    nearest = found
    while nearest and not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    if nearest and not os.path.isdir(nearest):
        raise invalid(name, f"the path of a folder; {nearest!r} is a file", repr(value))
    return found
