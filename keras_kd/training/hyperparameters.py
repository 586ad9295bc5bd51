"""Numbers of the distiller that may change during `fit`: alpha, beta, temperature."""

import keras
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd.losses import base


class LiveNumbers:
    """Mixin of the distiller: `alpha`, `beta` and `temperature` as properties over variables.

    A step reads the variables, so a new value takes effect with the next step and nothing is
    traced again.
    """

    def _add_numbers(self, alpha, beta):
        self.alpha_variable = base.add_number(self, "alpha", alpha)
        self.beta_variable = base.add_number(self, "beta", beta)

    def _mixture(self):
        """`(alpha, beta)` as tensors, for use inside a step."""
        return tuple(
            tf.convert_to_tensor(keras.ops.convert_to_tensor(variable))
            for variable in (self.alpha_variable, self.beta_variable)
        )

    @property
    def alpha(self):
        """The factor of the hard loss; assign a number >= 0 to change it."""
        return base.read(self.alpha_variable)

    @alpha.setter
    def alpha(self, value):
        value = validation.non_negative("alpha", value)
        if value != 0 and self._has_labels is False:
            raise ValueError(
                f"alpha={value} needs labels, but the training data has none. Pass (inputs, "
                "labels) to fit, or leave alpha at 0."
            )
        if value != 0 and self.compiled and self.loss is None:
            raise ValueError(
                f"alpha={value} needs a hard loss, but compile got no loss. Pass one to compile, "
                "or leave alpha at 0."
            )
        base.assign(self.alpha_variable, value)

    @property
    def beta(self):
        """The factor of the distillation losses; assign a number >= 0 to change it."""
        return base.read(self.beta_variable)

    @beta.setter
    def beta(self, value):
        base.assign(self.beta_variable, validation.non_negative("beta", value))

    @property
    def temperature(self):
        """The temperature of the distillation losses that have one; assigning sets them all."""
        values = [loss.temperature for loss in self._losses_with_temperature()]
        if tf.executing_eagerly() and any(value != values[0] for value in values):
            # Keras reads an attribute before it sets it, and lets this kind of error pass.
            raise AttributeError(
                f"The distillation losses have different temperatures: {values}. Read each loss's "
                "own: distiller.distillation_losses[i].temperature."
            )
        return values[0]

    @temperature.setter
    def temperature(self, value):
        for loss in self._losses_with_temperature():
            loss.temperature = value

    def _losses_with_temperature(self):
        losses = [x for x in self.distillation_losses if hasattr(x, "temperature")]
        if not losses:
            raise AttributeError("None of the distillation losses has a temperature.")
        return losses


def traced_value(variable):
    """A variable's value as a Python float, also while a step is being traced."""
    with tf.init_scope():
        return float(variable.numpy())


def cond(predicate, yes, no):
    """`tf.cond`, which in eager code runs only the branch that is taken."""
    if tf.executing_eagerly():
        return yes() if predicate else no()
    return tf.cond(predicate, yes, no)
