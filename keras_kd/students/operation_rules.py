"""Rules of `keras.ops` in functional models, such as the addition in `x + y`.

Keras exports the functions, not the classes of the operations that they leave in a model, so these
are known by their names.
"""

import keras
import numpy as np

from keras_kd.students.channels import Signal
from keras_kd.students.merge_rules import concatenated, joined

_ELEMENTWISE = {
    "Absolute",
    "Add",
    "Cast",
    "Celu",
    "Clip",
    "Divide",
    "Elu",
    "Exp",
    "Gelu",
    "HardSigmoid",
    "HardSilu",
    "HardTanh",
    "Identity",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "Maximum",
    "Minimum",
    "Multiply",
    "Negative",
    "Power",
    "Relu",
    "Relu6",
    "Rsqrt",
    "Selu",
    "Sigmoid",
    "Silu",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Square",
    "Subtract",
    "Tanh",
    "TrueDivide",
}
_REDUCTIONS = ("Mean", "Max", "Min", "Sum", "Var", "Std")


def rule_of(operation):
    """The rule of an operation, or `None`."""
    if isinstance(operation, keras.layers.Layer):
        return None
    name = type(operation).__name__
    if name in _ELEMENTWISE:
        return _elementwise
    if name in _REDUCTIONS:
        return _reduction
    return {"GetItem": _get_item, "Concatenate": _concatenate, "Transpose": _transpose}.get(name)


def _elementwise(site, *args, **kwargs):
    constants = [value for value in (*args, *kwargs.values()) if not isinstance(value, Signal)]
    if any(np.ndim(value) > 0 for value in constants):
        return site.opaque("it takes a constant that is no single number")
    return joined(site, site.inputs)


def _reduction(site, x):
    axis = site.config["axis"]
    rank = len(x.axes)
    axes = range(rank) if axis is None else [axis] if isinstance(axis, int) else axis
    reduced = [i % rank for i in axes]
    site.plain("it reduces an axis of channels", [x.axes[i] for i in reduced])
    if site.config["keepdims"]:
        return [tuple(None if i in reduced else axis for i, axis in enumerate(x.axes))]
    return [tuple(axis for i, axis in enumerate(x.axes) if i not in reduced)]


def _get_item(site, x, key):
    keys = key if isinstance(key, (tuple, list)) else (key,)
    if len(keys) > len(x.axes) or not all(isinstance(one, (int, slice)) for one in keys):
        return site.opaque("it picks by something else than numbers and slices")
    picked, axes = [], []
    for one, axis in zip(keys, x.axes, strict=False):
        whole = one == slice(None)
        picked += [] if whole else [axis]
        axes += [axis if whole else None] if isinstance(one, slice) else []
    site.plain("it picks channels", picked)
    return [(*axes, *x.axes[len(keys) :])]


def _concatenate(site, xs):
    return concatenated(site, xs)


def _transpose(site, x):
    order = site.config["axes"]
    return [x.axes[::-1] if order is None else tuple(x.axes[i] for i in order)]
