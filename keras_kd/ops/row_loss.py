"""A loss a row whose gradient comes out of the same sweep."""

import tensorflow as tf

from keras_kd.ops import arguments, dispatch
from keras_kd.ops.gradients import custom_gradient, once_traced
from keras_kd.ops.second_order import first_order_only

# Of these a caller may want gradients; only the student's is not `None`.
_LOGITS = ("student", "teacher", "indices", "tail")


def row_loss(name, solve, tensors, **settings):
    """Makes the computed rows' losses differentiable, weighted and reduced.

    Args:
        name: Of the function that the user called.
        solve: A function of a module, from the fields of a problem to its losses `[...]` without
            weights, and the gradient of their weighted sum with respect to the student.
        tensors: The fields that are tensors; `soft_weight` as `arguments.reduced` returns it.
        **settings: The others; `reduction`: `None`, `"sum"` or `"mean"`.

    Returns:
        The losses, or their sum.
    """
    return once_traced(_row_loss, tensors, name=name, solve=solve, **settings)


def _row_loss(tensors, name, solve, reduction, **settings):
    logits = {field: tensors[field] for field in _LOGITS if field in tensors}

    @custom_gradient
    def loss_of(*given):
        student = given[0]
        fields = {**tensors, **dict(zip(logits, given, strict=True))}
        loss, gradient = solve(**fields, **settings)

        def backward(upstream):
            if not settings["with_gradient"]:
                raise ValueError(
                    f"{name} was called with differentiable=False; no gradient was "
                    "computed. Call it with differentiable=True."
                )
            scale = first_order_only(lambda *args: dispatch.scale(*args, student.dtype), student)
            return (scale(gradient, upstream), *[None] * (len(given) - 1))

        return _reduced(loss, tensors["soft_weight"], reduction), backward

    return loss_of(*logits.values())


def _reduced(loss, weight, reduction):
    if reduction is None:
        return arguments.weighted(loss, weight)
    if weight is None or weight.shape.rank == 0:
        return arguments.weighted(tf.reduce_sum(loss), weight)
    return tf.reduce_sum(loss * weight)
