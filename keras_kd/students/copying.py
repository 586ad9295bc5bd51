"""Weights: the teacher's, cut to the student's channels."""

import keras
import numpy as np

from keras_kd.students.channels import Summed


def narrowed(value, axes, choice):
    """A teacher's weight as the student's.

    Args:
        value: NumPy array.
        axes: For each of its axes the channels along it; `Summed` where the channels that become
            one are added up, because the layer reads them, instead of averaged.
        choice: The `Choice` of channels.

    Returns:
        An array of the same dtype.
    """
    dtype = value.dtype
    for i, axis in enumerate(axes):
        is_summed = isinstance(axis, Summed)
        axis = axis.axis if is_summed else axis
        if choice.narrows(axis):
            value = _along(value, i, choice.channels(axis), is_summed)
    return value.astype(dtype, copy=False)


def _along(value, axis, channels, is_summed):
    """`channels` has for each channel its new number, or -1."""
    kept = np.flatnonzero(channels >= 0)
    order = kept[np.argsort(channels[kept], kind="stable")]
    counts = np.bincount(channels[order])
    taken = np.take(value, order, axis=axis)
    if counts.max() == 1:
        return taken
    starts = np.cumsum(counts) - counts
    # In float64 until all axes are done: half precision would round each of them.
    merged = np.add.reduceat(taken.astype("float64"), starts, axis=axis)
    if not is_summed:
        merged /= counts.reshape([-1 if i == axis else 1 for i in range(value.ndim)])
    return merged


def narrowed_shape(shape, axes, choice):
    """The shape of `narrowed`."""
    axes = [axis.axis if isinstance(axis, Summed) else axis for axis in axes]
    return tuple(
        choice.size(axis) if choice.narrows(axis) else size
        for size, axis in zip(shape, axes, strict=True)
    )


def copy(student, plan, choice):
    """Gives a student's layer the weights of its teacher's.

    Args:
        student: The model.
        plan: The `LayerWidths` of the layer.
        choice: The `Choice` of channels.
    """
    layer = layer_at(student, plan.path)
    values = [
        narrowed(keras.ops.convert_to_numpy(weight), axes, choice)
        for weight, axes in zip(plan.layer.weights, plan.weights, strict=True)
    ]
    layer.set_weights(values)
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()


def check(student, plan, choice):
    """Raises unless a student's layer has the shapes that were planned."""
    layer = layer_at(student, plan.path)
    expected = shapes(plan, choice)
    received = [tuple(weight.shape) for weight in layer.weights]
    if expected != received:
        raise ValueError(
            f"Layer {plan.path!r} ({type(layer).__name__}) of the student has weights of shapes "
            f"{received}, expected were {expected}: it computes its width in a way that keras_kd "
            f"does not foresee. Keep it with keep=[{plan.path!r}], or pass width=1.0."
        )


def shapes(plan, choice):
    """The shapes of the student's weights."""
    return [
        narrowed_shape(weight.shape, axes, choice)
        for weight, axes in zip(plan.layer.weights, plan.weights, strict=True)
    ]


def layer_at(model, path):
    """The layer at a path of names."""
    for name in path.split("/"):
        model = model.get_layer(name)
    return model
