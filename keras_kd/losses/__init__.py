"""The distillation losses."""

from keras_kd.losses.base import DistillationLoss
from keras_kd.losses.feature_hint import FeatureHint
from keras_kd.losses.soft_targets import SoftTargets

__all__ = ["DistillationLoss", "FeatureHint", "SoftTargets"]
