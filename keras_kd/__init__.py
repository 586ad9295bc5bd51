"""Knowledge distillation for Keras 3 on TensorFlow."""

from keras_kd import ops
from keras_kd.version import __version__

__all__ = ["__version__", "ops"]
