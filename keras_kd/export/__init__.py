"""Takes a student to the device: `.tflite` files that hold what they promise."""

from keras_kd.export.errors import ExportError
from keras_kd.export.metadata import read as read_metadata
from keras_kd.export.result import TFLiteExport
from keras_kd.export.tflite import to_tflite

__all__ = ["ExportError", "TFLiteExport", "read_metadata", "to_tflite"]
