"""From a student to files that run elsewhere, each read back and compared before it is there."""

from keras_kd.export.onnx.api import to_onnx
from keras_kd.export.onnx.verify import OnnxExport
from keras_kd.export.source import ExportError
from keras_kd.export.tflite.api import to_tflite
from keras_kd.export.tflite.metadata import TFLiteExport
from keras_kd.export.tflite.metadata import read as read_metadata

__all__ = ["ExportError", "OnnxExport", "TFLiteExport", "read_metadata", "to_onnx", "to_tflite"]
