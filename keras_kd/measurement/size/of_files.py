"""The size of a `.tflite` or `.onnx` file."""

import functools
import gzip
import math
import pathlib

from keras_kd.measurement.runtimes import onnx_format, tflite_format
from keras_kd.measurement.size import counting, tflite_graph, tflite_memory, tflite_shapes
from keras_kd.teachers import host


def of_tflite(file, inputs):
    """Its size.

    Args:
        file: A `TFLiteFile`.
        inputs: Inputs of one row, in the order of the file's.

    Returns:
        `(size, notes)`: a dict as of `Measurement.size`, and why something is not in it.
    """
    size = {"parameters": tflite_parameters(file.model), **_of_bytes(file)}
    arrays = file.one_batch(inputs)
    try:
        given = file.with_constants(arrays)
        shapes = tflite_shapes.read(file.path, file.indices, list(given.values()))
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
    return {**parameters, **_of_bytes(file)}, notes


def _of_bytes(file):
    contents = [pathlib.Path(path).read_bytes() for path in file.files]
    packed = [gzip.compress(content, compresslevel=9, mtime=0) for content in contents]
    return {"bytes": sum(map(len, contents)), "gzip_bytes": sum(map(len, packed))}


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
    """How many real numbers an `.onnx` file holds, whatever their type, wherever it keeps them.

    Initializers and constants, those of inner graphs and functions too; of a sparse tensor with its
    zeros. Integers count where a quantized operator reads them as values; shapes, indices, scales
    and zero points are none.
    """
    return sum(
        math.prod(each.dims)
        for each in onnx_format.held(model)
        if not each.is_scale and (each.is_value or each.data_type in _real_types())
    )


@functools.cache
def _real_types():
    kinds = host.needs("onnx", "Reading the graph of an .onnx file", "onnx").TensorProto.DataType
    named = ("FLOAT", "DOUBLE", "BFLOAT16")  # also FLOAT16 and FLOAT8E4M3FN, FLOAT4E2M1
    return {value for name, value in kinds.items() if name.startswith(named)}
