"""Rules of what has no weights: layers that pass channels on or move axes, operations, merges."""

import math

import keras
import numpy as np

from keras_kd.students.channels import Signal, Unit, tiled
from keras_kd.students.weight_rules import channel_axis, spatial

# Rules of layers without weights: those that pass channels on, and those that move axes.


def _same(site, x, *args, **kwargs):
    del site, args, kwargs
    return [x.axes]


def _softmax(site, x, mask=None):
    del site, mask
    return [x.axes]


def _spatial(site, x):
    """Pooling, padding, cropping, enlarging: they change the spatial axes."""
    spatial(site, x, channel_axis(site, x))
    return [x.axes]


def _over_time(site, x):
    spatial(site, x, len(x.axes) - 1)
    return [x.axes]


def _global_pooling(site, x, mask=None):
    del mask
    channel = channel_axis(site, x)
    spatial(site, x, channel)
    if not site.config["keepdims"]:
        return [(None, x.axes[channel])]
    return [tuple(x.axes)]


def _flatten(site, x):
    axes, shape = list(x.axes[1:]), list(x.shape[1:])
    if site.config["data_format"] == "channels_first" and len(axes) > 1:
        axes, shape = axes[1:] + axes[:1], shape[1:] + shape[:1]
    return [(None, _product(site, axes, shape))] if axes else [(None, None)]


def _product(site, axes, shape):
    """The axis that several make when they become one."""
    channel = [i for i, axis in enumerate(axes) if axis is not None]
    if not channel:
        return None
    around = shape[: channel[0]] + shape[channel[0] + 1 :]
    if len(channel) > 1 or None in around:
        site.keep("it flattens an axis of unknown size, or two of channels", _some(axes))
        return None
    i = channel[0]
    return tiled(math.prod(shape[:i]), axes[i], math.prod(shape[i + 1 :]))


def _some(axes):
    return [axis for axis in axes if axis is not None]


def _reshape(site, x):
    target = list(site.config["target_shape"])
    axes = reshaped(site, x.axes[1:], x.shape[1:], site.layer.compute_output_shape(x.shape)[1:])
    for i, axis in enumerate(axes):
        if target[i] != -1 and axis is not None:
            site.edits[("target_shape", i)] = axis
    return [(None, *axes)]


def reshaped(site, axes, before, after):
    """The axes of a tensor of shape `after`, both without the batch's."""
    made, taken = [None] * len(after), set()
    for old, new in _pieces(before, after):
        if len(new) == 1:
            made[new[0]] = _product(site, [axes[i] for i in old], [before[i] for i in old])
            taken |= set(old)
    divided = [axis for i, axis in enumerate(axes) if i not in taken]
    site.plain("it divides an axis of channels", divided)
    return made


def _pieces(before, after):
    """Which axes become which others, in pieces as small as the sizes allow, from the end on."""
    # Axes of size 1 come and go.
    before = [(i, size) for i, size in enumerate(before) if size != 1]
    after = [(i, size) for i, size in enumerate(after) if size != 1]
    while _is_known(before) and _is_known(after):
        old, new = [before.pop()], [after.pop()]
        while (short := _size(old) - _size(new)) != 0:
            side, rest = (old, before) if short < 0 else (new, after)
            if not _is_known(rest):
                return
            side.insert(0, rest.pop())
        yield [i for i, _ in old], [i for i, _ in new]


def _is_known(axes):
    return bool(axes) and axes[-1][1] is not None


def _size(piece):
    return math.prod(size for _, size in piece)


def _permute(site, x):
    return [(None, *(x.axes[i] for i in site.config["dims"]))]


def _repeat_vector(site, x):
    del site
    return [(None, None, x.axes[-1])]


def _named(*names):
    """Layers of these names, of which each has one for 1, 2 and 3 dimensions."""
    found = [f"{name}{n}D" for name in names for n in (1, 2, 3)]
    return [getattr(keras.layers, name) for name in found if hasattr(keras.layers, name)]


_PASS_ON = [
    keras.layers.Activation,
    keras.layers.ActivityRegularization,
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.ELU,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.LeakyReLU,
    keras.layers.Masking,
    keras.layers.ReLU,
    keras.layers.UnitNormalization,
    *_named("SpatialDropout"),
]
RULES = {
    **dict.fromkeys(_PASS_ON, _same),
    **dict.fromkeys(_named("MaxPooling", "AveragePooling"), _spatial),
    **dict.fromkeys(_named("ZeroPadding", "Cropping", "UpSampling"), _spatial),
    **dict.fromkeys(_named("GlobalMaxPooling", "GlobalAveragePooling"), _global_pooling),
    keras.layers.Softmax: _softmax,
    keras.layers.Flatten: _flatten,
    keras.layers.Reshape: _reshape,
    keras.layers.Permute: _permute,
    keras.layers.RepeatVector: _repeat_vector,
}


# Rules of `keras.ops` in functional models, such as the addition in `x + y`.
#
# Keras exports the functions, not the classes of the operations that they leave in a model, so
# these are known by their names.


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


# Rules of layers and operations that join tensors: sums are tied, concatenations are not.


def joined(site, signals):
    """The axes of an elementwise result, with broadcasting as NumPy's."""
    rank = max(len(x.shape) for x in signals)
    padded = [
        ((1,) * (rank - len(x.shape)) + tuple(x.shape), (None,) * (rank - len(x.axes)) + x.axes)
        for x in signals
    ]
    return [tuple(_joined_axis(site, padded, i) for i in range(rank))]


def _joined_axis(site, signals, i):
    sizes = [shape[i] for shape, _ in signals]
    # What is broadcast has one channel, however wide the others are.
    wide = [axes[i] for shape, axes in signals if shape[i] != 1 or set(sizes) == {1}]
    return site.tie(*wide)


def _merge(site, inputs, *args, **kwargs):
    del args, kwargs
    rank = max(len(x.shape) for x in inputs)
    if any(len(x.shape) != rank for x in inputs):
        return site.opaque("its inputs have different numbers of axes")
    return joined(site, inputs)


def concatenated(site, inputs, axis=None):
    """The axes of a concatenation."""
    axis = site.config["axis"] if axis is None else axis
    axis %= len(inputs[0].shape)
    axes = []
    for i in range(len(inputs[0].shape)):
        if i == axis:
            axes.append(_side_by_side(inputs, i))
        else:
            axes.append(site.tie(*(x.axes[i] for x in inputs)))
    return [tuple(axes)]


def _side_by_side(inputs, i):
    if all(x.axes[i] is None for x in inputs):
        return None
    parts = []
    for x in inputs:
        parts += [_whole(x.shape[i])] if x.axes[i] is None else x.axes[i]
    return tuple(parts)


def _whole(size):
    """Channels that stay as they are, of an input for example."""
    unit = Unit(size, None)
    unit.fixed = True
    return unit


MERGE_RULES = {
    keras.layers.Add: _merge,
    keras.layers.Subtract: _merge,
    keras.layers.Multiply: _merge,
    keras.layers.Average: _merge,
    keras.layers.Maximum: _merge,
    keras.layers.Minimum: _merge,
    keras.layers.Concatenate: concatenated,
}
