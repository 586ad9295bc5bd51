"""A clear error where a second derivative is asked for."""

import tensorflow as tf


def first_order_only(function):
    """Wraps a gradient so that differentiating it again raises instead of giving nothing.

    Among its arguments must be what the gradient is taken of: a tape asks only for the derivatives
    of what depends on the tensors it watches.
    """

    @tf.custom_gradient
    def once(*args):
        def twice(*upstream):
            del upstream
            raise NotImplementedError(
                "Second-order gradients of the distillation loss are not implemented. Take them "
                "of a loss written in plain TensorFlow, or stop the gradient before it."
            )

        return function(*args), twice

    return once
