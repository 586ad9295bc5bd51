"""Checks of arguments that many classes take: each returns the value, or raises a clear error."""

import importlib
import inspect
import math
import os
import re
import warnings

import keras
import numpy as np
import tensorflow as tf

# Checks of the kinds of arguments that many classes take: each returns the value, or raises.


# `pathlib` makes one slash of two; a single letter is a drive of Windows.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def non_negative(name, value):
    """Returns a finite number >= 0 as float, or raises."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a number. Received: {name}={value!r}"
        )
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a finite number, at least 0. "
            f"Received: {name}={value}"
        )
    return float(value)


def integer(name, value, least, optional=False):
    """Returns an integer, at least `least` (or `None`, if optional), or raises."""
    if optional and value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected an integer, at least {least}"
            f"{', or None' if optional else ''}. Received: {name}={value!r}"
        )
    return int(value)


def boolean(name, value):
    """Returns a bool. Of other values Python would take every word and number for one."""
    if not isinstance(value, (bool, np.bool_)):
        raise invalid(name, "True or False", repr(value))
    return bool(value)


def text(name, value, what="a text", optional=False):
    """Returns a text that is not empty (or `None`, if optional)."""
    if optional and value is None:
        return None
    if not isinstance(value, str) or not value:
        raise invalid(name, f"{what}{', or None' if optional else ''}", repr(value))
    return value


def positive(name, value):
    """Returns a finite number above 0 as float."""
    if non_negative(name, value) == 0:
        raise invalid(name, "a finite number above 0", value)
    return float(value)


def fraction(name, value):
    """Returns a number from 0 to 1 as float."""
    if non_negative(name, value) > 1:
        raise invalid(name, "a number between 0 and 1", value)
    return float(value)


def one_of(name, value, choices):
    """Returns one of some texts."""
    if not isinstance(value, str) or value not in choices:
        raise invalid(name, f"one of {tuple(choices)}", repr(value))
    return value


def layer_name(name, value):
    """Returns what a model or layer may be called in Keras, or `None`."""
    if value is not None and (not isinstance(value, str) or not value or "/" in value):
        raise invalid(name, "a text without '/', or None", repr(value))
    return value


def input_name(name, value):
    """Returns the name of an input, or `None`."""
    return text(name, value, "the name of one of the student's inputs", optional=True)


def output_key(name, value):
    """Returns what names an output: a name, an index, or `None`."""
    is_index = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if value is None or is_index or (isinstance(value, str) and value):
        return int(value) if is_index else value
    raise invalid(
        name, "the name of an output, an index into the list of outputs, or None", repr(value)
    )


def layer_arguments(given):
    """Refuses what Keras' layers take and a loss or teacher would not honour; sets the dtype.

    Args:
        given: The keyword arguments for `keras.layers.Layer`, which are changed.
    """
    regularizer = given.pop("activity_regularizer", None)
    if regularizer is not None:
        raise invalid(
            "activity_regularizer",
            "None: what a loss or teacher gives is not penalised. Give it to a layer",
            repr(regularizer),
        )
    dtype = given.setdefault("dtype", "float32")
    dtype = "float32" if dtype is None else dtype
    if keras.dtype_policies.get(dtype).name != "float32":
        raise invalid("dtype", "'float32', in which losses and teachers hold numbers", repr(dtype))


def seed(name, value):
    """Returns an integer, or `None`."""
    return integer(name, value, 0, optional=True)


def path(name, value, what="a file"):
    """Returns a path of this machine as text.

    Args:
        name: Of the argument.
        value: A text or an `os.PathLike`.
        what: What it is the path of, in words.
    """
    found = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(found, str) or not found:
        raise invalid(name, f"the path of {what}", repr(value))
    if "://" in found or is_address(found):
        raise invalid(
            name, f"the path of {what}; addresses of buckets are none: copy them", repr(value)
        )
    return found


def is_address(path):
    """Whether it begins as an address of a store, of which a folder `gs:` would be made here."""
    return _ADDRESS.match(path) is not None


def folder(name, value):
    """Returns the path of a folder, which need not exist, as text, or `None`."""
    if value is None:
        return None
    found = path(name, value, "a folder, or None")
    nearest = found
    while nearest and not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    if nearest and not os.path.isdir(nearest):
        raise invalid(name, f"the path of a folder; {nearest!r} is a file", repr(value))
    return found


def function(name, value, arguments, optional=False):
    """Returns a function that can be called with so many arguments.

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


def unfit_signature(value, arguments):
    """The signature of a function that cannot be called with so many arguments, else `None`."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # some that are written in C tell none
        return None
    try:
        signature.bind(*arguments)
    except TypeError:
        return signature
    return None


def names(name, value, what):
    """Returns a list of different names, texts or integers, each with a place of its own.

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


def _is_name(value):
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def never_ends(data):
    """Whether a `tf.data.Dataset` or a `PyDataset` says that it is endless; others cannot say."""
    if isinstance(data, tf.data.Dataset):
        return int(data.cardinality()) == tf.data.INFINITE_CARDINALITY
    return isinstance(data, keras.utils.PyDataset) and data.num_batches is None


def batched(name, value):
    """Returns a batched `tf.data.Dataset`."""
    if not isinstance(value, tf.data.Dataset):
        raise invalid(
            name,
            "a batched tf.data.Dataset, such as "
            "tf.data.Dataset.from_tensor_slices((x, y)).batch(32)",
            briefly(value),
        )
    _check_tensors(name, value)
    if any(len(part.shape) == 0 for part in _with_shape(value)):
        raise invalid(
            name,
            f"a batched dataset: call {name}.batch(batch_size) first",
            f"a dataset of single rows, {value.element_spec}",
        )
    return value


def _check_tensors(name, dataset):
    """Raises where parts of the elements have no rows that are all alike."""
    for part in tf.nest.flatten(dataset.element_spec):
        if isinstance(part, (tf.RaggedTensorSpec, tf.SparseTensorSpec)):
            raise invalid(
                name,
                "a dataset of dense tensors: make them with tf.RaggedTensor.to_tensor() or "
                f"tf.sparse.to_dense in {name}.map",
                part,
            )
        if hasattr(part, "shape") and part.shape.rank is None:
            raise invalid(
                name,
                "a dataset whose tensors have a known rank: set it with tf.ensure_shape in "
                f"{name}.map, or in the output_signature of from_generator",
                part,
            )


def _with_shape(dataset):
    return [part for part in tf.nest.flatten(dataset.element_spec) if hasattr(part, "shape")]


def briefly(value):
    """A value for a message; arrays by their shape: all numbers would be no message."""
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return repr(value) if shape is None else f"{kind} of shape {tuple(shape)}"


# Warnings that point at the user's line, not at Keras' loop over callbacks.


_INSIDE = ("contextlib", "keras", "keras_kd", "tensorflow")


def warn(message, category=UserWarning):
    """Warns at the first line up the stack that is neither ours, nor Keras', nor TensorFlow's."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and _package(frame) in _INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level if frame is not None else 2)


def _package(frame):
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def invalid(name, expected, received):
    """The error for an argument that is not what was expected."""
    return ValueError(
        f"Invalid value for argument `{name}`. Expected {expected}. Received: {name}={received}"
    )


def needs(module, who, extra):
    """The module that something needs; raises with what to install where it cannot be imported.

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
            told = f"{who} needs {package}: pip install 'keras-kd[{extra}]'"
        elif isinstance(error, ModuleNotFoundError) and missing != package:
            told = (
                f"{who} needs {package}, which is installed, but misses {error.name}: "
                f"pip install {missing}, or all that belongs to it: "
                f"pip install 'keras-kd[{extra}]'"
            )
        else:
            told = (
                f"{who} needs {package}, which is installed, but cannot be imported: {error}. "
                f"Install it again: pip install 'keras-kd[{extra}]' --upgrade"
            )
        raise ImportError(told, name=error.name) from error
