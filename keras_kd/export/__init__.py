"""From a student to files that run elsewhere, each read back and compared before it is there."""

from keras_kd.export.errors import ExportError
from keras_kd.export.onnx import to_onnx
from keras_kd.export.onnx_result import OnnxExport

__all__ = ["ExportError", "OnnxExport", "to_onnx"]
