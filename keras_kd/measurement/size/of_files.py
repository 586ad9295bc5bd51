"""The size of a `.tflite` or `.onnx` file."""

import gzip
import math
import os
import pathlib

from keras_kd.measurement.runtimes import tflite_format
from keras_kd.measurement.size import counting, tflite_graph, tflite_memory, tflite_shapes


def of_tflite(file, inputs):
    """Its size.

    Args:
        file: A `TFLiteFile`.
        inputs: Inputs of one row, in the order of the file's.

    Returns:
        `(size, notes)`: a dict as of `Measurement.size`, and why something is not in it.
    """
    size = {"parameters": tflite_parameters(file.model), **_of_bytes(file.path)}
    arrays = file.one_batch(inputs)
    try:
        shapes = tflite_shapes.read(file.path, file.indices, arrays)
    except ValueError as error:
        return size, [f"macs, peak_activation_bytes: left out. {error}"]
    macs, notes = counting.count(tflite_graph.read(file.model, shapes))
    size["macs"] = _each(macs, len(arrays[0]))
    peak = tflite_memory.peak(file.model, shapes)
    if peak is None:
        notes.append("peak_activation_bytes: left out; the file has tensors without a size.")
    else:
        size["peak_activation_bytes"] = peak
    return size, notes


def _each(macs, rows):
    return macs // rows if macs % rows == 0 else macs / rows


def of_onnx(file):
    """Its size; as of `of_tflite`."""
    notes = ["macs, peak_activation_bytes: not counted for .onnx files; measure the .tflite file."]
    try:
        parameters = {"parameters": onnx_parameters(file.model)}
    except ImportError as error:
        parameters = {}
        notes.append(f"parameters: left out. {error}")
    return {**parameters, **_of_bytes(file.path)}, notes


def _of_bytes(path):
    content = pathlib.Path(path).read_bytes()
    packed = gzip.compress(content, compresslevel=9, mtime=0)
    return {"bytes": os.path.getsize(path), "gzip_bytes": len(packed)}


def tflite_parameters(model):
    """How many real numbers a `.tflite` file holds, whatever their type.

    Shapes, axes and the like, which are integers without a scale, are none.
    """
    found = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tflite_format.is_constant(model, tensor) and _is_real(tensor):
                found[tensor.buffer] = math.prod(tflite_format.shape(tensor))
    return sum(found.values())


def _is_real(tensor):
    details = tensor.quantization
    has_scale = details is not None and details.scale is not None and len(details.scale) > 0
    return has_scale or "float" in tflite_format.type_name(tensor)


def onnx_parameters(model):
    """How many real numbers an `.onnx` file holds, whatever their type.

    Scales and zero points of quantized tensors, and 64-bit integers (shapes), are none.
    """
    scales = {
        name
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear")
        for name in node.input[1:]
    }
    int64 = 7  # TensorProto.INT64
    return sum(
        math.prod(each.dims)
        for each in model.graph.initializer
        if each.name not in scales and each.data_type != int64
    )
