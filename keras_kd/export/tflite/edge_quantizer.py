"""Quantization of a float `.tflite` file by `ai-edge-quantizer`."""

import contextlib
import warnings

import numpy as np

from keras_kd._utils import validation
from keras_kd.export.source import ExportError
from keras_kd.export.tflite import conversion, tensors

# What can hold 4-bit weights; other operators with weights get 8 bits.
_FOUR_BITS = ("CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "EMBEDDING_LOOKUP")


def needs():
    """The modules `quantizer` and `qtyping`; raises with the extra where they are missing."""
    return tuple(
        validation.needs(f"ai_edge_quantizer.{name}", "This quantization", "export")
        for name in ("quantizer", "qtyping")
    )


class EdgeQuantizer:
    """One float file and how it is to be quantized.

    Args:
        content: The bytes of a float `.tflite` file.
        quantization: `"dynamic"`, `"int8"`, `"int16x8"` or `"int4"`, or a recipe of
            `ai_edge_quantizer`.
        float_inputs: Whether inputs stay float32.
        float_outputs: Whether outputs stay float32.
    """

    def __init__(self, content, quantization, float_inputs=False, float_outputs=False):
        quantizer, qtyping = needs()
        self._names = qtyping.TFLOperationName
        self._content, self._is_int8 = content, quantization == "int8"
        with _quiet():
            self._quantizer = quantizer.Quantizer(content)
        if isinstance(quantization, str):
            getattr(self, f"_{quantization}")()
        else:
            self._quantizer.load_quantization_recipe(quantization)
        for stays, name in ((float_inputs, "INPUT"), (float_outputs, "OUTPUT")):
            if stays and self.needs_calibration:
                self._leave(self._names[name])

    def _dynamic(self):
        self._quantizer.add_dynamic_config(".*", self._names.ALL_SUPPORTED, 8)

    def _int8(self):
        self._quantizer.add_static_config(".*", self._names.ALL_SUPPORTED, 8, 8)

    def _int16x8(self):
        self._quantizer.add_static_config(".*", self._names.ALL_SUPPORTED, 16, 8)

    def _int4(self):
        self._quantizer.add_weight_only_config(".*", self._names.ALL_SUPPORTED, 8)
        for name in _FOUR_BITS:
            self._quantizer.add_weight_only_config(".*", self._names[name], 4)

    def _leave(self, operation):
        self._quantizer.update_quantization_recipe(".*", operation, algorithm_key="no_quantize")

    @property
    def needs_calibration(self):
        return self._quantizer.need_calibration

    def calibrate(self, arrays, names):
        """The range of each tensor of the float file over data, `{tensor: (low, high)}`."""
        return tensors.ranges(self._content, names, arrays)

    def quantize(self, ranges=None):
        """The bytes of the quantized file.

        Args:
            ranges: As of `calibrate`, where activations are integers.

        Raises:
            ExportError: ai-edge-quantizer cannot.
        """
        try:
            with _quiet():
                content = bytes(self._quantizer.quantize(_in_its_form(ranges)).quantized_model)
        except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
            raise ExportError(f"ai-edge-quantizer cannot quantize this model: {error}") from error
        if not self._is_int8:
            return content
        from keras_kd.export.tflite import flatbuffer  # which needs flatbuffers, of the extra

        return flatbuffer.used(content)


@contextlib.contextmanager
def _quiet():
    with conversion.quiet(), warnings.catch_warnings():
        # It keeps all tensors of a file to look at them, and LiteRT warns of the memory.
        warnings.filterwarnings("ignore", "[^`]*`experimental_preserve_all_tensors`", UserWarning)
        # An operator without a kernel is told by what reads the file back.
        warnings.filterwarnings("ignore", "invalid value encountered in cast", RuntimeWarning)
        yield


def _in_its_form(ranges):
    if ranges is None:
        return None
    return {
        name: {"min": np.asarray([low], np.float32), "max": np.asarray([high], np.float32)}
        for name, (low, high) in ranges.items()
    }
