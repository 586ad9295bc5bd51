"""Size of models and files: parameters, bytes and multiply-adds.

Files count their own parameters and costs: see `keras_kd.runtimes.ModelFile`; how the multiply-adds
of Keras models are counted is in `keras_kd.runtimes.keras_graph`.
"""

import gzip
import math
import pathlib
from typing import Any

import keras

from keras_kd.runtimes import ModelFile, keras_graph, program

_NO_INPUTS = "macs: left out; how often `generate` runs the model is not known."
_NOTES_OF_KERAS = [
    "bytes: of the weights in memory, in their own types; a .keras file holds more (such as the "
    "optimizer's state), so its size and gzip_bytes are left out.",
    "peak_activation_bytes: left out; in which order TensorFlow runs the graph, and what it fuses, "
    "is not known before. The .tflite file has the figure.",
]


def measure_keras(model: keras.Model, inputs: Any) -> tuple[dict[str, Any], list[str]]:
    """The size of a Keras model.

    Args:
        model: A Keras model that has been called.
        inputs: Inputs of one sample, arrays in their structure; `None`: they are not known.

    Returns:
        `(size, notes)`: a dict for `Measurement.size`, and why something is not in it.
    """
    size = {
        "parameters": _elements(model.weights),
        "trainable_parameters": _elements(model.trainable_weights),
        "bytes": sum(_elements([x]) * _item_bytes(x) for x in model.weights),
    }
    if inputs is None:
        return size, [*_NOTES_OF_KERAS, _NO_INPUTS]
    macs, notes = program.count(keras_graph.read_keras(model, inputs))
    return {**size, "macs": macs}, _NOTES_OF_KERAS + notes


def _elements(weights):
    return sum(math.prod(weight.shape) for weight in weights)


def _item_bytes(weight):
    return weight.numpy().dtype.itemsize


def measure_file(file: ModelFile, inputs: Any) -> tuple[dict[str, Any], list[str]]:
    """The size of a file, as its runtime counts it.

    Args:
        file: The file.
        inputs: Inputs of one sample, in a form that `ModelFile.run` takes; `None`: not known.

    Returns:
        `(size, notes)`: a dict for `Measurement.size`, and why something is not in it.
    """
    size, why_not = {}, []
    try:
        parameters = file.count_parameters()
        if parameters is None:
            why_not.append(f"parameters: left out; {file.runtime_name} does not count them.")
        else:
            size["parameters"] = parameters
    except ImportError as error:
        why_not.append(f"parameters: left out. {error}")
    contents = [pathlib.Path(path).read_bytes() for path in file.files]
    packed = [gzip.compress(content, compresslevel=9, mtime=0) for content in contents]
    size |= {"bytes": sum(map(len, contents)), "gzip_bytes": sum(map(len, packed))}
    costs, notes = ({}, [_NO_INPUTS]) if inputs is None else file.count_costs(inputs)
    return {**size, **costs}, [*notes, *why_not]
