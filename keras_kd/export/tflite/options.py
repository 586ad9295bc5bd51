"""`TFLiteOptions`: the arguments of `to_tflite`, checked once before any work."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from keras_kd._utils import files, validation
from keras_kd.export import judging

QUANTIZATIONS = (None, "dynamic", "float16", "int8", "int16x8", "int4")
_INTEGER_ACTIVATIONS = ("int8", "int16x8")
_CONVERTER_ONLY = (None, "float16")
# In the order in which they are tried. Dynamic files of ai-edge-quantizer keep embeddings in float
# (1,144,512 bytes against 376,768 of a small transformer); its int8 is faster to make, needs no
# process of its own and leaves the layout of the ranges to us.
_ROUTES = {
    None: ("converter",),
    "float16": ("converter",),
    "dynamic": ("converter", "edge_quantizer"),
    "int8": ("edge_quantizer", "converter"),
    "int16x8": ("converter", "edge_quantizer"),
    "int4": ("edge_quantizer",),
}
_DTYPES = (None, "float32", "int8", "uint8", "int16")
_OWN_DTYPE = {"int8": "int8", "int16x8": "int16"}
# The possible types of inputs and outputs of an integer file.
_OF_QUANTIZATION = {"int8": ("float32", "int8", "uint8"), "int16x8": ("float32", "int16")}


@dataclasses.dataclass(frozen=True, eq=False)
class TFLiteOptions:
    """The checked arguments of a `to_tflite` call; see there.

    Attributes:
        path: The file to write.
        quantization: One of `QUANTIZATIONS`, or a recipe of ai-edge-quantizer.
        input_dtype: The type of inputs that are real numbers, or `None` for the default.
        output_dtype: The same of the outputs.
        batch_size: The batch size of the file, or `None` for any.
        route: `"auto"`, `"converter"` or `"edge_quantizer"`.
        task: How the outputs are judged.
        bounds: How far the file may be off.
        user_metadata: What else the file holds.
        has_trained_ranges: Whether the student knows the ranges of its file, which one route can
            write only.

    Raises:
        FileExistsError: The file exists, and is not to be replaced.
        ValueError: An argument is wrong, or two do not go together.
    """

    path: pathlib.Path
    quantization: Any = None
    input_dtype: str | None = None
    output_dtype: str | None = None
    batch_size: int | None = 1
    route: str = "auto"
    task: Any = "auto"
    bounds: judging.Bounds = dataclasses.field(default_factory=judging.Bounds)
    user_metadata: Mapping[str, Any] | None = None
    has_trained_ranges: bool = False

    def __post_init__(self):
        judging.check_task(self.task)
        _check_quantization(self.quantization)
        for name in ("input_dtype", "output_dtype"):
            _check_dtype(name, getattr(self, name), self.quantization)
        validation.integer("batch_size", self.batch_size, 1, optional=True)
        validation.one_of("route", self.route, ("auto", "converter", "edge_quantizer"))
        _check_metadata(self.user_metadata)
        self.routes()

    @property
    def is_recipe(self) -> bool:
        """Whether the quantization is a recipe of ai-edge-quantizer."""
        return not (self.quantization is None or isinstance(self.quantization, str))

    @property
    def name(self) -> str | None:
        """The quantization in a word."""
        return "recipe" if self.is_recipe else self.quantization

    @property
    def is_integer(self) -> bool:
        """Whether activations are integers too, so that representative data is needed."""
        return not self.is_recipe and self.quantization in _INTEGER_ACTIVATIONS

    @property
    def needs_edge_quantizer(self) -> bool:
        """Whether ai-edge-quantizer may be used."""
        return self.is_recipe or self.quantization not in _CONVERTER_ONLY

    @property
    def input_type(self) -> str | None:
        """The type of inputs that are real numbers in the file; `None`: of the recipe."""
        return self.input_dtype or self._own_dtype

    @property
    def output_type(self) -> str | None:
        """The same of the outputs."""
        return self.output_dtype or self._own_dtype

    @property
    def _own_dtype(self):
        return None if self.is_recipe else _OWN_DTYPE.get(self.quantization, "float32")

    def routes(self) -> Sequence[str]:
        """The routes to try, in order.

        Raises:
            ValueError: The `route` argument is not possible for this quantization.
        """
        only_edge = self.is_recipe or self.has_trained_ranges
        possible = ("edge_quantizer",) if only_edge else _ROUTES[self.quantization]
        if self.route == "auto":
            return possible
        if self.route not in possible:
            expected = f"'auto' or one of {possible} for quantization={self.quantization!r}"
            raise validation.invalid("route", expected, repr(self.route))
        return (self.route,)


def writable_path(path: Any, overwrite: Any) -> pathlib.Path:
    """The path of the file, if it may be written.

    Raises:
        FileExistsError: It exists, and is not to be replaced.
        ValueError: It is not a path, or is a folder.
    """
    validation.boolean("overwrite", overwrite)
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise validation.invalid("path", "the name of a file, such as 'student.tflite'", repr(path))
    if pathlib.Path(path).is_dir():
        raise validation.invalid("path", "the name of a file", f"{os.fspath(path)!r}, a folder")
    return files.check_free(path, overwrite)


def _check_quantization(quantization):
    if quantization is None or quantization in QUANTIZATIONS:
        return
    is_recipe = isinstance(quantization, (list, tuple)) and len(quantization)
    if not is_recipe or not all(isinstance(each, dict) for each in quantization):
        expected = f"one of {QUANTIZATIONS} or a recipe of ai_edge_quantizer, a list of dicts"
        raise validation.invalid("quantization", expected, repr(quantization))


def _check_dtype(name, dtype, quantization):
    if dtype is not None and (not isinstance(dtype, str) or dtype not in _DTYPES):
        raise validation.invalid(name, f"one of {_DTYPES}", repr(dtype))
    if dtype in (None, "float32"):
        return
    if not isinstance(quantization, str) or quantization not in _INTEGER_ACTIVATIONS:
        raise ValueError(
            f"`{name}` is {dtype!r}, but a file of quantization={quantization!r} computes with "
            "floats. Use quantization='int8'."
        )
    if dtype not in _OF_QUANTIZATION[quantization]:
        raise ValueError(
            f"`{name}` is {dtype!r}, which a file of quantization={quantization!r} cannot have: "
            f"one of {_OF_QUANTIZATION[quantization]}."
        )


def _check_metadata(user_metadata):
    """Raises `ValueError` unless it is a dict that can be read back unchanged."""
    if user_metadata is None:
        return
    is_named = isinstance(user_metadata, dict) and all(isinstance(x, str) for x in user_metadata)
    if not is_named:
        raise validation.invalid(
            "user_metadata", "a dict with strings as keys", repr(user_metadata)
        )
    try:
        json.dumps(user_metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`user_metadata` must have values that JSON has: {error}. Make lists and Python's "
            "numbers of arrays: array.tolist()."
        ) from error
