"""Tensors of a model file: what goes in and comes out, how arrays are matched to them."""

import dataclasses
import itertools
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """An input or output of a file.

    Args:
        name: Its name in a dict of inputs.
        shape: Its dimensions; `None` for one that may have any size.
        dtype: NumPy's name of its type, such as `"float32"` or `"int8"`.
        scale: For integers that stand for real numbers, `real = scale * (integer - zero_point)`;
            else `None`.
        zero_point: The integer that stands for 0.
        symbols: What the file calls each of the dimensions, `None` where it has no name for it;
            those of one name have one size.

    Example:

    ```python
    from keras_kd import runtimes

    info = runtimes.TensorInfo("image", (None, 2), "int8", scale=0.5, zero_point=-1)
    assert info.encoded([[0.0, 2.0]]).tolist() == [[-1, 3]]
    assert info.decoded([[-1, 3]]).tolist() == [[0.0, 2.0]]
    ```
    """

    name: str
    shape: tuple
    dtype: str
    scale: float | None = None
    zero_point: int = 0
    symbols: tuple = ()

    def encoded(self, values: Any) -> np.ndarray:
        """Real numbers as the file takes them.

        Integers of the file's own type are taken to be quantized already.

        Raises:
            ValueError: The file's type cannot hold them.
        """
        values = np.asarray(values)
        if values.dtype.name == self.dtype:
            return values
        if self.scale is None:
            return self._cast(values)
        if np.isnan(values).any():
            raise ValueError(f"Input {self.name!r} holds NaN, which {self.dtype} cannot.")
        limits = np.iinfo(self.dtype)
        found = np.round(values / np.float32(self.scale)) + self.zero_point
        return np.clip(found, limits.min, limits.max).astype(self.dtype)

    def _cast(self, values):
        wanted = np.dtype(self.dtype)
        if wanted.kind in "iubf" and values.dtype.kind not in "iubfV":  # V: ml_dtypes' own
            raise ValueError(
                f"Input {self.name!r} is of type {self.dtype}. Received {values.dtype}, which "
                "is not numeric."
            )
        if wanted.kind in "iub":
            self._check_whole(values, wanted)
        return values.astype(wanted)

    def _check_whole(self, values, wanted):
        if values.dtype.kind == "f" and (values != np.floor(values)).any():
            raise ValueError(
                f"Input {self.name!r} is of type {self.dtype} without a scale, such as ids or "
                "indices. Received numbers that are not whole."
            )
        low, high = (0, 1) if wanted.kind == "b" else _limits(wanted)
        # Cast, a number out of range would become another one.
        if values.size and (values.min() < low or values.max() > high):
            raise ValueError(
                f"Input {self.name!r} is of type {self.dtype}, which holds {low} to {high}. "
                f"Received numbers from {values.min()} to {values.max()}."
            )

    def decoded(self, values: Any) -> np.ndarray:
        """What the file gives as real numbers, float32."""
        values = np.asarray(values).astype(np.float32)
        if self.scale is None:
            return values
        return (values - np.float32(self.zero_point)) * np.float32(self.scale)

    def fits(self, shape: tuple) -> bool:
        """Whether an array of this shape, with any number of samples, can be this input.

        Sizes that are not known yet are `None`, and fit.
        """
        return len(shape) == len(self.shape) and all(
            wanted is None or size is None or wanted == size
            for wanted, size in zip(self.shape[1:], shape[1:], strict=True)
        )

    def to_channels_last(self) -> "TensorInfo":
        """Of an image or feature map with channels first, how Keras would have it: last."""
        return dataclasses.replace(
            self, shape=_last(self.shape), symbols=_last(self.symbols) if self.symbols else ()
        )


def _limits(dtype):
    limits = np.iinfo(dtype)
    return limits.min, limits.max


def _last(sizes):
    return (sizes[0], *sizes[2:], sizes[1]) if len(sizes) == 4 else tuple(sizes)


def channels_last(array: np.ndarray) -> np.ndarray:
    """A feature map of `[samples, channels, height, width]` in Keras' order; others as they are."""
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def channels_first(array: np.ndarray) -> np.ndarray:
    """`channels_last` the other way round."""
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


@dataclasses.dataclass(frozen=True)
class Operator:
    """An operator of a file.

    Args:
        name: Its kind, such as `"CONV_2D"`; of one that is not built in `"CUSTOM:FlexErf"`.
        inputs: The types of its inputs, such as `"int8"`; `None` for one that is left out.
        outputs: The types of its outputs.
        label: The name of its first output, by which its layer can be found.
        graph: Which graph of the file it is in; 0 is the main one, others are bodies of loops.

    Example:

    ```python
    def in_float(path):  # path: a .tflite file
        from keras_kd import runtimes

        return [x.label for x in runtimes.TFLiteFile(path).operators if "float32" in x.outputs]
    ```
    """

    name: str
    inputs: tuple
    outputs: tuple
    label: str = ""
    graph: int = 0


# What makes an output: softmax, sigmoid, or anything else.

# Operators after which values are still the same probabilities.
_PASSES_ON = {
    *("CAST", "DEQUANTIZE", "DEQUANTIZELINEAR", "EXPANDDIMS", "FLATTEN", "IDENTITY", "QUANTIZE"),
    *("QUANTIZELINEAR", "RESHAPE", "SQUEEZE", "TRANSPOSE", "UNSQUEEZE"),
}
# What may stand between a sum and the division by it.
_REPEATS = _PASSES_ON | {"BROADCASTTO", "EXPAND", "TILE"}
_NAMES = {"LOGISTIC": "sigmoid", "SIGMOID": "sigmoid", "SOFTMAX": "softmax"}


@dataclasses.dataclass
class Step:
    """An operator, as far as its activation matters.

    Args:
        kind: The operator's name in the file's format.
        inputs: The tensors that it reads: names, or indices.
        branches: For an operator that runs one of several graphs: `(steps, tensor)` of each, the
            arguments of `activation`.
    """

    kind: str
    inputs: list
    branches: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        self.kind = self.kind.replace("_", "").upper()


def activation(steps: dict, tensor: Any) -> str | None:
    """`"softmax"`, `"sigmoid"`, or `None` for what is neither, or not plain.

    A softmax may be spelled out, as `exp(x) / sum(exp(x))`.

    Args:
        steps: `{tensor: the Step that makes it}`.
        tensor: The output.
    """
    step = _maker(steps, tensor, _PASSES_ON)
    if step is None:
        return None
    if step.branches:
        found = {activation(*branch) for branch in step.branches}
        return found.pop() if len(found) == 1 else None
    if step.kind == "DIV" and _is_softmax(steps, step):
        return "softmax"
    return _NAMES.get(step.kind)


def _is_softmax(steps, division):
    top, bottom = (_maker(steps, tensor, _REPEATS) for tensor in division.inputs[:2])
    if top is None or bottom is None or top.kind != "EXP":
        return False
    return bottom.kind in ("REDUCESUM", "SUM") and _maker(steps, bottom.inputs[0], ()) is top


def _maker(steps, tensor, passed):
    step = steps.get(tensor)
    while step is not None and step.kind in passed:
        step = steps.get(step.inputs[0])
    return step


# Which input of the data is which input of a file.

# The 720 orders of so many inputs are tried.
_MOST_INPUTS = 6


def match_inputs(inputs: Any, infos: list[TensorInfo]) -> dict[str, Any]:
    """The inputs of a batch as `{name: array}` of the file.

    Of a dict those of the file's names are taken; the only input may have another name. A file has
    an order of its own, in which the model's is lost: arrays without names are taken where only one
    order of them fits the shapes and types.

    Args:
        inputs: Arrays in the structure of the data, or what has `shape` and `dtype` as they have.
        infos: A `TensorInfo` for each input of the file that comes from the data.

    Raises:
        ValueError: Names are missing; several orders fit, or none.
    """
    names = [info.name for info in infos]
    if isinstance(inputs, dict) and set(names) <= set(inputs):
        return {name: inputs[name] for name in names}
    flat = keras.tree.flatten(inputs)
    if len(infos) == len(flat) == 1:
        return {names[0]: flat[0]}
    if isinstance(inputs, dict):
        raise ValueError(
            f"The file takes the inputs {names}; the batch has {sorted(inputs)}. {_remedy(names)}"
        )
    return _ordered(flat, infos)


def _remedy(names):
    listed = ", ".join(f"{name!r}: ..." for name in names)
    return (
        f"Let the data give {{{listed}}}, or, of a teacher, rename them with "
        f"preprocess=lambda inputs: {{{listed}}}; what the data does not have goes into "
        "`constants`, of the teacher or of the file: keras_kd.measurement.runtimes."
    )


def _ordered(flat, infos):
    described = [f"{info.name} {info.shape} {info.dtype}" for info in infos]
    names = [info.name for info in infos]
    if len(flat) != len(infos):
        raise ValueError(
            f"The file takes {len(infos)} inputs; the batch has {len(flat)}. They are {described}. "
            f"{_remedy(names)}"
        )
    arrays = [x if hasattr(x, "shape") and hasattr(x, "dtype") else np.asarray(x) for x in flat]
    orders = itertools.permutations(arrays) if len(arrays) <= _MOST_INPUTS else []
    fitting = [order for order in orders if all(map(_fits, infos, order))]
    if len(fitting) != 1:
        raise ValueError(
            f"Which of the data's inputs is which of the file's, {described}, cannot be found by "
            f"their shapes and types. {_remedy(names)}"
        )
    return {info.name: x for info, x in zip(infos, fitting[0], strict=True)}


def _fits(info, array):
    is_ids = np.dtype(info.dtype).kind in "iub"
    is_same = info.scale is not None or is_ids == (np.dtype(array.dtype).kind in "iub")
    return is_same and (array.shape is None or info.fits(tuple(array.shape)))


# From the user's arrays to the batches that a file takes.


def require_file(path: Any, ending: str) -> str:
    """The path as text; raises unless it is a file."""
    path = validation.path("path", path, f"a {ending} file")
    if not os.path.isfile(path):
        raise ValueError(f"There is no file {path!r}. Expected the path of a {ending} file.")
    return path


def positive(name: str, value: Any, least: int = 1) -> int:
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise invalid(name, f"a whole number of at least {least}", repr(value))
    return int(value)


def order_inputs(inputs: Any, infos: list[TensorInfo]) -> list[np.ndarray]:
    """The arrays of a batch in the order of the file's inputs.

    Args:
        inputs: A dict by name, a list in the file's order, or one array.
        infos: A `TensorInfo` for each input.

    Raises:
        ValueError: They are not the file's inputs, or differ in their samples.
    """
    names = [info.name for info in infos]
    if isinstance(inputs, dict):
        if set(inputs) != set(names):
            raise ValueError(f"The file takes the inputs {names}. Received: {sorted(inputs)}")
        found = [inputs[name] for name in names]
    else:
        found = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if len(found) != len(names):
        raise ValueError(
            f"The file takes {len(names)} inputs; the batch has {len(found)}. They are {names}."
        )
    arrays = [np.asarray(each) for each in found]
    for info, array in zip(infos, arrays, strict=True):
        check_fit(info, array.shape)
    rows = {array.shape[0] for array in arrays}
    if len(rows) != 1 or rows == {0}:
        raise ValueError(f"The inputs must have one batch size, above 0. Received: {sorted(rows)}")
    return arrays


def check_fit(info: TensorInfo, shape: tuple) -> None:
    """Raises `ValueError` unless an array of a shape can be an input."""
    if not info.shape:
        raise ValueError(
            f"Input {info.name!r} of the file is a scalar, which no batch has. Give it to the "
            f"file: constants={{{info.name!r}: ...}}"
        )
    if info.fits(shape):
        return
    raise ValueError(
        f"Input {info.name!r} of the file has shape {info.shape}. Received an array of shape "
        f"{tuple(shape)}{_hint(info, tuple(shape))}"
    )


def _hint(info, shape):
    """What to do about images whose channels are elsewhere."""
    if len(shape) != 4:
        return ""
    rows, one, two, three = shape
    if info.fits((rows, three, one, two)):
        return (
            ": images in Keras' order, for a file that has channels first. Pass "
            "channels_first=True, or preprocess=lambda x: tf.transpose(x, [0, 3, 1, 2]), to its "
            "teacher; for keras_kd.measure open it with keras_kd.measurement.runtimes: "
            "OnnxFile(path, channels_first=True)."
        )
    if info.fits((rows, two, three, one)):
        return (
            ": images with channels first, for a file that has them last (or "
            "was opened with channels_first=True, which takes Keras' order). Pass "
            "preprocess=lambda x: tf.transpose(x, [0, 2, 3, 1])."
        )
    return ""


def batches(
    arrays: list[np.ndarray], size: int, is_fixed: bool
) -> Iterator[tuple[list[np.ndarray], int]]:
    """Yields `(arrays, rows)`: parts of `size` samples, and how many of them are the user's.

    Where the file takes no other number of samples the last part is filled up with its last sample.
    """
    rows = len(arrays[0])
    for start in range(0, rows, size):
        parts = [array[start : start + size] for array in arrays]
        kept = len(parts[0])
        if is_fixed and kept < size:
            filled = np.minimum(np.arange(size), kept - 1)
            parts = [part[filled] for part in parts]
        yield parts, kept
