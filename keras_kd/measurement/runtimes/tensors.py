"""What a file takes and gives: names, shapes, types and scales."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """An input or output of a file.

    Args:
        name: By which a dict of inputs calls it.
        shape: Its dimensions; `None` for one that may have any size.
        dtype: NumPy's name of its type, such as `"float32"` or `"int8"`.
        scale: For integers that stand for real numbers, `real = scale * (integer - zero_point)`;
            else `None`.
        zero_point: The integer that stands for 0.

    Example:

    ```python
    from keras_kd.measurement import runtimes

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

    def encoded(self, values):
        """Real numbers as the file takes them.

        Integers of the file's own type are taken to be quantized already.
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
        if wanted.kind in "iu" and values.dtype.kind == "f" and (values != np.floor(values)).any():
            raise ValueError(
                f"Input {self.name!r} is of type {self.dtype} without a scale, such as ids or "
                "indices. Received numbers that are not whole."
            )
        return values.astype(wanted)

    def decoded(self, values):
        """What the file gives as real numbers, float32."""
        values = np.asarray(values).astype(np.float32)
        if self.scale is None:
            return values
        return (values - np.float32(self.zero_point)) * np.float32(self.scale)

    def fits(self, shape):
        """Whether an array of this shape, with any number of rows, can be this input."""
        return len(shape) == len(self.shape) and all(
            wanted in (None, size) for wanted, size in zip(self.shape[1:], shape[1:], strict=True)
        )


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
        from keras_kd.measurement import runtimes

        return [x.label for x in runtimes.TFLiteFile(path).operators if "float32" in x.outputs]
    ```
    """

    name: str
    inputs: tuple
    outputs: tuple
    label: str = ""
    graph: int = 0
