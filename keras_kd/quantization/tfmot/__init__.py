"""Quantization-aware distillation by tensorflow-model-optimization, the second engine.

`keras_kd.quantization_aware` is the first: it takes any architecture, trains in `Distiller` with
all its losses, and knows 4 bits. `distil` here rounds with TensorFlow's own tools.
"""

from keras_kd.quantization.tfmot.convert import table
from keras_kd.quantization.tfmot.student import TfmotStudent
from keras_kd.quantization.tfmot.train import distil

__all__ = ["TfmotStudent", "distil", "table"]
__doc__ = f"{__doc__}\n{table()}\n"
