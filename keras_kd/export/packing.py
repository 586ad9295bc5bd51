"""Takes a `.tflite` file apart into its tables, and writes it from them."""

import hashlib

import flatbuffers
import numpy as np

from keras_kd.measurement.runtimes import tflite_format

# What the format asks of constants, so that runtimes can use them where they lie.
_ALIGNMENT = 16


def unpacked(content):
    """LiteRT's `ModelT` of the bytes of a file, which `packed` can write again."""
    model = tflite_format.of_bytes(content)
    for buffer in model.buffers:
        if buffer.offset > 1:  # behind the tables, by offsets that will not be right
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def packed(model, size=0):
    """The bytes of a file.

    Args:
        model: LiteRT's `ModelT`.
        size: About how many bytes it will have.
    """
    builder = _Builder(size)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


class _Builder(flatbuffers.Builder):
    """Writes equal arrays once.

    A scale for each channel comes with a zero point for each, 8 bytes, which are all 0, of kernels
    and of biases: of MobileNetV3Small's int8 file they were 12 %.
    """

    def __init__(self, size):
        super().__init__(size)
        self._written = {}

    def CreateNumpyVector(self, x):  # noqa: N802 - the name of the method that is overridden
        key = x.dtype.str, x.size, hashlib.sha256(x.tobytes()).digest()
        if key not in self._written:
            if x.dtype == np.uint8:
                self.Prep(_ALIGNMENT, x.size)
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]
