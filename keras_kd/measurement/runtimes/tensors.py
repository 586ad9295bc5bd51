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
        symbols: What the file calls each of the dimensions, `None` where it has no name for it;
            those of one name have one size.

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
    symbols: tuple = ()

    def encoded(self, values):
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
                f"Input {self.name!r} is of type {self.dtype}. Received {values.dtype}, which are "
                "no numbers."
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

    def decoded(self, values):
        """What the file gives as real numbers, float32."""
        values = np.asarray(values).astype(np.float32)
        if self.scale is None:
            return values
        return (values - np.float32(self.zero_point)) * np.float32(self.scale)

    def fits(self, shape):
        """Whether an array of this shape, with any number of rows, can be this input.

        Sizes that are not known yet are `None`, and fit.
        """
        return len(shape) == len(self.shape) and all(
            wanted is None or size is None or wanted == size
            for wanted, size in zip(self.shape[1:], shape[1:], strict=True)
        )

    def turned(self):
        """Of an image or feature map with channels first, how Keras would have it: last."""
        return dataclasses.replace(
            self, shape=_last(self.shape), symbols=_last(self.symbols) if self.symbols else ()
        )


def _limits(dtype):
    limits = np.iinfo(dtype)
    return limits.min, limits.max


def _last(sizes):
    return (sizes[0], *sizes[2:], sizes[1]) if len(sizes) == 4 else tuple(sizes)


def channels_last(array):
    """A feature map of `[rows, channels, height, width]` in Keras' order; others as they are."""
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def channels_first(array):
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
        from keras_kd.measurement import runtimes

        return [x.label for x in runtimes.TFLiteFile(path).operators if "float32" in x.outputs]
    ```
    """

    name: str
    inputs: tuple
    outputs: tuple
    label: str = ""
    graph: int = 0
