"""From a student to files that run elsewhere, each read back and compared before it is there."""

from keras_kd.export.errors import ExportError
from keras_kd.export.metadata import read as read_metadata
from keras_kd.export.onnx import to_onnx
from keras_kd.export.onnx_result import OnnxExport
from keras_kd.export.result import TFLiteExport
from keras_kd.export.tflite import to_tflite

__all__ = ["ExportError", "OnnxExport", "TFLiteExport", "read_metadata", "to_onnx", "to_tflite"]
