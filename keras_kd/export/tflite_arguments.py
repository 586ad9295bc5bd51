"""The arguments of `to_tflite`, checked before any work."""

import json
import os
import pathlib

from keras_kd import checks, files
from keras_kd.export import routes

_DTYPES = (None, "float32", "int8", "uint8", "int16")
# What the borders of an integer file may be.
_OF_QUANTIZATION = {"int8": ("float32", "int8", "uint8"), "int16x8": ("float32", "int16")}


def path_of(path, overwrite):
    """The path, if it may be written.

    Raises:
        FileExistsError: It exists, and is not to be replaced.
        ValueError: It is no path, or is a folder.
    """
    checks.boolean("overwrite", overwrite)
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise checks.invalid("path", "the name of a file, such as 'student.tflite'", repr(path))
    if pathlib.Path(path).is_dir():
        raise checks.invalid("path", "the name of a file", f"{os.fspath(path)!r}, a folder")
    return files.free(path, overwrite)


def check(quantization, input_dtype, output_dtype, batch_size, route):
    """Raises `ValueError` unless these arguments of `to_tflite` are possible, and go together."""
    _check_quantization(quantization)
    for name, dtype in (("input_dtype", input_dtype), ("output_dtype", output_dtype)):
        _check_dtype(name, dtype, quantization)
    checks.integer("batch_size", batch_size, 1, optional=True)
    checks.one_of("route", route, ("auto", "converter", "edge_quantizer"))


def _check_quantization(quantization):
    if quantization is None or quantization in routes.QUANTIZATIONS:
        return
    is_recipe = isinstance(quantization, (list, tuple)) and len(quantization)
    if not is_recipe or not all(isinstance(each, dict) for each in quantization):
        expected = (
            f"one of {routes.QUANTIZATIONS} or a recipe of ai_edge_quantizer, a list of dicts"
        )
        raise checks.invalid("quantization", expected, repr(quantization))


def _check_dtype(name, dtype, quantization):
    if dtype is not None and (not isinstance(dtype, str) or dtype not in _DTYPES):
        raise checks.invalid(name, f"one of {_DTYPES}", repr(dtype))
    if dtype in (None, "float32"):
        return
    if not isinstance(quantization, str) or quantization not in routes.NEEDS_DATA:
        raise ValueError(
            f"`{name}` is {dtype!r}, but a file of quantization={quantization!r} computes with "
            "floats. Use quantization='int8'."
        )
    if dtype not in _OF_QUANTIZATION[quantization]:
        raise ValueError(
            f"`{name}` is {dtype!r}, which a file of quantization={quantization!r} cannot have: "
            f"one of {_OF_QUANTIZATION[quantization]}."
        )


def check_metadata(user_metadata):
    """Raises `ValueError` unless it is a dict that comes back as it is."""
    if user_metadata is None:
        return
    is_named = isinstance(user_metadata, dict) and all(isinstance(x, str) for x in user_metadata)
    if not is_named:
        raise checks.invalid("user_metadata", "a dict with strings as keys", repr(user_metadata))
    try:
        json.dumps(user_metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`user_metadata` must have values that JSON has: {error}. Make lists and Python's "
            "numbers of arrays: array.tolist()."
        ) from error
