"""`HasTemperature`: the live temperature of a loss."""

from keras_kd.losses import base
from keras_kd.ops import arguments


class HasTemperature(base.DistillationLoss):
    """Base class of the losses with a temperature, which `TemperatureSchedule` steers.

    Args:
        temperature: `T`, a positive number.
        **kwargs: As of `DistillationLoss`.
    """

    def __init__(self, temperature, **kwargs):
        super().__init__(**kwargs)
        self.temperature_variable = self.add_scalar(
            "temperature", arguments.temperature(temperature)
        )

    @property
    def temperature(self):
        """`T`; assign a positive number to change it."""
        return base.read(self.temperature_variable)

    @temperature.setter
    def temperature(self, value):
        self.temperature_variable.assign(arguments.temperature(value))

    def get_config(self):
        config = super().get_config()
        config["temperature"] = float(self.temperature)
        return config
