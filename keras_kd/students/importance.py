"""`rank="magnitude"`: which channels and blocks of a model matter by its weights.

Of a channel the norm of all weights that make or read it, of a block the norm of the weights that
make what it adds. What normalizations have counted of data does not count.
"""

from typing import Any

import keras
import numpy as np

from keras_kd.students import channels
from keras_kd.students.channels import Summed

Scores = dict[channels.Unit, np.ndarray]


class Magnitude:
    """Scores by weights.

    Args:
        widths: The `Widths` of the teacher, with all of its blocks.
        runs: Its `Run`s.

    Attributes:
        blocks: For each run a score for each block.
    """

    def __init__(self, widths: Any, runs: Any) -> None:
        self._squares: dict[tuple, np.ndarray] = {}
        self.blocks = [
            np.array([_norm_of_block(run, block, widths) for block in run.blocks]) for run in runs
        ]

    def scores(self, widths: Any) -> Scores:
        """`{unit: a score for each channel}` of a model that has lost blocks."""
        found: Scores = {}
        for path, layer in widths.layers.items():
            for number, weight in _weighed(layer.layer):
                for i, axis in enumerate(layer.weights[number]):
                    axis = axis.axis if isinstance(axis, Summed) else axis
                    if axis is not None:
                        squares = self._squares_of((path, number, i), weight)
                        add(found, channels.by_unit(axis, squares))
        return {unit: np.sqrt(total) for unit, total in found.items()}

    def _squares_of(self, key, weight):
        if key not in self._squares:
            axes = tuple(i for i in range(len(weight.shape)) if i != key[-1])
            self._squares[key] = np.sum(_squared(weight), axis=axes)
        return self._squares[key]


def add(scores: Scores, more: Any) -> None:
    """Adds `(unit, values)` to scores."""
    for unit, values in more:
        scores[unit] = scores.get(unit, 0.0) + values


def _squared(weight):
    return keras.ops.convert_to_numpy(weight).astype("float64") ** 2


def _weighed(layer):
    """`(number, weight)` of what a layer has learned; its statistics of data are left out."""
    if isinstance(layer, keras.layers.Normalization):
        return []
    names = ("moving_mean", "moving_variance")
    statistics = {id(getattr(layer, name)) for name in names if hasattr(layer, name)}
    weights = enumerate(getattr(layer, "weights", []))
    return [(i, weight) for i, weight in weights if id(weight) not in statistics]


def _norm_of_block(run, block, widths):
    total = 0.0
    for step in block:
        for name in _last_layers(run.graph, step):
            layer = widths.layers[run.graph.path + name]
            weighed = _weighed(layer.layer)
            inner = _read_inside(layer)
            last = [x for i, x in weighed if not inner & _units(layer.weights[i], summed=False)]
            total += sum(_squared(x).sum() for x in last or [x for _, x in weighed])
    return np.sqrt(total)


def _last_layers(graph, step):
    """The layers with weights that are next to the end of a step, on the ways back from it."""
    calls = {call[:2]: call for call in step.calls}
    waiting, found, seen = [step.end[:2]], [], set()
    while waiting:
        key = waiting.pop()
        if key in seen or key not in calls:
            continue
        seen.add(key)
        layer = graph.operations[key[0]]
        if _weighed(layer) and key[0] not in graph.nested:
            found.append(key[0])
        else:
            waiting += [ref[:2] for ref in calls[key].refs]
    return list(dict.fromkeys(found))


def _read_inside(layer):
    """Units that a layer makes and reads itself, such as the heads of attention."""
    made = [_units(axes, summed=False) for axes in layer.weights]
    read = [_units(axes, summed=True) for axes in layer.weights]
    outside = {unit for axes in layer.inputs for axis in axes for unit in channels.units(axis)}
    return (set().union(*made) & set().union(*read)) - outside


def _units(axes, summed):
    found = [axis.axis if summed else axis for axis in axes if isinstance(axis, Summed) == summed]
    return {unit for axis in found for unit in channels.units(axis)}
