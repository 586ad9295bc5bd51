"""Numbers of a distiller that may change during `fit`: alpha, beta, temperature.

A step reads their variables, so a new value takes effect with the next step, without retracing.
"""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from keras_kd.ops.arguments import as_tensor


def as_tensors(*variables: keras.Variable) -> tuple[tf.Tensor, ...]:
    """The values of variables as tensors, for use inside a step."""
    return tuple(map(as_tensor, variables))


def get_temperature(losses: Iterable[Any]) -> Any:
    """The temperature of those losses that have one.

    Raises:
        AttributeError: None has one, or they differ.
    """
    values = [loss.temperature for loss in _with_temperature(losses)]
    if tf.executing_eagerly() and any(value != values[0] for value in values):
        # Keras reads an attribute before it sets it, and lets this kind of error pass.
        raise AttributeError(
            f"The distillation losses have different temperatures: {values}. Read each loss's "
            "own: distiller.distillation_losses[i].temperature."
        )
    return values[0]


def set_temperature(losses: Iterable[Any], value: float) -> None:
    """Sets the temperature of all losses that have one."""
    for loss in _with_temperature(losses):
        loss.temperature = value


def _with_temperature(losses: Iterable[Any]) -> list[Any]:
    found = [each for each in losses if hasattr(each, "temperature")]
    if not found:
        raise AttributeError("None of the distillation losses has a temperature.")
    return found


def traced_value(variable: keras.Variable) -> float:
    """A variable's value as a Python float, also while a step is being traced."""
    with tf.init_scope():
        return float(variable.numpy())


def cond(predicate: Any, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """`tf.cond`, which in eager code runs only the branch that is taken."""
    if tf.executing_eagerly():
        return yes() if predicate else no()
    return tf.cond(predicate, yes, no)
