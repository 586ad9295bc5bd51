"""`tune` searches temperature, weights, losses and students; `TuningResult` is what it found."""

from keras_kd.tuning.api import tune
from keras_kd.tuning.result import TuningResult
from keras_kd.tuning.space import Settings

__all__ = ["Settings", "TuningResult", "tune"]
