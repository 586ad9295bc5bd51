"""Ranges of activations in a model of tfmot, set from data before it is trained.

tfmot starts each range at [-6, 6] and moves it by a thousandth of the way in each step: after 700
steps half of what it started with is still there, and a shorter run trains and exports with ranges
that have nothing to do with the data.
"""

import numpy as np

# How far `MovingAverageQuantizer` moves a range in a step.
_RATE = 1e-3
# Batches over which the ranges are averaged.
_BATCHES = 10
# A range that changes by less than that, relatively, has settled.
_SETTLED = 1e-2
_BOUNDS = ("_min", "_max")


def calibrate(model, batches):
    """Sets the ranges to those of some batches; weights and statistics stay as they are.

    Args:
        model: A model of `quantize_model`.
        batches: A list of inputs, each what the model is called with.
    """
    ranges = [v for v in model.variables if _is_moving(v.name)]
    others = [v for v in model.variables if not _is_bound(v.name)]
    before = [variable.numpy() for variable in others]
    # Behind a range that is too narrow all others are; each pass puts at least one more right.
    for _ in range(len(ranges)):
        moved = _moved(model, batches[0], ranges, 1.0)
        if moved < _SETTLED:
            break
    for i, batch in enumerate(batches[:_BATCHES]):
        _moved(model, batch, ranges, 1 / (i + 1))
    for variable, value in zip(others, before, strict=True):
        variable.assign(value)


def _is_bound(name):
    return name.split(":")[0].endswith(_BOUNDS)


def _is_moving(name):
    """Whether a variable is a bound of an activation.

    Those of weights, and of inputs (`quantize_layer`, the widest range of all batches), follow what
    they see at once.
    """
    layer, _, bound = name.rpartition("/")
    return _is_bound(name) and "kernel" not in bound and not layer.startswith("quantize_layer")


def _moved(model, batch, ranges, rate):
    """Moves the ranges towards those of a batch; how far, relative to their width, at most."""
    old = [variable.numpy().astype(np.float64) for variable in ranges]
    model(batch, training=True)
    changes = [
        (variable.numpy() - before) / _RATE for variable, before in zip(ranges, old, strict=True)
    ]
    for variable, before, change in zip(ranges, old, changes, strict=True):
        variable.assign(before + rate * change)
    sizes = [max(abs(before), 1e-3) for before in old]
    return max(abs(change) / size for change, size in zip(changes, sizes, strict=True))
