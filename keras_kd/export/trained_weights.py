"""Finds in a file the integers with which a student was trained."""

import numpy as np

from keras_kd.measurement.runtimes import tflite_format


def missing(path, trained):
    """Names of the weights whose integers the file does not hold.

    BatchNormalization that is folded in may turn the sign of a channel, and layouts differ, so
    channels are compared as sets of numbers, up to their sign.

    Args:
        path: A `.tflite` file.
        trained: `{name: integers [..., channels]}`, the channels last.
    """
    found = {_signature(integers) for integers in of_file(path)}
    return [name for name, integers in trained.items() if _signature(integers) not in found]


def of_file(path):
    """The integer constants of a file with a scale for each channel, as `[size, channels]`."""
    model = tflite_format.parsed(path)
    constants = []
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            quantization, kind = tensor.quantization, tflite_format.type_name(tensor)
            if kind not in ("int8", "int4") or not tflite_format.is_constant(model, tensor):
                continue
            if quantization is None or quantization.scale is None:
                continue
            values = _values(model.buffers[tensor.buffer].data, kind, tflite_format.shape(tensor))
            if not values.ndim:
                continue
            axis = int(quantization.quantizedDimension)
            if len(quantization.scale) == values.shape[axis]:
                constants.append(np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis]))
    return constants


def _values(data, kind, shape):
    stored = np.frombuffer(bytes(data), np.int8)
    if kind == "int4":  # two in a byte, the first in the lower half
        low, high = (stored << 4) >> 4, stored >> 4
        stored = np.stack([low, high], axis=-1).ravel()[: int(np.prod(shape))]
    return stored.reshape(shape)


def _signature(integers):
    """Bytes that are equal for equal integers, whatever the layout and signs of channels."""
    columns = np.sort(np.asarray(integers, np.int8).reshape(-1, integers.shape[-1]), axis=0)
    turned = -columns[::-1]
    first = np.argmax(columns != turned, axis=0)
    index = np.arange(columns.shape[1])
    turn = columns[first, index] < turned[first, index]
    return np.where(turn, turned, columns).tobytes()
