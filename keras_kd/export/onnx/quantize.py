"""Quantizes ONNX graphs by ONNX Runtime, dynamically or statically; notes for TensorRT."""

import importlib
import pathlib
import shlex
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_kd.export.onnx import convert
from keras_kd.export.onnx.options import OnnxOptions
from keras_kd.export.student import ExportError

# Operators with weights, and those that only move values. Not the arithmetic of normalization and
# attention: it would cost a small transformer accuracy (error 0.048 for 0.042), size (207 KB for
# 128) and time (333 us for 290).
_WITH_WEIGHTS = ["Conv", "ConvTranspose", "MatMul", "Gemm", "Gather"]
_MOVING = ["Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Reshape", "Transpose"]
_MOVING += ["Squeeze", "Unsqueeze", "Pad", "Concat", "Split", "Slice", "Resize"]
# TensorRT's parser takes nothing asymmetric, and integer weights only if the graph quantizes them.
_FOR_TENSORRT = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "AddQDQPairToWeight": True,
    "QuantizeBias": False,
}
_BATCH = 32
# The fraction of weights that may stay in float: small constants, such as embeddings of positions.
_MOST_FLOAT = 0.1


def quantize_dynamic(graph: Any) -> Any:
    """A graph with integer weights; activations are quantized at run time.

    Unsigned weights, because pairs of products of signed ones overflow 16 bits on processors
    without VNNI. ONNX Runtime's LSTM takes signed ones only: 7 bits of them.
    """
    from onnxruntime import quantization

    signed = any(node.op_type == "LSTM" for node in convert.nodes(graph.graph))
    kind = quantization.QuantType.QInt8 if signed else quantization.QuantType.QUInt8

    def quantize(source, target):
        quantization.quantize_dynamic(source, target, weight_type=kind, reduce_range=signed)

    return _quantized(graph, quantize)


def quantize_static(
    graph: Any, signature: convert.Signature, arrays: Sequence[np.ndarray], options: OnnxOptions
) -> Any:
    """A graph with integer weights and activations, as pairs of QuantizeLinear, DequantizeLinear.

    Weights have one scale per channel. They use 7 of their 8 bits, except for TensorRT: on
    processors without VNNI, ONNX Runtime adds pairs of products in 16 bits, which overflow with 8.
    A CNN of accuracy 0.940 fell to 0.665; with 7 bits it had 0.938.

    Args:
        graph: An `onnx.ModelProto`.
        signature: Its `Signature`.
        arrays: The data to calibrate with, an array for each input.
        options: The checked arguments.
    """
    from onnxruntime import quantization

    unsigned, signed = quantization.QuantType.QUInt8, quantization.QuantType.QInt8
    for_tensorrt = options.for_tensorrt

    def quantize(source, target):
        quantization.quantize_static(
            source,
            target,
            _reader(signature, arrays, options.batch_size or _BATCH),
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
        with convert.quiet(""):
            shape_inference.quant_pre_process(given, prepared, skip_symbolic_shape=True)
            quantize(prepared, target)
        result = onnx.load(target)
    convert.remove_unused_domains(result)
    _check_share(graph.graph, result.graph)
    return result


def _reader(signature, arrays, size):
    """Gives the calibrator one batch after another."""
    from onnxruntime import quantization

    starts = range(0, len(arrays[0]), size)
    feeds = (signature.feed([x[i : i + size] for x in arrays]) for i in starts)

    class Reader(quantization.CalibrationDataReader):
        def get_next(self):
            return next(feeds, None)

    return Reader()


def _check_share(before, after):
    """Raises if many weights are still float."""
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
    """`{name: size}` of the float kernels and tables that are read without being quantized."""
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
    for node in convert.nodes(graph):
        for name in node.input:
            found.setdefault(name, []).append(node.op_type)
    return found


# TensorRT, on a machine without it: the command that builds an engine, and a trial of its parser.


_TYPICAL_BATCH, _LARGEST_BATCH = 8, 32


def tensorrt_notes(
    path: pathlib.Path, content: bytes, signature: convert.Signature
) -> tuple[str, str, str]:
    """What `OnnxExport.notes` contain for TensorRT.

    Raises:
        ExportError: TensorRT-RTX is installed, and its parser refuses the file.
    """
    return ("For TensorRT, not executed here:", _command(path, signature), _parsed(content))


def _command(path, signature):
    """The command that builds an engine of a file."""
    words = [
        "trtexec",
        f"--onnx={path}",
        f"--saveEngine={path.with_suffix('.engine')}",
        # Types as in the file: what is quantized in int8, and nothing else.
        "--stronglyTyped",
    ]
    if signature.has_open_batch:
        for name, size in (("min", 1), ("opt", _TYPICAL_BATCH), ("max", _LARGEST_BATCH)):
            words.append(f"--{name}Shapes={_shapes(signature, size)}")
    return shlex.join(words)


def _shapes(signature, batch_size):
    named = zip(signature.inputs, signature.specs, strict=True)
    return ",".join(f"{name}:{_shape(spec.shape[1:], batch_size)}" for name, spec in named)


def _shape(sizes, batch_size):
    # An open dimension has no natural size: the user fills it in.
    return "x".join([str(batch_size), *("SIZE" if size is None else str(size) for size in sizes)])


def _parsed(content):
    try:
        tensorrt = importlib.import_module("tensorrt_rtx")
    except ImportError:
        return (
            "Not parsed by TensorRT: pip install tensorrt-rtx (NVIDIA's own license, no GPU "
            "needed) lets kd.export try its parser."
        )
    logger = tensorrt.Logger(tensorrt.Logger.INTERNAL_ERROR)
    network = tensorrt.Builder(logger).create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(content):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        raise ExportError(
            f"TensorRT-RTX {tensorrt.__version__} cannot parse the file: "
            + "; ".join(f"{x.node_operator()} {x.node_name()}: {x.desc()}" for x in errors)
        )
    return f"Parsed by TensorRT-RTX {tensorrt.__version__}."
