"""Quantization-aware distillation by tensorflow-model-optimization, the second engine.

`keras_kd.quantization_aware` is the first: it takes any architecture, trains in `Distiller` with
all its losses, and has a 4-bit scheme. `distill` rounds with TensorFlow's own tools; `distil` is
its name in earlier versions.
"""

from keras_kd.quantization.tfmot.convert import table
from keras_kd.quantization.tfmot.student import TfmotStudent
from keras_kd.quantization.tfmot.train import distil, distill  # codespell:ignore distil

__all__ = ["TfmotStudent", "distil", "distill", "table"]
__doc__ = f"{__doc__}\n{table()}\n"
