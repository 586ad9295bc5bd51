"""A loss a row whose gradient comes out of the same sweep."""

import tensorflow as tf

from keras_kd.ops import arguments, dispatch
from keras_kd.ops.gradients import custom_gradient
from keras_kd.ops.second_order import first_order_only


def row_loss(name, compute, logits, weight, reduction, differentiable):
    """Makes the computed rows' losses differentiable, weighted and reduced.

    Args:
        name: Of the function that the user called.
        compute: Takes `logits`; returns the losses `[...]` without weights, and the gradient of
            their weighted sum with respect to the first of `logits`.
        logits: Tensors; no gradient flows to any but the first, the student's.
        weight: As `arguments.reduced` returns it: of rows, a scalar, or `None`.
        reduction: `None`, `"sum"` or `"mean"`.
        differentiable: Whether `compute` was asked for the gradient.

    Returns:
        The losses, or their sum.
    """

    @custom_gradient
    def loss_of(student, *others):
        loss, gradient = compute(student, *others)

        def backward(upstream):
            if not differentiable:
                raise ValueError(
                    f"{name} was called with differentiable=False; no gradient was "
                    "computed. Call it with differentiable=True."
                )
            scale = first_order_only(lambda *args: dispatch.scale(*args, student.dtype), student)
            return (scale(gradient, upstream), *[None] * len(others))

        return _reduced(loss, weight, reduction), backward

    return loss_of(*logits)


def _reduced(loss, weight, reduction):
    if reduction is None:
        return arguments.weighted(loss, weight)
    if weight is None or weight.shape.rank == 0:
        return arguments.weighted(tf.reduce_sum(loss), weight)
    return tf.reduce_sum(loss * weight)
