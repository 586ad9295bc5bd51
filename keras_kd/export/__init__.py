"""Exports a student to TFLite or ONNX; each file is read back and compared before it is written."""

from keras_kd.export import timing
from keras_kd.export.onnx.api import OnnxExport, to_onnx
from keras_kd.export.student import ExportError
from keras_kd.export.tflite.api import to_tflite
from keras_kd.export.tflite.metadata import TFLiteExport, read_metadata
from keras_kd.students import budgets

budgets.register_timer(timing.tflite_milliseconds)

__all__ = ["ExportError", "OnnxExport", "TFLiteExport", "read_metadata", "to_onnx", "to_tflite"]
