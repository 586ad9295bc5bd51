"""Taps: outputs of inner layers of a model, from the one forward pass it makes anyway."""

from keras_kd.taps.overview import summary
from keras_kd.taps.tap import Tap

__all__ = ["Tap", "summary"]
