"""Runs model files over arrays, and reads what is in them: `.tflite`, `.onnx`, and your own.

`open_file` opens a file with the runtime that is registered for its extension. A new runtime is a
subclass of `ModelFile`, given to `register`.
"""

from keras_kd.runtimes.base import ModelFile
from keras_kd.runtimes.litert import TFLiteFile
from keras_kd.runtimes.onnx import OnnxFile
from keras_kd.runtimes.registry import extensions, open_file, register
from keras_kd.runtimes.tensors import Operator, TensorInfo

register(".tflite", TFLiteFile)
register(".onnx", OnnxFile)

__all__ = [
    "ModelFile",
    "OnnxFile",
    "Operator",
    "TFLiteFile",
    "TensorInfo",
    "extensions",
    "open_file",
    "register",
]
