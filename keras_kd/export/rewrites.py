"""Layers that a file computes in several steps, as these steps.

A separable convolution is two operators in a file. LayerNormalization of Keras subtracts by a
negation, for which LiteRT has no integer kernel: written as below it has only operators that do.
Its means are products with a constant: LiteRT's integer MEAN rounds twice, which turned 15 to 30 %
of its results into their neighbours; its FULLY_CONNECTED 0.1 %.
Attention that is asked for its scores computes them by a softmax layer of its own, which can be
listened to. A masked softmax adds -1e9 to what is masked, a range of which 8 bits leave nothing;
here that is put a little below the rest. UnitNormalization is a SQUARE and a MINIMUM in a file,
which have no integer kernels either; its steps are not visited.

`visit(part, value)` is given what lies between the steps, and returns what goes on.
"""

import contextlib
import functools

from keras import layers, ops

from keras_kd import kernel_layers
from keras_kd.taps import attention, listening, paths

# exp(-10) is an eightieth of what 8 bits tell from 0.
_FAR = 10.0
# As Keras has it: a vector of zeros stays one.
_NOT_ZERO = 1e-12


def steps_of(layer, call):
    """A layer's `call` in steps, `run(visit, *args, **kwargs)`, or `None` where it has none."""
    if isinstance(layer, kernel_layers.SEPARABLE):
        return functools.partial(_separable, layer)
    if _is_plain_normalization(layer):
        return functools.partial(_normalization, layer)
    if _gives_scores(layer):
        return functools.partial(_attention, call)
    if type(layer) is layers.Softmax:
        return functools.partial(_softmax, layer, call)
    return None


def _in_operators(layer, call):
    """A layer's `call` in operators that have integer kernels, or `None` where it stays as it is.

    As `steps_of`, of layers with nothing inside that is listened to.
    """
    steps = steps_of(layer, call)
    if steps is not None:
        return functools.partial(steps, lambda part, value: value)
    is_unit = type(layer) is layers.UnitNormalization and layer.axis in (-1, [-1], (-1,))
    return _unit_normalization if is_unit else None


def _unit_normalization(inputs, **kwargs):
    del kwargs
    ones = ops.ones((inputs.shape[-1], 1), inputs.dtype)
    squares = ops.matmul(ops.multiply(inputs, inputs), ones)
    return ops.multiply(inputs, ops.rsqrt(ops.add(squares, _NOT_ZERO)))


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


def _mean(values):
    size = values.shape[-1]
    return ops.matmul(values, ops.full((size, 1), 1.0 / size, values.dtype))


def _gives_scores(layer):
    kinds = (layers.MultiHeadAttention, layers.GroupQueryAttention)
    if not isinstance(layer, kinds) or not attention.returns_scores(layer):
        return False
    return not layer.get_config().get("flash_attention")  # which has no scores to give


def _attention(call, visit, *args, return_attention_scores=False, **kwargs):
    del visit  # its inner layers are visited
    result = call(*args, return_attention_scores=True, **kwargs)
    return result if return_attention_scores else result[0]


def _softmax(layer, call, visit, inputs, mask=None):
    if mask is None:
        return call(inputs)
    lowest = ops.min(inputs, axis=layer.axis, keepdims=True)
    masked = ops.where(ops.cast(mask, "bool"), inputs, ops.subtract(lowest, _FAR))
    return call(visit(0, masked))


def _separable(layer, visit, inputs, **kwargs):
    del kwargs
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


def _normalization(layer, visit, inputs, **kwargs):
    del kwargs
    mean = visit(0, _mean(inputs))
    centered = visit(1, ops.subtract(inputs, mean))
    squares = visit(2, ops.multiply(centered, centered))
    variance = visit(3, _mean(squares))
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
    """While open, the layers of a student that have steps compute in steps."""
    with contextlib.ExitStack() as stack:
        found = {id(layer): layer for _, _, layer in paths.walk(student)}
        for layer in found.values():
            if isinstance(layer, layers.Layer) and _in_operators(layer, layer.call) is not None:
                wrap = functools.partial(_in_operators, layer)
                stack.enter_context(listening.wrapped(layer, wrap))
        yield
