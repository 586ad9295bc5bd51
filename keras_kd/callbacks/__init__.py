"""Callbacks that steer a distillation while `fit` runs."""

from keras_kd.callbacks.loss_weight import LossWeightSchedule
from keras_kd.callbacks.temperature import TemperatureSchedule

__all__ = ["LossWeightSchedule", "TemperatureSchedule"]
