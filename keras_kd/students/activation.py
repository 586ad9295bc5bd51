"""`rank="activation"` of functional and sequential models: what matters on data.

Of a channel the mean absolute value of what layers with weights read of it, of a block
1 - cosine(input, output), sample by sample. Masked steps do not count. See `hub.ranking` for models
of KerasHub.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd._utils import batches, validation
from keras_kd._utils.validation import invalid
from keras_kd.models import paths
from keras_kd.students import channels
from keras_kd.students.channels import Summed
from keras_kd.students.importance import Scores, add
from keras_kd.taps import recorder

_BATCH_SIZE = 32


class _Watched(NamedTuple):
    """A tensor that is looked at: what a layer reads or makes, and the axes at its end."""

    layer: Any
    is_input: bool
    axes: list

    def of_rank(self, rank):
        """The axes of a tensor of a rank, `None` in front where fewer are known."""
        fitting = [axes for axes in self.axes if len(axes) == rank] or self.axes
        return (*(None,) * (rank - len(fitting[0])), *fitting[0])


class Activation:
    """Scores by activations on data.

    Args:
        teacher: The model.
        widths: Its `Widths`, with all of its blocks.
        runs: Its `Run`s.
        data: Inputs, `(inputs, labels)`, or a batched `tf.data.Dataset` of such.

    Attributes:
        blocks: For each run a score for each block.
    """

    def __init__(self, teacher: Any, widths: Any, runs: Any, data: Any) -> None:
        self._widths = widths
        self._found: Scores = {}
        self._sums: dict[Any, Any] = {}
        self._counts: dict[Any, float] = {}
        watched = list(_watched(widths))
        for inputs in input_batches(teacher, data):
            with contextlib.ExitStack() as stack:
                for number, each in enumerate(watched):
                    record = self._channels_recorder(number, each)
                    stack.enter_context(recorder.wrapped(each.layer, record))
                for i, run in enumerate(runs):
                    for number, block in enumerate(run.blocks):
                        self._watch_block(stack, (i, number), run.graph, block)
                teacher(inputs, training=False)
        if not self._counts or not all(self._counts.values()):
            raise invalid("data", "batches with samples, not all of them masked", "none")
        means = {key: total / self._counts[key] for key, total in self._sums.items()}
        if not all(np.isfinite(value).all() for value in means.values()):
            raise ValueError(
                f"The activations of {teacher.name!r} on `data` are not finite: nothing can be "
                "ranked by them. Check data and weights, or pass rank='magnitude'."
            )
        for (number, rank, i), values in ((k, v) for k, v in means.items() if len(k) == 3):
            axis = watched[number].of_rank(rank)[i]
            add(self._found, channels.by_unit(axis, values, np.mean))
        self.blocks = [
            np.array([means[i, number] for number in range(len(run.blocks))])
            for i, run in enumerate(runs)
        ]

    def scores(self, widths: Any) -> Scores:
        """`{unit: a score for each channel}` of a model that has lost blocks.

        By the layers that make the channels: those that read them may be gone.
        """
        found: Scores = {}
        for key, unit in widths.units.items():
            whole = (self._widths.units[key],)
            if all(each.fixed for each in channels.units((unit,))):
                continue
            missing = [each for each in channels.units(whole) if each not in self._found]
            if missing:
                raise ValueError(
                    f"Nothing reads the channels of layer {missing[0].owner!r}, so they cannot be "
                    "ranked by activation. Pass rank='magnitude'."
                )
            values = channels.along(whole, self._found)
            add(found, channels.by_unit((unit,), values, np.mean))
        return found

    def _channels_recorder(self, number, watched):
        def record(value, mask):
            value = np.abs(keras.ops.convert_to_numpy(value).astype("float64"))
            counts = _counts(value, mask)
            for i, axis in enumerate(watched.of_rank(value.ndim)):
                if axis is not None:
                    others = tuple(j for j in range(value.ndim) if j != i)
                    weights = np.broadcast_to(counts, value.shape)
                    total = np.sum(value * counts, axis=others)
                    seen = np.sum(weights, axis=others).flat[0]
                    self._add((number, value.ndim, i), total, seen)

        return _seen(record, watched.is_input)

    def _watch_block(self, stack, key, graph, block):
        """Adds to what is recorded how far a block turns its input."""
        entry, end = block[0].entry, block[-1].end
        values: list = []
        reader = next(call for call in block[0].calls if entry in call.refs)

        def before(given, mask):
            values[:] = [given[reader.refs.index(entry)]]

        def after(made, mask):
            one, two = (_rows(x) for x in (values.pop(), made[end.output]))
            norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(two, axis=-1)
            cosine = np.sum(one * two, axis=-1) / np.maximum(norms, np.finfo("float64").tiny)
            self._add(key, np.sum(1 - cosine), len(one))

        first, last = graph.operations[reader.layer], graph.operations[end.layer]
        stack.enter_context(recorder.wrapped(last, _seen_all(after, False, end.call)))
        stack.enter_context(recorder.wrapped(first, _seen_all(before, True, reader.number)))

    def _add(self, key, total, count):
        self._sums[key] = self._sums.get(key, 0.0) + total
        self._counts[key] = self._counts.get(key, 0.0) + float(count)


def _rows(value):
    value = keras.ops.convert_to_numpy(value).astype("float64")
    return value.reshape(len(value), -1)


def _counts(value, mask):
    """Ones and zeros of the rank of a tensor: where its mask lets it count."""
    if mask is None or keras.tree.is_nested(mask) or mask.shape != value.shape[: len(mask.shape)]:
        return np.ones((1,) * value.ndim)
    mask = keras.ops.convert_to_numpy(mask).astype("float64")
    return mask.reshape(mask.shape + (1,) * (value.ndim - mask.ndim))


def _seen(record, is_input):
    def wrap(call):
        def run(*args, **kwargs):
            given, mask = recorder.of_call(args, kwargs)
            result = call(*args, **kwargs)
            value = keras.tree.flatten(given if is_input else result)[0]
            record(value, mask)
            return result

        return run

    return wrap


def _seen_all(record, is_input, number):
    """Like `_seen`, of the flat tensors of one of several calls in a pass."""
    calls: list = []

    def wrap(call):
        def run(*args, **kwargs):
            is_it = len(calls) == number
            calls.append(None)
            if is_it and is_input:
                record([x for x in keras.tree.flatten((args, kwargs)) if tf.is_tensor(x)], None)
            result = call(*args, **kwargs)
            if is_it and not is_input:
                record(keras.tree.flatten(result), None)
            return result

        return run

    return wrap


def _watched(widths):
    """What layers with weights read; of channels that none reads, what their layers make."""
    covered = set()
    for layer in widths.layers.values():
        for each in _inputs_of(layer):
            covered |= {
                unit for axes in each.axes for axis in axes for unit in channels.units(axis)
            }
            yield each
    for layer in widths.layers.values():
        made = {
            unit for axes in layer.outputs for axis in axes or () for unit in channels.units(axis)
        }
        if getattr(layer.layer, "weights", None) and made - covered:
            yield _Watched(layer.layer, False, [axes for axes in layer.outputs if axes])


def _inputs_of(layer):
    numbers = [
        i
        for i, axes in enumerate(layer.weights)
        if any(isinstance(axis, Summed) and axis.axis is not None for axis in axes)
    ]
    if not isinstance(layer.layer, keras.layers.MultiHeadAttention):
        if numbers and any(layer.inputs):
            yield _Watched(layer.layer, True, list(layer.inputs))
        return
    # Its heads are read by a layer inside of it.
    owners = {
        id(weight): inner
        for _, _, inner in paths.walk(layer.layer)
        for weight in getattr(inner, "weights", [])
    }
    for i in numbers:
        axes, weight = layer.weights[i], layer.layer.weights[i]
        # A kernel's first axes are the last ones of what it reads, up to those that it makes.
        count = 2 if i == max(numbers) else 1
        tail = [axis.axis if isinstance(axis, Summed) else axis for axis in axes[:count]]
        yield _Watched(owners[id(weight)], True, [tuple(tail)])


def input_batches(model: Any, data: Any) -> Iterator[Any]:
    """The inputs of a model in each batch, tensors in its structure.

    Args:
        model: A functional or sequential model.
        data: Inputs, `(inputs, labels)`, or a batched `tf.data.Dataset` of such.
    """
    expected = [tuple(x.shape) for x in model.inputs]
    is_empty = True
    for each in _inputs_in(data):
        own = models.own_inputs(model, each)
        flat = keras.tree.flatten(own)
        if len(flat) != len(expected) or not all(map(_fits, flat, expected)):
            received = keras.tree.map_structure(validation.briefly, own)
            what = f"batches of inputs of the shapes {expected}; call batch() on single samples"
            raise invalid("data", what, received)
        is_empty = False
        tensors = [tf.cast(x, spec.dtype) for x, spec in zip(flat, model.inputs, strict=True)]
        yield keras.tree.pack_sequence_as(own, tensors)
    if is_empty:
        raise invalid("data", "at least one batch", "none")


def _fits(value, shape):
    given = np.shape(value)
    pairs = zip(given, shape, strict=False)
    return len(given) == len(shape) and all(size in (None, found) for found, size in pairs)


def _inputs_in(data):
    expected = "arrays, (inputs, labels), or a batched tf.data.Dataset of such"
    return batches.inputs_in(data, _BATCH_SIZE, expected, _are_arrays)


def _are_arrays(inputs):
    flat = keras.tree.flatten(inputs)
    return bool(flat) and all(np.ndim(x) > 0 for x in flat)
