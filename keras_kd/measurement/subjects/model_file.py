"""A `.tflite` or `.onnx` file that is measured."""

import itertools

import numpy as np

from keras_kd.measurement.size import of_files
from keras_kd.measurement.subjects import base

# So many inputs have 720 orders, which are tried.
_MOST_INPUTS = 6


class FileSubject(base.Subject):
    """Runs a file.

    Args:
        file: A `TFLiteFile` or `OnnxFile`.
        kind: `"tflite"` or `"onnx"`.
        name: A name; default: the file's.
    """

    def __init__(self, file, kind, name=None):
        self.file, self.kind, self.name = file, kind, name or file.name

    def predict(self, inputs):
        outputs = self.file.run(by_name(inputs, self.file.inputs))
        return {info.name: x for info, x in zip(self.file.outputs, outputs, strict=True)}

    def size(self, inputs):
        if self.kind == "onnx":
            return of_files.of_onnx(self.file)
        return of_files.of_tflite(self.file, by_name(inputs, self.file.inputs))

    def timed(self, inputs):
        arrays = self.file.one_batch(by_name(inputs, self.file.inputs))
        self.file.set_inputs(arrays)
        facts = {
            "runtime": self.file.runtime,
            "threads": self.file.threads,
            "batch_size": len(arrays[0]),
        }
        return self.file.invoke, facts, []


def by_name(inputs, infos):
    """The inputs of a batch as `{name: array}` of the file.

    A file has an order of its own, in which the model's is lost. Arrays without names are taken
    where only one order of them fits the shapes and types.

    Args:
        inputs: Arrays in the structure of the data.
        infos: A `TensorInfo` for each input of the file.

    Raises:
        ValueError: Several orders fit, or none.
    """
    if isinstance(inputs, dict) and len(infos) > 1:
        return inputs
    if not isinstance(inputs, (list, tuple, dict)):
        return {infos[0].name: inputs} if len(infos) == 1 else _ordered([inputs], infos)
    flat = list(inputs.values()) if isinstance(inputs, dict) else list(inputs)
    return {infos[0].name: flat[0]} if len(infos) == len(flat) == 1 else _ordered(flat, infos)


def _ordered(flat, infos):
    described = [f"{info.name} {info.shape} {info.dtype}" for info in infos]
    if len(flat) != len(infos):
        raise ValueError(f"The file takes {len(infos)} inputs, {described}. Received: {len(flat)}")
    arrays = [np.asarray(x) for x in flat]
    orders = itertools.permutations(arrays) if len(arrays) <= _MOST_INPUTS else []
    fitting = [order for order in orders if all(map(_fits, infos, order))]
    if len(fitting) != 1:
        raise ValueError(
            f"Which of the data's inputs is which of the file's, {described}, cannot be told from "
            "their shapes and types. Let the data give a dict by these names."
        )
    return {info.name: x for info, x in zip(infos, fitting[0], strict=True)}


def _fits(info, array):
    is_ids = np.dtype(info.dtype).kind in "iub" and info.scale is None
    return info.fits(array.shape) and is_ids == (array.dtype.kind in "iub")
