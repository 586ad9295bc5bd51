"""Callbacks that steer a distillation while `fit` runs, or watch it."""

from keras_kd.callbacks.early_stop import EarlyStopDistillation
from keras_kd.callbacks.feature_hint import FeatureHint
from keras_kd.callbacks.log_hyperparameters import LogHyperparameters
from keras_kd.callbacks.monitor import DistillationMonitor
from keras_kd.callbacks.schedules import DecaySchedule, LossWeightSchedule, TemperatureSchedule
from keras_kd.callbacks.snapshot import SnapshotTeacher
from keras_kd.compression import Cluster, Sparsify

__all__ = [
    "Cluster",
    "DecaySchedule",
    "DistillationMonitor",
    "EarlyStopDistillation",
    "FeatureHint",
    "LogHyperparameters",
    "LossWeightSchedule",
    "SnapshotTeacher",
    "Sparsify",
    "TemperatureSchedule",
]
