"""`HasTemperature`: the live temperature of a loss."""

import tensorflow as tf

from keras_kd.losses import base
from keras_kd.ops import arguments


def checked(temperature):
    """Returns a temperature, a number as it was given, or raises."""
    tensor = arguments.temperature(temperature)
    return tensor if tf.is_tensor(temperature) else float(temperature)


class HasTemperature(base.DistillationLoss):
    """Base class of the losses with a temperature, which `TemperatureSchedule` steers.

    Args:
        temperature: `T`, a positive number.
        **kwargs: As of `DistillationLoss`.
    """

    def __init__(self, temperature, **kwargs):
        super().__init__(**kwargs)
        self.temperature_variable = self.add_scalar("temperature", checked(temperature))

    @property
    def temperature(self):
        """`T`; assign a positive number to change it."""
        return base.read(self.temperature_variable)

    @temperature.setter
    def temperature(self, value):
        base.assign(self.temperature_variable, checked(value))

    def get_config(self):
        config = super().get_config()
        config["temperature"] = float(self.temperature)
        return config
