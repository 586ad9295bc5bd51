"""Online distillation: several models that teach each other while they learn."""

from keras_kd.mutual.distiller import MutualDistiller

__all__ = ["MutualDistiller"]
