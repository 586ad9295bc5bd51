"""What students of a functional or sequential model cost, without making them.

Each weight is a `Term`: a product of sizes, with the bytes and the multiply-adds of one of its
numbers. A layer's multiply-adds are counted once, in the teacher, and shrink with its kernels;
those of attention with its heads.
"""

import math
from typing import Any, NamedTuple

import keras

from keras_kd.models import paths
from keras_kd.students import channels
from keras_kd.students.budgets import Cost, item_bytes
from keras_kd.students.channels import Choice, Summed
from keras_kd.students.width import weights_of


class Term(NamedTuple):
    """A product of sizes, and what it costs.

    Attributes:
        path: Of the layer.
        axes: Axes that may be narrowed.
        bytes: For a product of 1.
        macs: For a product of 1.
    """

    path: str
    axes: tuple
    bytes: float
    macs: float

    def cost(self, choice: Choice) -> Cost:
        """What it costs in a student."""
        product = math.prod(choice.size(axis) for axis in self.axes)
        return Cost(self.bytes * product, self.macs * product)


def terms_of(widths: Any, macs: dict[Any, int]) -> list[Term]:
    """All terms of a model, which may have lost blocks.

    Args:
        widths: Its `Widths`.
        macs: What `budgets.macs_by_layer` counted in the teacher; empty: not counted.
    """
    found = [Term("", (), 0.0, macs.get(None, 0))]
    for layer in widths.layers.values():
        found += _of_layer(layer, macs)
    return found


def total(terms: Any, choice: Choice) -> Cost:
    """The sum of terms in a student."""
    costs = [term.cost(choice) for term in terms]
    return Cost(sum(cost.bytes for cost in costs), sum(cost.macs for cost in costs))


def _of_layer(layer, macs):
    uses: dict[int, float] = {}
    inner = {id(each): each for _, _, each in paths.walk(layer.layer)}
    for each in [layer.layer, *inner.values()]:
        counted = macs.get(id(each), 0)
        if not counted:
            continue
        kernels = [weight for weight in getattr(each, "weights", []) if len(weight.shape) > 1]
        if each is layer.layer and isinstance(each, keras.layers.MultiHeadAttention):
            # Products of queries, keys and values: its kernels belong to layers in it.
            heads = [layer.edits[("num_heads",)]] if layer.edits else []
            yield _term(layer.path, heads, [each.num_heads] if heads else [], 0, counted)
        elif kernels:
            elements = sum(math.prod(weight.shape) for weight in kernels)
            for weight in kernels:
                uses[id(weight)] = uses.get(id(weight), 0.0) + counted / elements
        else:
            axes = [axis for axis in layer.inputs[0] if axis is not None] if layer.inputs else []
            sizes = [channels.size(axis) for axis in axes]
            yield _term(layer.path, axes, sizes, 0, counted)
    for weight, axes in zip(weights_of(layer.layer), layer.weights, strict=False):
        elements = math.prod(weight.shape)
        cost = elements * item_bytes(weight), elements * uses.get(id(weight), 0.0)
        given = [axis.axis if isinstance(axis, Summed) else axis for axis in axes]
        yield _term(layer.path, given, weight.shape, *cost)


def _term(path, axes, sizes, cost_in_bytes, macs):
    """A term that has these costs in the teacher."""
    pairs = zip(axes, sizes, strict=True)
    narrow = [(axis, size) for axis, size in pairs if axis is not None and _is_free(axis)]
    product = math.prod(size for _, size in narrow)
    axes = tuple(axis for axis, _ in narrow)
    return Term(path, axes, cost_in_bytes / product, macs / product)


def _is_free(axis):
    return any(not unit.fixed for unit in channels.units(axis))
