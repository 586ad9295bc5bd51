"""Runs `.tflite` and `.onnx` files over arrays, and tells what is in them."""

from keras_kd.runtimes.onnx import OnnxFile
from keras_kd.runtimes.tensors import Operator, TensorInfo
from keras_kd.runtimes.tflite import TFLiteFile

__all__ = ["OnnxFile", "Operator", "TFLiteFile", "TensorInfo"]
