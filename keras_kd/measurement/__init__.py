"""Quality, size and speed of models and files.

`keras_kd.measure` makes a `Measurement`; `runtimes` runs model files over arrays.
"""

from keras_kd import runtimes
from keras_kd.measurement.api import measure
from keras_kd.measurement.result import Measurement

__all__ = ["Measurement", "measure", "runtimes"]
