"""Quantization-aware students: they train with the numbers that their file computes with."""

from keras_kd.quantization import tfmot
from keras_kd.quantization.building import quantization_aware
from keras_kd.quantization.recalibration import recalibrate
from keras_kd.quantization.student import QuantizationAware

__all__ = ["QuantizationAware", "quantization_aware", "recalibrate", "tfmot"]
