"""Rules of what has no weights: layers that pass channels on or move axes, operations, merges."""

import math

import keras
import numpy as np

from keras_kd.students.channels import Signal, Unit, tiled
from keras_kd.students.weight_rules import channel_axis, check_spatial
from keras_kd.students.width import rule_for


def _named(*names):
    """Layers of these names, each for 1, 2 and 3 dimensions."""
    found = [f"{name}{n}D" for name in names for n in (1, 2, 3)]
    return [getattr(keras.layers, name) for name in found if hasattr(keras.layers, name)]


_PASS_ON = (
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
)
# Keras does not export the classes of the operations that it leaves in a model: these are their
# names.
_ELEMENTWISE = (
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
)
_REDUCTIONS = ("Mean", "Max", "Min", "Sum", "Var", "Std")


# Layers that pass channels on, and layers that move axes.


@rule_for(*_PASS_ON)
def _same(call, x, *args, **kwargs):
    del call, args, kwargs
    return [x.axes]


@rule_for(keras.layers.Softmax)
def _softmax(call, x, mask=None):
    del call, mask
    return [x.axes]


@rule_for(*_named("MaxPooling", "AveragePooling", "ZeroPadding", "Cropping", "UpSampling"))
def _spatial(call, x):
    """Pooling, padding, cropping, enlarging: they change the spatial axes."""
    check_spatial(call, x, channel_axis(call, x))
    return [x.axes]


@rule_for(*_named("GlobalMaxPooling", "GlobalAveragePooling"))
def _global_pooling(call, x, mask=None):
    del mask
    channel = channel_axis(call, x)
    check_spatial(call, x, channel)
    if not call.config["keepdims"]:
        return [(None, x.axes[channel])]
    return [tuple(x.axes)]


@rule_for(keras.layers.Flatten)
def _flatten(call, x):
    axes, shape = list(x.axes[1:]), list(x.shape[1:])
    if call.config["data_format"] == "channels_first" and len(axes) > 1:
        axes, shape = axes[1:] + axes[:1], shape[1:] + shape[:1]
    return [(None, _flatten_axes(call, axes, shape))] if axes else [(None, None)]


def _flatten_axes(call, axes, shape):
    """The axis that several make when they become one."""
    channel = [i for i, axis in enumerate(axes) if axis is not None]
    if not channel:
        return None
    around = shape[: channel[0]] + shape[channel[0] + 1 :]
    if len(channel) > 1 or None in around:
        call.keep("it flattens an axis of unknown size, or two of channels", _channel_axes(axes))
        return None
    i = channel[0]
    return tiled(math.prod(shape[:i]), axes[i], math.prod(shape[i + 1 :]))


def _channel_axes(axes):
    return [axis for axis in axes if axis is not None]


@rule_for(keras.layers.Reshape)
def _reshape(call, x):
    target = list(call.config["target_shape"])
    axes = reshape_axes(call, x.axes[1:], x.shape[1:], call.layer.compute_output_shape(x.shape)[1:])
    for i, axis in enumerate(axes):
        if target[i] != -1 and axis is not None:
            call.edits[("target_shape", i)] = axis
    return [(None, *axes)]


def reshape_axes(call, axes, before, after):
    """The axes of a tensor of shape `after`, both without the batch's."""
    made, taken = [None] * len(after), set()
    for old, new in _pieces(before, after):
        if len(new) == 1:
            made[new[0]] = _flatten_axes(call, [axes[i] for i in old], [before[i] for i in old])
            taken |= set(old)
    divided = [axis for i, axis in enumerate(axes) if i not in taken]
    call.keep_channels("it divides an axis of channels", divided)
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


@rule_for(keras.layers.Permute)
def _permute(call, x):
    return [(None, *(x.axes[i] for i in call.config["dims"]))]


@rule_for(keras.layers.RepeatVector)
def _repeat_vector(call, x):
    del call
    return [(None, None, x.axes[-1])]


# Operations.


@rule_for(*_ELEMENTWISE)
def _elementwise(call, *args, **kwargs):
    constants = [value for value in (*args, *kwargs.values()) if not isinstance(value, Signal)]
    if any(np.ndim(value) > 0 for value in constants):
        return call.give_up("it takes a constant that is not a single number")
    return join_axes(call, call.inputs)


@rule_for(*_REDUCTIONS)
def _reduction(call, x):
    axis = call.config["axis"]
    rank = len(x.axes)
    axes = range(rank) if axis is None else [axis] if isinstance(axis, int) else axis
    reduced = [i % rank for i in axes]
    call.keep_channels("it reduces an axis of channels", [x.axes[i] for i in reduced])
    if call.config["keepdims"]:
        return [tuple(None if i in reduced else axis for i, axis in enumerate(x.axes))]
    return [tuple(axis for i, axis in enumerate(x.axes) if i not in reduced)]


@rule_for("GetItem")
def _get_item(call, x, key):
    keys = key if isinstance(key, (tuple, list)) else (key,)
    if len(keys) > len(x.axes) or not all(isinstance(one, (int, slice)) for one in keys):
        return call.give_up("it picks by something else than numbers and slices")
    picked, axes = [], []
    for one, axis in zip(keys, x.axes, strict=False):
        whole = one == slice(None)
        picked += [] if whole else [axis]
        axes += [axis if whole else None] if isinstance(one, slice) else []
    call.keep_channels("it picks channels", picked)
    return [(*axes, *x.axes[len(keys) :])]


@rule_for("Concatenate")
def _concatenate(call, xs):
    return concatenate_axes(call, xs)


@rule_for("Transpose")
def _transpose(call, x):
    order = call.config["axes"]
    return [x.axes[::-1] if order is None else tuple(x.axes[i] for i in order)]


# Layers and operations that join tensors: sums tie their channels, concatenations do not.


def join_axes(call, signals):
    """The axes of an elementwise result, with broadcasting as NumPy's."""
    rank = max(len(x.shape) for x in signals)
    padded = [
        ((1,) * (rank - len(x.shape)) + tuple(x.shape), (None,) * (rank - len(x.axes)) + x.axes)
        for x in signals
    ]
    return [tuple(_joined_axis(call, padded, i) for i in range(rank))]


def _joined_axis(call, signals, i):
    sizes = [shape[i] for shape, _ in signals]
    # What is broadcast has one channel, however wide the others are.
    wide = [axes[i] for shape, axes in signals if shape[i] != 1 or set(sizes) == {1}]
    return call.tie(*wide)


@rule_for(
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Multiply,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
)
def _merge(call, inputs, *args, **kwargs):
    del args, kwargs
    rank = max(len(x.shape) for x in inputs)
    if any(len(x.shape) != rank for x in inputs):
        return call.give_up("its inputs have different numbers of axes")
    return join_axes(call, inputs)


@rule_for(keras.layers.Concatenate)
def concatenate_axes(call, inputs, axis=None):
    """The axes of a concatenation."""
    axis = call.config["axis"] if axis is None else axis
    axis %= len(inputs[0].shape)
    axes = []
    for i in range(len(inputs[0].shape)):
        if i == axis:
            axes.append(_side_by_side(inputs, i))
        else:
            axes.append(call.tie(*(x.axes[i] for x in inputs)))
    return [tuple(axes)]


def _side_by_side(inputs, i):
    if all(x.axes[i] is None for x in inputs):
        return None
    parts: list = []
    for x in inputs:
        parts += [_whole(x.shape[i])] if x.axes[i] is None else x.axes[i]
    return tuple(parts)


def _whole(size):
    """Channels that stay as they are, of an input for example."""
    unit = Unit(size, None)
    unit.fixed = True
    return unit
