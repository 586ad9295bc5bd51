"""Quantization of a float `.tflite` file by ai-edge-quantizer, and its calibration.

`EdgeQuantizer` quantizes; `TensorRecorder` runs a file and records the values of all its tensors.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_kd._utils import validation
from keras_kd.export import representative
from keras_kd.export.student import ExportError
from keras_kd.export.tflite import conversion
from keras_kd.runtimes import tflite

# Operators with kernels for 4-bit weights; the weights of others get 8 bits.
_FOUR_BITS = ("CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "EMBEDDING_LOOKUP")


def require_edge_quantizer() -> tuple[Any, Any]:
    """The modules `quantizer` and `qtyping`.

    Raises:
        ImportError: They are missing; the message names the extra.
    """
    quantizer, qtyping = (
        validation.needs(f"ai_edge_quantizer.{name}", "This quantization", "export")
        for name in ("quantizer", "qtyping")
    )
    return quantizer, qtyping


class EdgeQuantizer:
    """One float file and how it is to be quantized.

    Args:
        content: The content of a float `.tflite` file.
        quantization: `"dynamic"`, `"int8"`, `"int16x8"` or `"int4"`, or a recipe of
            `ai_edge_quantizer`.
        float_inputs: Whether inputs stay float32.
        float_outputs: Whether outputs stay float32.
    """

    def __init__(
        self,
        content: bytes,
        quantization: Any,
        float_inputs: bool = False,
        float_outputs: bool = False,
    ):
        quantizer, qtyping = require_edge_quantizer()
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
    def needs_calibration(self) -> bool:
        """Whether activations are integers, so that `quantize` needs ranges."""
        return self._quantizer.need_calibration

    def calibrate(
        self, arrays: Sequence[np.ndarray], names: Sequence[str]
    ) -> dict[str, tuple[float, float]]:
        """The range of each tensor of the float file over data, `{tensor: (low, high)}`.

        ai-edge-quantizer's own calibration averages the ranges of samples. That cuts off rare
        values: with random weights the largest outputs were wrong by 35 %, also in 16 bits, against
        6 % and 0.1 % with the extremes, which TensorFlow takes too.
        """
        ranges: dict[str, tuple[float, float]] = {}
        for values in TensorRecorder(self._content, names).record(arrays):
            for name, value in values.items():
                low, high = float(value.min()), float(value.max())
                before = ranges.get(name, (low, high))
                ranges[name] = min(low, before[0]), max(high, before[1])
        return ranges

    def quantize(self, ranges: Mapping[str, tuple[float, float]] | None = None) -> bytes:
        """The content of the quantized file.

        Args:
            ranges: The ranges of `calibrate`, where activations are integers.

        Raises:
            ExportError: ai-edge-quantizer cannot quantize the file.
        """
        try:
            with _quiet():
                content = bytes(self._quantizer.quantize(_in_its_form(ranges)).quantized_model)
        except (ValueError, RuntimeError, KeyError, NotImplementedError) as error:
            raise ExportError(f"ai-edge-quantizer cannot quantize this model: {error}") from error
        if not self._is_int8:
            return content
        from keras_kd.export.tflite import flatbuffer  # which needs flatbuffers, of the extra

        return flatbuffer.with_integer_kernels(content)


@contextlib.contextmanager
def _quiet():
    with conversion.quiet(), warnings.catch_warnings():
        # It keeps all tensors of a file to look at them, and LiteRT warns of the memory.
        warnings.filterwarnings("ignore", "[^`]*`experimental_preserve_all_tensors`", UserWarning)
        # An operator without a kernel is found when the file is read back.
        warnings.filterwarnings("ignore", "invalid value encountered in cast", RuntimeWarning)
        yield


def _in_its_form(ranges):
    if ranges is None:
        return None
    return {
        name: {"min": np.asarray([low], np.float32), "max": np.asarray([high], np.float32)}
        for name, (low, high) in ranges.items()
    }


class TensorRecorder:
    """Runs a file and records the values of all its tensors, also between operators.

    Args:
        content: The content of a `.tflite` file with one signature.
        names: The names of its inputs, in the order of the arrays.

    Attributes:
        batch_size: The file's batch size.
    """

    def __init__(self, content: bytes, names: Sequence[str]):
        litert = validation.needs("ai_edge_litert.interpreter", "A .tflite file", "export")
        self._interpreter = litert.Interpreter(
            model_content=content,
            # XNNPACK, the default, keeps no tensors.
            experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        self._names = names
        self.batch_size = int(self._interpreter.get_input_details()[0]["shape"][0])
        self._run = self._interpreter.get_signature_runner()
        constants = _constants(content)
        details = self._interpreter.get_tensor_details()
        self._details = [x for x in details if x["name"] and x["name"] not in constants]

    def record(self, arrays: Sequence[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Yields `{tensor: values}` for each batch of arrays `[samples, ...]`, without constants.

        The first samples fill up the last batch. Tensors that the interpreter has merged away are
        left out.

        Raises:
            ExportError: LiteRT cannot run the file.
        """
        for batch in representative.batches(arrays, self.batch_size):
            try:
                self._run(**dict(zip(self._names, batch, strict=True)))
            except RuntimeError as error:
                raise ExportError(f"LiteRT cannot run the float file: {error}") from error
            yield {
                detail["name"]: value
                for detail in self._details
                if (value := self._value(detail["index"])) is not None
            }

    def _value(self, index):
        try:
            value = self._interpreter.get_tensor(index)
        except ValueError:  # merged away: its data is null
            return None
        return value if value.dtype.kind in "fiu" and value.size else None


def _constants(content):
    model = tflite.parse(content)
    return {tflite.decode_name(tensor.name) for tensor in tflite.constants(model)}
