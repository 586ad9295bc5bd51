"""Rules of layers and operations that join tensors: sums are tied, concatenations are not."""

import keras

from keras_kd.students.channels import Unit


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


RULES = {
    keras.layers.Add: _merge,
    keras.layers.Subtract: _merge,
    keras.layers.Multiply: _merge,
    keras.layers.Average: _merge,
    keras.layers.Maximum: _merge,
    keras.layers.Minimum: _merge,
    keras.layers.Concatenate: concatenated,
}
