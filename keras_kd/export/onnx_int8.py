"""Integers for the weights, or for weights and activations, by ONNX Runtime's quantizer."""

import pathlib
import tempfile

import keras
import numpy as np

from keras_kd.export import onnx_graph
from keras_kd.export.errors import ExportError

# What has weights, and what only moves values. Not the arithmetic of normalization and attention:
# it would cost a small transformer accuracy (error 0.048 for 0.042), size (207 KB for 128) and
# time (333 us for 290).
_WITH_WEIGHTS = ["Conv", "ConvTranspose", "MatMul", "Gemm", "Gather"]
_MOVING = ["Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Reshape", "Transpose"]
_MOVING += ["Squeeze", "Unsqueeze", "Pad", "Concat", "Split", "Slice", "Resize"]
# Its parser takes nothing asymmetric, and no integer weight that is not quantized in the graph.
_FOR_TENSORRT = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "AddQDQPairToWeight": True,
    "QuantizeBias": False,
}
_BATCH = 32
# What may stay in float of the weights: small constants, such as embeddings of positions.
_MOST_FLOAT = 0.1


def dynamic(graph):
    """A graph with integer weights; activations are quantized as they come, at run time.

    Unsigned weights, because pairs of products of signed ones overflow 16 bits on processors
    without VNNI. ONNX Runtime's LSTM takes signed ones only: 7 bits of them.
    """
    from onnxruntime import quantization

    signed = any(node.op_type == "LSTM" for node in onnx_graph.nodes(graph.graph))
    kind = quantization.QuantType.QInt8 if signed else quantization.QuantType.QUInt8

    def quantize(source, target):
        quantization.quantize_dynamic(source, target, weight_type=kind, reduce_range=signed)

    return _quantized(graph, quantize)


def static(graph, names, inputs, options):
    """A graph with integer weights and activations, as pairs of QuantizeLinear, DequantizeLinear.

    Weights have a scale for each channel. They use 7 of their 8 bits unless for TensorRT: on
    processors without VNNI ONNX Runtime adds pairs of products in 16 bits, which overflow with 8. A
    CNN of accuracy 0.940 had 0.665 so, and 0.938 with 7 bits.

    Args:
        graph: An `onnx.ModelProto`.
        names: Names of its inputs.
        inputs: NumPy arrays for them, to calibrate with.
        options: The `Options`.
    """
    from onnxruntime import quantization

    unsigned, signed = quantization.QuantType.QUInt8, quantization.QuantType.QInt8
    for_tensorrt = options.for_tensorrt

    def quantize(source, target):
        quantization.quantize_static(
            source,
            target,
            _reader(names, inputs, options.batch_size or _BATCH),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=signed if for_tensorrt else unsigned,
            weight_type=signed,
            per_channel=True,
            reduce_range=not for_tensorrt,
            op_types_to_quantize=_WITH_WEIGHTS if for_tensorrt else _WITH_WEIGHTS + _MOVING,
            extra_options=_FOR_TENSORRT if for_tensorrt else {},
        )

    return _quantized(graph, quantize)


def _quantized(graph, quantize):
    """Runs the quantizer, which works on files."""
    import onnx
    from onnxruntime.quantization import shape_inference

    with tempfile.TemporaryDirectory(prefix="keras_kd") as folder:
        given, prepared, target = (pathlib.Path(folder, name) for name in ("g", "p", "t"))
        onnx.save(graph, given)
        # Without symbolic shapes: they need sympy, fail for attention, and change nothing here.
        with onnx_graph.quiet(""):
            shape_inference.quant_pre_process(given, prepared, skip_symbolic_shape=True)
            quantize(prepared, target)
        result = onnx.load(target)
    onnx_graph.remove_unused_domains(result)
    _check_share(graph.graph, result.graph)
    return result


def _reader(names, inputs, size):
    """Gives the calibrator one batch after another."""
    from onnxruntime import quantization

    flat = keras.tree.flatten(inputs)
    feeds = (
        {name: x[i : i + size] for name, x in zip(names, flat, strict=True)}
        for i in range(0, len(flat[0]), size)
    )

    class Reader(quantization.CalibrationDataReader):
        def get_next(self):
            return next(feeds, None)

    return Reader()


def _check_share(before, after):
    """Raises if much of what were weights is float still."""
    total = sum(_float_weights(before).values())
    left = _float_weights(after)
    if sum(left.values()) <= _MOST_FLOAT * total:
        return
    readers = _readers(after)
    kinds = sorted({kind for name in left for kind in readers.get(name, ())})
    raise ExportError(
        f"Of {total:,} weights {sum(left.values()):,} would stay in float: ONNX Runtime does not "
        f"quantize the operators that read them ({', '.join(kinds)}). For recurrent layers: an "
        "LSTM with quantization='dynamic'; any with kd.export.to_tflite(..., "
        "quantization='dynamic')."
    )


def _float_weights(graph):
    """Sizes of the kernels and tables in float that are not quantized before they are read."""
    import onnx

    readers = _readers(graph)
    return {
        x.name: int(np.prod(x.dims))
        for x in graph.initializer
        if x.data_type == onnx.TensorProto.FLOAT
        and sum(size > 1 for size in x.dims) > 1
        and set(readers.get(x.name, ())) != {"QuantizeLinear"}
    }


def _readers(graph):
    found: dict[str, list] = {}
    for node in onnx_graph.nodes(graph):
        for name in node.input:
            found.setdefault(name, []).append(node.op_type)
    return found
