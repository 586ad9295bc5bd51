"""Runs `.tflite` and `.onnx` files over arrays, and tells what is in them."""

from keras_kd.measurement.runtimes.onnx import OnnxFile
from keras_kd.measurement.runtimes.tflite import TFLiteFile

__all__ = ["OnnxFile", "TFLiteFile"]
