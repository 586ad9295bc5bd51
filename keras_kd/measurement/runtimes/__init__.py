"""Runs `.tflite` and `.onnx` files over arrays, and tells what is in them."""

from keras_kd.measurement.runtimes.onnx import OnnxFile
from keras_kd.measurement.runtimes.tensors import Operator, TensorInfo
from keras_kd.measurement.runtimes.tflite import TFLiteFile

__all__ = ["OnnxFile", "Operator", "TFLiteFile", "TensorInfo"]
