"""Rules of layers without weights: those that pass channels on, and those that move axes."""

import math

import keras

from keras_kd.students.channels import tiled
from keras_kd.students.weight_rules import channel_axis, spatial


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
