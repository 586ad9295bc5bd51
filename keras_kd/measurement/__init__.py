"""What a model or a file of one is worth: quality, size, speed.

`keras_kd.measure` makes a `Measurement`; `runtimes` runs `.tflite` and `.onnx` files over arrays.
"""

from keras_kd.measurement import runtimes
from keras_kd.measurement.result import Measurement
from keras_kd.measurement.run import measure

__all__ = ["Measurement", "measure", "runtimes"]
