"""`rank="activation"`: which channels, heads, units and blocks matter on data.

As in Minitron, from forward passes alone: of a hidden channel the mean absolute output of the
normalizations in the blocks, of an intermediate unit or a head that of what the layer behind it
reads, of a block how much it turns its input, 1 - cosine(input, output). Padding does not count.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd._utils import batches, validation
from keras_kd._utils.validation import invalid
from keras_kd.students.hub import axes
from keras_kd.students.hub.families import Family, backbone_of, stacks_of
from keras_kd.taps.recorder import wrapped

_BATCH_SIZE = 32
# The axes before the last one of a kernel that makes hidden channels of a block's own.
_READ = {
    (axes.INTERMEDIATE,): axes.INTERMEDIATE,
    (axes.HALF,): axes.HALF,
    (axes.HEADS, axes.HEAD_DIM): axes.HEADS,
    (axes.FLAT_HEADS,): axes.HEADS,
}


def read_role(roles: tuple) -> str | None:
    """What a kernel reads to make hidden channels: units or heads; `None` for other weights."""
    return _READ.get(roles[:-1]) if roles[-1:] == (axes.HIDDEN,) else None


class Ranking:
    """Scores of what a student may keep; larger ones stay.

    Attributes:
        hidden: `[hidden]`.
        inner: `{(stack, block, group, role): scores}`: of the units and heads of a block; a group
            is the path of the layer around them.
        blocks: `{stack: scores}`.
    """

    def __init__(self, teacher: Any, roles: dict, family: Family, data: Any) -> None:
        self._backbone, self._family = backbone_of(teacher), family
        self._sums: dict[Any, Any] = {}
        self._counts: dict[Any, float] = {}
        self._blocks = stacks_of(self._backbone, family)
        self._readers = self._layers_to_watch(teacher, roles)
        for inputs in _batches(self._backbone, data):
            self._watch(inputs)
        if not self._counts or not all(self._counts.values()):
            raise invalid("data", "batches with positions that are not padding", "none")
        means = {key: total / self._counts[key] for key, total in self._sums.items()}
        self._check(means)
        normalized = [value for key, value in means.items() if key[0] == "norm"]
        self.hidden = np.sum(normalized, axis=0)
        self.inner = {key[1:]: value for key, value in means.items() if key[0] == "inner"}
        self.blocks = {
            stack: np.array([means["block", stack, i] for i in range(len(blocks))])
            for stack, blocks in self._blocks.items()
        }

    def _layers_to_watch(self, teacher, roles):
        """`(layer, stack, key, role)` of normalizations and of those that read inner channels."""
        known = axes.weights_of(teacher, self._family)
        by_layer: dict[int, list] = {}
        for key, weight in known.items():
            if key.stack:
                by_layer.setdefault(id(weight.layer), []).append((key, weight.layer, roles[key]))
        found = []
        for weights in by_layer.values():
            key, layer, _ = weights[0]
            each = [axis for _, _, axis in weights]
            if all(axis == (axes.HIDDEN,) for axis in each):
                found.append((layer, key.stack, ("norm", *key.place, key.path), axes.HIDDEN))
            for axis in each:
                role = read_role(axis)
                if role is not None:
                    group = key.path.rpartition("/")[0]
                    found.append((layer, key.stack, ("inner", *key.place, group, role), role))
        return found

    def _watch(self, inputs):
        """Runs the backbone on a batch, and adds to the sums."""
        masks = {stack: inputs.get(name) for stack, name in self._family.pads.items()}
        with contextlib.ExitStack() as stack:
            for layer, of, key, role in self._readers:
                is_norm = role == axes.HIDDEN
                add = self._adder(key, role, masks.get(of))
                stack.enter_context(wrapped(layer, _seen(add, of_output=is_norm)))
            for name, blocks in self._blocks.items():
                for i, block in enumerate(blocks):
                    add = self._block_adder(("block", name, i), masks.get(name))
                    stack.enter_context(wrapped(block, _seen_block(add)))
            self._backbone(inputs, training=False)

    def _adder(self, key, role, mask):
        def add(value):
            value = np.abs(keras.ops.convert_to_numpy(value).astype("float64"))
            if role == axes.HEADS:
                heads = self._heads
                value = value.reshape(*value.shape[:2], heads, -1).mean(axis=-1)
            self._add(key, value, mask)

        return add

    @property
    def _heads(self):
        return self._backbone.get_config()[self._family.heads]

    def _block_adder(self, key, mask):
        def add(given, made):
            one, two = (keras.ops.convert_to_numpy(x).astype("float64") for x in (given, made))
            norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(two, axis=-1)
            cosine = np.sum(one * two, axis=-1) / np.maximum(norms, np.finfo("float64").tiny)
            self._add(key, 1 - cosine, mask)

        return add

    def _add(self, key, value, mask):
        """Adds the sum over positions that are not padding."""
        counts = np.ones(value.shape[:2]) if mask is None else np.asarray(mask) != 0
        total = np.tensordot(counts.astype("float64"), value, axes=([0, 1], [0, 1]))
        self._sums[key] = self._sums.get(key, 0.0) + total
        self._counts[key] = self._counts.get(key, 0.0) + counts.sum()

    def _check(self, means):
        broken = [key for key, value in means.items() if not np.isfinite(value).all()]
        if broken:
            raise ValueError(
                f"The activations of {self._backbone.name!r} on `data` are not finite, first in "
                f"block {broken[0][2]} of {broken[0][1]!r}: nothing can be ranked by them."
            )


def _seen(add, of_output):
    def wrap(call):
        def record(*args, **kwargs):
            result = call(*args, **kwargs)
            add(result if of_output else _first(args, kwargs))
            return result

        return record

    return wrap


def _seen_block(add):
    def wrap(call):
        def record(*args, **kwargs):
            result = call(*args, **kwargs)
            add(_first(args, kwargs), keras.tree.flatten(result)[0])
            return result

        return record

    return wrap


def _first(args, kwargs):
    return args[0] if args else next(iter(kwargs.values()))


def _batches(backbone: Any, data: Any) -> Iterator[dict]:
    """The inputs of the backbone in each batch."""
    names = models.input_names(backbone) or []
    for each in _inputs_in(data):
        own = models.own_inputs(backbone, each)
        if not isinstance(own, dict) or not set(names) <= set(own):
            received = sorted(own) if isinstance(own, dict) else validation.briefly(own)
            raise invalid("data", f"batches of dicts with the inputs {names}", received)
        yield {name: tf.convert_to_tensor(own[name]) for name in names}


def _inputs_in(data):
    expected = "a dict of arrays, (inputs, labels), or a batched tf.data.Dataset of such"
    return batches.inputs_in(
        data, _BATCH_SIZE, expected, lambda inputs: isinstance(inputs, dict) and bool(inputs)
    )
