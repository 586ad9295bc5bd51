"""Quantization-aware students: they train with the integers of their file."""

from keras_kd.quantization import tfmot
from keras_kd.quantization.api import quantization_aware
from keras_kd.quantization.batch_norm import recalibrate
from keras_kd.quantization.model import QuantizationAware

__all__ = ["QuantizationAware", "quantization_aware", "recalibrate", "tfmot"]
