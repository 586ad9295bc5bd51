"""Layers that a file computes in several steps, as these steps.

A separable convolution is two operators in a file. LayerNormalization of Keras subtracts by a
negation, for which LiteRT has no integer kernel: written as below it has only operators that do.
`visit(part, value)` is given what lies between the steps, and returns what goes on.
"""

import contextlib

from keras import layers, ops

from keras_kd import kernel_layers
from keras_kd.taps import listening, paths


def has_steps(layer):
    """Whether `in_steps` knows a layer."""
    return isinstance(layer, kernel_layers.SEPARABLE) or _is_plain_normalization(layer)


def _is_plain_normalization(layer):
    return (
        type(layer) is layers.LayerNormalization
        and layer.built
        and _last_axis(layer)
        and layer.compute_dtype == "float32"
    )


def _last_axis(layer):
    axis = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    rank = len(axis) == 1 and (axis[0] == -1 or _rank_of(layer) == axis[0] + 1)
    return bool(rank)


def _rank_of(layer):
    shape = (layer.get_build_config() or {}).get("input_shape")
    return len(shape) if shape else None


def in_steps(layer, inputs, visit):
    """The layer's output, computed in steps."""
    steps = _separable if isinstance(layer, kernel_layers.SEPARABLE) else _normalization
    return steps(layer, inputs, visit)


def _separable(layer, inputs, visit):
    outputs = ops.depthwise_conv(
        inputs,
        layer.depthwise_kernel,
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        data_format=layer.data_format,
    )
    outputs = ops.conv(
        visit(0, outputs), layer.pointwise_kernel, padding="valid", data_format=layer.data_format
    )
    if layer.use_bias:
        ones = (1,) * layer.rank
        channels_last = layer.data_format == "channels_last"
        shape = (1, *ones, -1) if channels_last else (1, -1, *ones)
        outputs = ops.add(outputs, ops.reshape(layer.bias, shape))
    return outputs if layer.activation is None else layer.activation(outputs)


def _normalization(layer, inputs, visit):
    mean = visit(0, ops.mean(inputs, axis=-1, keepdims=True))
    centered = visit(1, ops.subtract(inputs, mean))
    squares = visit(2, ops.multiply(centered, centered))
    variance = visit(3, ops.mean(squares, axis=-1, keepdims=True))
    inverse = visit(5, ops.rsqrt(visit(4, ops.add(variance, layer.epsilon))))
    if layer.scale:
        # A factor of the outputs would be folded into the kernel that follows, channel by channel
        # of its inputs, and the integers would be others than those that were trained.
        inverse = visit(6, ops.multiply(inverse, layer.gamma))
    outputs = ops.multiply(centered, inverse)
    if layer.center:
        outputs = ops.add(visit(7, outputs), layer.beta)
    return outputs


@contextlib.contextmanager
def applied(student):
    """While open, the layers of a student that `in_steps` knows compute in steps."""
    with contextlib.ExitStack() as stack:
        known = {id(x): x for _, _, x in paths.walk(student) if has_steps(x)}
        for layer in known.values():
            stack.enter_context(listening.wrapped(layer, _rewriting(layer)))
        yield


def _rewriting(layer):
    def wrap(call):
        def rewritten(inputs, *args, **kwargs):
            del args, kwargs
            return in_steps(layer, inputs, lambda part, value: value)

        return rewritten

    return wrap
