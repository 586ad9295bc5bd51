"""The arguments of `to_onnx`, checked before any work."""

import dataclasses
import json
import os
import pathlib

from keras_kd import checks
from keras_kd.export import onnx_checks
from keras_kd.losses.base import integer, non_negative
from keras_kd.ops.arguments import invalid
from keras_kd.teachers.host import needs

# tf2onnx writes 13 to 18, ONNX's own converter 19 and 20; all were tried on every kind of model.
_OPSETS = range(13, 21)
_QUANTIZATIONS = (None, "dynamic", "int8")
_PACKAGES = ("onnx", "onnxruntime", "tf2onnx")


@dataclasses.dataclass(frozen=True)
class Options:
    """What `to_onnx` was asked for: see there."""

    opset: int
    batch_size: int | None
    quantization: str | None
    for_tensorrt: bool
    tolerance: float
    metadata: dict
    outliers: str = ""  # what is to be said of the representative data

    @property
    def is_quantized(self):
        """Whether anything becomes an integer."""
        return self.quantization is not None


def options(opset, batch_size, quantization, for_tensorrt, tolerance, metadata):
    """The checked `Options`.

    Raises:
        ValueError: One is wrong, or two do not go together.
        ImportError: A package is missing.
    """
    if not isinstance(quantization, (str, type(None))) or quantization not in _QUANTIZATIONS:
        raise invalid("quantization", "None, 'dynamic' or 'int8'", repr(quantization))
    if not isinstance(opset, int) or opset not in _OPSETS:
        raise invalid("opset", "an integer from 13 to 20", repr(opset))
    if for_tensorrt and quantization == "dynamic":
        raise ValueError(
            "TensorRT does not read quantization='dynamic': its scales must be in the file. Pass "
            "quantization='int8' with representative_data, or None."
        )
    default = onnx_checks.TOLERANCE if quantization is None else onnx_checks.TOLERANCE_QUANTIZED
    checked = Options(
        opset,
        integer("batch_size", batch_size, 1, optional=True),
        quantization,
        checks.boolean("for_tensorrt", for_tensorrt),
        default if tolerance is None else non_negative("tolerance", tolerance),
        _properties(metadata),
    )
    for package in _PACKAGES:
        needs(package, "to_onnx", "onnx")
    return checked


def path_of(path, overwrite):
    """The path, if it may be written.

    Raises:
        FileExistsError: It exists, and `overwrite` is `False`.
        ValueError: It does not end in `.onnx`.
    """
    checks.boolean("overwrite", overwrite)
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path).endswith(".onnx"):
        raise ValueError(f"`path` must be a file name ending in .onnx. Received: path={path!r}")
    path = pathlib.Path(path)
    if path.exists() and not (overwrite and path.is_file()):
        raise FileExistsError(
            f"{path} exists. Pass overwrite=True to replace it (if it is a file)."
        )
    return path


def _properties(metadata):
    """Metadata as ONNX has it: strings; other values as JSON."""
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(key, str) for key in metadata):
        raise ValueError(f"`metadata` must be a dict with strings as keys. Received: {metadata!r}")
    try:
        return {
            key: value if isinstance(value, str) else json.dumps(value, allow_nan=False)
            for key, value in metadata.items()
        }
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`metadata` must have values that JSON has: {error}. Make lists and Python's numbers "
            "of arrays: array.tolist()."
        ) from error
