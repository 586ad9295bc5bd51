"""`OnnxOptions`: the arguments of `to_onnx`, checked once before any work."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_kd._utils import validation
from keras_kd.export import judging

# tf2onnx writes 13 to 18, ONNX's own converter 19 and 20; all were tried on every kind of model.
_OPSETS = range(13, 21)
_QUANTIZATIONS = (None, "dynamic", "int8")
# Float: of the largest output. Quantized: root mean square, of the outputs' standard deviation;
# CNNs and transformers on MNIST have 0.02 to 0.08, broken files 0.17 to 1.7.
_TOLERANCE, _TOLERANCE_QUANTIZED = 1e-3, 0.25


@dataclasses.dataclass(frozen=True, eq=False)
class OnnxOptions:
    """The checked arguments of a `to_onnx` call; see there.

    Attributes:
        path: The file to write.
        opset: The version of ONNX's operators.
        batch_size: The batch size of the file, or `None` for any.
        quantization: `None`, `"dynamic"` or `"int8"`.
        for_tensorrt: Whether TensorRT is to read the file.
        task: How the outputs are judged.
        tolerance: How far they may be off, or `None` for the default.
        metadata: What else the file holds, or `None`.

    Raises:
        ValueError: An argument is wrong, or two do not go together.
    """

    path: pathlib.Path
    opset: int = 18
    batch_size: int | None = None
    quantization: str | None = None
    for_tensorrt: bool = False
    task: Any = "auto"
    tolerance: float | None = None
    metadata: Mapping[str, Any] | None = None

    def __post_init__(self):
        quantization, opset = self.quantization, self.opset
        if not isinstance(quantization, (str, type(None))) or quantization not in _QUANTIZATIONS:
            raise validation.invalid(
                "quantization", "None, 'dynamic' or 'int8'", repr(quantization)
            )
        if not isinstance(opset, int) or opset not in _OPSETS:
            raise validation.invalid("opset", "an integer from 13 to 20", repr(opset))
        validation.boolean("for_tensorrt", self.for_tensorrt)
        if self.for_tensorrt and quantization == "dynamic":
            raise ValueError(
                "TensorRT does not read quantization='dynamic': its scales must be in the file. "
                "Pass quantization='int8' with representative_data, or None."
            )
        validation.integer("batch_size", self.batch_size, 1, optional=True)
        if self.tolerance is not None:
            validation.non_negative("tolerance", self.tolerance)
        judging.check_task(self.task)
        _ = self.properties

    @property
    def is_quantized(self) -> bool:
        """Whether anything becomes an integer."""
        return self.quantization is not None

    @property
    def is_integer(self) -> bool:
        """Whether activations are integers too, so that representative data is needed."""
        return self.quantization == "int8"

    @property
    def max_error(self) -> float:
        """The tolerance, or its default."""
        default = _TOLERANCE_QUANTIZED if self.is_quantized else _TOLERANCE
        return default if self.tolerance is None else float(self.tolerance)

    @property
    def properties(self) -> dict[str, str]:
        """The metadata as ONNX has it: strings; other values as JSON."""
        metadata = {} if self.metadata is None else self.metadata
        if not isinstance(metadata, dict) or not all(isinstance(key, str) for key in metadata):
            raise ValueError(
                f"`metadata` must be a dict with strings as keys. Received: {metadata!r}"
            )
        try:
            return {
                key: value if isinstance(value, str) else json.dumps(value, allow_nan=False)
                for key, value in metadata.items()
            }
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`metadata` must have values that JSON has: {error}. Make lists and Python's "
                "numbers of arrays: array.tolist()."
            ) from error


def writable_path(path: Any, overwrite: Any) -> pathlib.Path:
    """The path of the file, if it may be written.

    Raises:
        FileExistsError: It exists, and `overwrite` is `False`.
        ValueError: It does not end in `.onnx`.
    """
    validation.boolean("overwrite", overwrite)
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path).endswith(".onnx"):
        raise ValueError(f"`path` must be a file name ending in .onnx. Received: path={path!r}")
    path = pathlib.Path(path)
    if path.exists() and not (overwrite and path.is_file()):
        raise FileExistsError(
            f"{path} exists. Pass overwrite=True to replace it (if it is a file)."
        )
    return path
