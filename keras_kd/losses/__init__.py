"""The distillation losses."""

from keras_kd.losses.base import DistillationLoss
from keras_kd.losses.soft_targets import SoftTargets

__all__ = ["DistillationLoss", "SoftTargets"]
