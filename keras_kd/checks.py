"""Checks of the kinds of arguments that many classes take: each returns the value, or raises."""

import math
import os

import keras
import numpy as np
import tensorflow as tf

from keras_kd.ops.arguments import invalid


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


def folder(name, value):
    """Returns a path as text, or `None`."""
    if value is None:
        return None
    if not isinstance(value, (str, os.PathLike)):
        raise invalid(name, "the path of a folder, or None", repr(value))
    return os.fspath(value)


def batched(name, value):
    """Returns a batched `tf.data.Dataset`."""
    if not isinstance(value, tf.data.Dataset):
        raise invalid(
            name,
            "a batched tf.data.Dataset, such as "
            "tf.data.Dataset.from_tensor_slices((x, y)).batch(32)",
            _briefly(value),
        )
    if any(len(part.shape) == 0 for part in _with_shape(value) if part.shape.rank is not None):
        raise invalid(
            name,
            f"a batched dataset: call {name}.batch(batch_size) first",
            f"a dataset of single rows, {value.element_spec}",
        )
    return value


def _with_shape(dataset):
    return [part for part in tf.nest.flatten(dataset.element_spec) if hasattr(part, "shape")]


def _briefly(value):
    """Arrays by their shape: all numbers would be no message."""
    shape = getattr(value, "shape", None)
    kind = type(value).__name__
    return repr(value) if shape is None else f"{kind} of shape {tuple(shape)}"
