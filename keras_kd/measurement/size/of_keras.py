"""The size of a Keras model."""

import math

from keras_kd.measurement.size import counting, keras_graph

NOTES = [
    "bytes: of the weights in memory, in their own types; a .keras file holds more (such as the "
    "optimizer's state), so its size and gzip_bytes are left out.",
    "peak_activation_bytes: left out; in which order TensorFlow runs the graph, and what it fuses, "
    "is not known before. The .tflite file has the figure.",
]


def of_keras(model, inputs):
    """Its size.

    Args:
        model: A Keras model that has been called.
        inputs: Inputs of one row, arrays in their structure.

    Returns:
        `(size, notes)`: a dict as of `Measurement.size`, and why something is not in it.
    """
    macs, notes = counting.count(keras_graph.read(model, inputs))
    size = {
        "parameters": _elements(model.weights),
        "trainable_parameters": _elements(model.trainable_weights),
        "bytes": sum(_elements([x]) * _item_bytes(x) for x in model.weights),
        "macs": macs,
    }
    return size, NOTES + notes


def _elements(weights):
    return sum(math.prod(weight.shape) for weight in weights)


def _item_bytes(weight):
    return weight.numpy().dtype.itemsize
