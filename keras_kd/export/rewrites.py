"""Layers rewritten for files: decomposed into integer operators, look-ups as one operator.

`in_steps` decomposes layers into operators that have integer kernels:

- A separable convolution is two operators in a file.
- Keras subtracts in LayerNormalization by a negation, for which LiteRT has no integer kernel. Its
  means are products with a constant: LiteRT's integer MEAN rounds twice, which turned 15 to 30 % of
  its results into their neighbors; its FULLY_CONNECTED 0.1 %.
- Attention that returns its scores computes them by a softmax layer of its own, which can be
  tapped. A masked softmax adds -1e9 where it masks, a range that leaves nothing of 8 bits; here
  masked logits are put a little below the others.
- UnitNormalization is a SQUARE and a MINIMUM in a file, without integer kernels. Its steps are not
  visited.

`visit(part, value)` is called with the value between two steps, and returns the one to go on with.

`with_plain_lookups` makes look-ups one GATHER and arguments of maxima one ARG_MAX.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_kd import models
from keras_kd.export.student import ExportableModel
from keras_kd.models import paths
from keras_kd.taps import attention, recorder

# exp(-10) is an eightieth of the smallest step of 8 bits.
_FAR = 10.0
# As in Keras: a vector of zeros stays one.
_NOT_ZERO = 1e-12


@contextlib.contextmanager
def in_steps(student: keras.Model) -> Iterator[None]:
    """While open, the layers of a student that have steps compute in steps."""
    with contextlib.ExitStack() as stack:
        found = {id(layer): layer for _, _, layer in paths.walk(student)}
        for layer in found.values():
            if isinstance(layer, layers.Layer) and _in_operators(layer, layer.call) is not None:
                wrap = functools.partial(_in_operators, layer)
                stack.enter_context(recorder.wrapped(layer, wrap))
        yield


def steps_of(layer: Any, call: Callable) -> Callable | None:
    """A layer's `call` in steps, `run(visit, *args, **kwargs)`, or `None` where it has none."""
    if isinstance(layer, models.SEPARABLE):
        return functools.partial(_separable, layer)
    if _is_plain_normalization(layer):
        return functools.partial(_normalization, layer)
    if _gives_scores(layer):
        return functools.partial(_attention, call)
    if type(layer) is layers.Softmax:
        return functools.partial(_softmax, layer, call)
    return None


def _in_operators(layer, call):
    """A layer's `call` in operators with integer kernels, visiting nothing; `None`: unchanged."""
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


# Look-ups and arguments of maxima as one operator.
#
# Keras lets indices below 0 count from the end, which is LESS, ADD and SELECT around each GATHER;
# microcontrollers have no SELECT. Its argmax orders -0.0 and 0.0 by operations on bits, which
# neither LiteRT nor ONNX have. A file has GATHER alone, and ARG_MAX alone: an index below 0 is
# outside of the table, and of -0.0 and 0.0 the first is the largest.
#
# Indices that are inputs are checked in the data. Where they are computed and may be below 0,
# Keras' operators stay.


_TABLES = tuple(
    getattr(layers, name) for name in ("Embedding", "ReversibleEmbedding") if hasattr(layers, name)
)
_ARGUMENTS = {"argmax": tf.argmax, "argmin": tf.argmin}
# Samples that are run at once to see the indices that the tables get.
_AT_ONCE = 256
# Operators whose result is at least 0 if these inputs are; `None`: if all inputs are.
_KEEPS_SIGN: dict[str, tuple | None] = {
    **dict.fromkeys(
        ("Identity", "Cast", "Reshape", "ExpandDims", "Squeeze", "StridedSlice", "Slice"), (0,)
    ),
    **dict.fromkeys(("Transpose", "Tile", "GatherV2", "BroadcastTo", "Roll", "ReverseV2"), (0,)),
    **dict.fromkeys(("Sum", "Max", "Min", "Cumsum", "PadV2", "Pad"), (0,)),
    **dict.fromkeys(
        ("ArgMax", "ArgMin", "Shape", "Size", "Relu", "Abs", "OneHot", "ZerosLike"), ()
    ),
    **dict.fromkeys(("Equal", "NotEqual", "Less", "Greater", "LogicalAnd", "LogicalNot"), ()),
    **dict.fromkeys(("Minimum", "AddV2", "Mul", "Pack"), None),
    "FloorMod": (1,),
    "Fill": (1,),
    "Range": (0, 2),
    "SelectV2": (1, 2),
}


@contextlib.contextmanager
def with_plain_lookups(student: keras.Model) -> Iterator[None]:
    """While open, layers and operations of a student look up and compare in one operator."""
    with contextlib.ExitStack() as stack:
        for operation in {id(each): each for _, _, each in paths.walk(student)}.values():
            wrap = _wrap_of(operation)
            if wrap is not None:
                stack.enter_context(recorder.wrapped(operation, wrap))
        for name, plain in _ARGUMENTS.items():
            stack.enter_context(_in_place_of(name, plain))
        yield


def lookup_tables(student: keras.Model) -> dict[str, Any]:
    """`{path: layer}` of the embeddings of a student that are one GATHER in a file."""
    return {path: layer for path, _, layer in paths.walk(student) if _is_table(layer)}


def _is_table(layer):
    return isinstance(layer, _TABLES) and type(layer).call in {each.call for each in _TABLES}


def _wrap_of(operation):
    if _is_table(operation):
        return functools.partial(_table, operation)
    name = type(operation).__name__.lower()
    is_argument = name in _ARGUMENTS and hasattr(operation, "axis")
    return functools.partial(_argument, operation, _ARGUMENTS[name]) if is_argument else None


def _table(layer, call):
    def look_up(inputs, *args, **kwargs):
        if args or kwargs.get("reverse") or not _is_index(inputs):
            return call(inputs, *args, **kwargs)
        rows = tf.gather(tf.convert_to_tensor(layer.embeddings), tf.cast(inputs, "int32"))
        return tf.cast(rows, layer.compute_dtype)

    return look_up


def _is_index(tensor):
    return isinstance(tensor, tf.Tensor) and tf.is_symbolic_tensor(tensor) and _is_positive(tensor)


def _is_positive(tensor):
    """Whether a tensor of a graph cannot be below 0 if the inputs of the graph are not."""
    kind = tensor.op.type
    if kind == "Placeholder":
        return True
    if kind == "Const":
        return bool((tf.get_static_value(tensor) >= 0).all())
    inputs = list(tensor.op.inputs)
    if kind == "ConcatV2":
        return all(map(_is_positive, inputs[:-1]))  # the last is the axis
    if kind == "Maximum":
        return any(map(_is_positive, inputs))
    if kind not in _KEEPS_SIGN:
        return False
    read = _KEEPS_SIGN[kind]
    return all(_is_positive(inputs[i]) for i in (range(len(inputs)) if read is None else read))


def _argument(operation, plain, call):
    del call
    return lambda x: _in_one(plain, x, operation.axis, operation.keepdims)


def _in_one(plain, x, axis=None, keepdims=False):
    """`plain(x)`, such as `tf.argmax`, with Keras' arguments, as int32."""
    rank = x.shape.rank
    values = tf.reshape(x, [-1]) if axis is None else x
    found = plain(values, axis=0 if axis is None else axis, output_type=tf.int32)
    if not keepdims:
        return found
    return tf.reshape(found, [1] * rank) if axis is None else tf.expand_dims(found, axis)


@contextlib.contextmanager
def _in_place_of(name, plain):
    """Replaces a function of `keras.ops` for tensors of graphs of this thread.

    A user's own layer calls it directly: there is no operation to replace.
    """
    thread, before = threading.get_ident(), getattr(keras.ops, name)

    @functools.wraps(before)
    def instead(x, axis=None, keepdims=False):
        mine = threading.get_ident() == thread and isinstance(x, tf.Tensor)
        return _in_one(plain, x, axis, keepdims) if mine else before(x, axis, keepdims)

    setattr(keras.ops, name, instead)
    try:
        yield
    finally:
        setattr(keras.ops, name, before)


def check_indices(exportable: ExportableModel, arrays: Sequence[np.ndarray], what: str) -> None:
    """Raises if data looks up an index below 0, which a file does not have.

    Args:
        exportable: The student.
        arrays: An array `[samples, ...]` for each input.
        what: The argument that they are from.

    Raises:
        ValueError: It does; the layer is named.
    """
    negative = [x.reshape(len(x), -1).min(axis=1) < 0 for x in arrays if x.dtype.kind == "i"]
    # Where inputs are at least 0, the graph shows which indices can be below 0.
    if not negative:
        return
    chosen = np.flatnonzero(np.any(negative, axis=0))[:_AT_ONCE]
    tables = lookup_tables(exportable.model) if len(chosen) else {}
    if not tables:
        return
    seen: dict[str, list[int]] = {}
    with contextlib.ExitStack() as stack:
        for path, layer in tables.items():
            record = functools.partial(_recording_lowest, seen.setdefault(path, []))
            stack.enter_context(recorder.wrapped(layer, record))
        exportable.run([x[chosen] for x in arrays])
    below = {path: min(lowest) for path, lowest in seen.items() if lowest and min(lowest) < 0}
    if below:
        path, lowest = next(iter(below.items()))
        names = [each.key for each in exportable.inputs]
        raise ValueError(
            f"`{what}`: layer {path!r} looks up row {lowest} of its table: some of the inputs "
            f"{names} are below 0. In Keras such rows count from the end, in a file they do "
            "not exist. Give the data the rows' own numbers."
        )


def _recording_lowest(lowest, call):
    """A layer's `call` that appends its lowest index to a list."""

    def listen(inputs, *args, **kwargs):
        if not kwargs.get("reverse"):
            lowest.append(int(keras.ops.min(inputs)))
        return call(inputs, *args, **kwargs)

    return listen
