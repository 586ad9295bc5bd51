"""Finds in a file the integers and ranges with which a student was trained."""

import numpy as np

from keras_kd.measurement.runtimes import tflite_format

# Of scales that float32 has rounded twice.
_CLOSE = 1e-5


def missing(path, by_channel, whole=None):
    """Names of the weights whose integers the file does not hold.

    BatchNormalization that is folded in may turn the sign of a channel, and layouts differ, so
    channels are compared as sets of numbers, up to their sign.

    Args:
        path: A `.tflite` file.
        by_channel: `{name: integers [..., channels]}` of the weights with a scale for each channel,
            the channels last.
        whole: `{name: integers}` of those with one scale.
    """
    constants = list(_constants(path))
    channels = {_signature(each) for each in _with_channels(constants)}
    wholes = {values.tobytes() for values, scales, _ in constants if scales == 1}
    absent = [name for name, each in by_channel.items() if _signature(each) not in channels]
    return absent + [name for name, x in (whole or {}).items() if x.tobytes() not in wholes]


def missing_ranges(path, parameters):
    """Names of the activations whose ranges the file does not hold.

    Args:
        path: A `.tflite` file.
        parameters: `{name: (scale, zero point)}`.
    """
    model = tflite_format.parsed(path)
    found = [
        (float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]))
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tflite_format.type_name(tensor) == "int8" and tensor.quantization.scale is not None
    ]
    return [
        name
        for name, (scale, zero) in parameters.items()
        if not any(abs(a - scale) <= _CLOSE * scale and b == zero for a, b in found)
    ]


def of_file(path):
    """The integer constants of a file with a scale for each channel, as `[size, channels]`."""
    return _with_channels(_constants(path))


def _with_channels(constants):
    return [
        np.moveaxis(values, axis, -1).reshape(-1, scales)
        for values, scales, axis in constants
        if values.ndim and scales == values.shape[axis]
    ]


def _constants(path):
    """Yields `(integers, number of scales, axis of the channels)`."""
    model = tflite_format.parsed(path)
    for tensor in tflite_format.constants(model):
        quantization, kind = tensor.quantization, tflite_format.type_name(tensor)
        if kind in ("int8", "int4") and quantization is not None and quantization.scale is not None:
            values = _values(model.buffers[tensor.buffer].data, kind, tflite_format.shape(tensor))
            yield values, len(quantization.scale), int(quantization.quantizedDimension)


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
