"""Whether representative data would give the activations the ranges that they have in use."""

import numpy as np

from keras_kd import models
from keras_kd.export import students
from keras_kd.taps import listening, paths
from keras_kd.taps.tap import Tap

# Measured on a CNN: one row gave a worst difference of 0.57 in its outputs, ten gave 0.04.
MIN_ROWS = 10
# A row that is farther from 0 than half of the rows by this factor takes 5 of 8 bits from them.
_OUTLIER = 32
# Rows that are run at once to see what reaches the first BatchNormalization.
_LOOKED_AT = 256


def check(arrays, student, reference=None, names=None):
    """Raises if the ranges found from arrays would ruin the file.

    Args:
        arrays: One for each input.
        student: The model, whose BatchNormalization layers know what they saw in training.
        reference: Arrays of other data of the same kind, such as of a test set, or `None`.
        names: What the inputs are called, for a model that does not know its inputs.

    Raises:
        ValueError: There are too few rows, all are equal, or they are unlike those of training.
    """
    names = names or students.input_names(student)
    if len(arrays[0]) < MIN_ROWS:
        raise ValueError(
            f"`representative_data` has {len(arrays[0])} rows; fewer than {MIN_ROWS} do not show "
            "the ranges of the activations. Pass some hundred."
        )
    for i, (name, array) in enumerate(zip(names, arrays, strict=True)):
        if not np.issubdtype(array.dtype, np.floating):
            continue
        if array.size > 1 and np.ptp(array) == 0:
            raise ValueError(
                f"`representative_data`: input {name!r} is {array.flat[0]} everywhere: nothing can "
                "be learnt from it about the ranges."
            )
        if reference is not None:
            _check_scale(name, array, reference[i])
    _check_statistics(arrays, student)


def _check_scale(name, array, reference):
    ours, theirs = np.std(array), np.std(reference)
    if theirs > 0 and not 1 / 8 < ours / theirs < 8:
        raise ValueError(
            f"`representative_data`: input {name!r} has a standard deviation of {ours:.3g}, but "
            f"`data` has {theirs:.3g}. "
            + (outliers([array]) or "Both must be prepared as in training (0 to 255, or 0 to 1?).")
        )


def _check_statistics(arrays, student):
    """Compares what the first BatchNormalization gets with what it saw in training."""
    found = next(
        (
            (path, layer)
            for path, _, layer in paths.walk(student)
            if type(layer).__name__ == "BatchNormalization" and getattr(layer, "built", False)
        ),
        None,
    )
    if found is None or models.input_specs(student) is None:
        return
    path, layer = found
    taps = listening.Taps(student, [Tap(path, kind="input", call=0)])
    _, values = taps.run(lambda: students.run(student, [a[:_LOOKED_AT] for a in arrays]))
    value = np.asarray(next(iter(values.values())), np.float64)
    axes = tuple(i for i in range(value.ndim) if i != layer.axis % value.ndim)
    mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
    spread = value.var(axes)
    varies = spread > 0  # a rare word may be in none of these rows
    if not varies.any():
        return
    distance = np.sqrt(((value.mean(axes) - mean) ** 2 + spread) / (variance + 1e-12))[varies]
    typical = float(np.median(distance))
    if not 1 / 30 < typical < 30:  # 0 to 255 in place of 0 to 1 is 255 times
        raise ValueError(
            f"`representative_data` is not like the training data: what reaches layer {path!r} has "
            f"{typical:.3g} times the spread that it had in training. Prepare it as in training "
            "(0 to 255, or 0 to 1?). If the model was never trained, train it first."
        )


def outliers(arrays):
    """A sentence on the rows of representative data that are most unlike the others, or `""`."""
    found = [_outlier(array) for array in arrays or [] if array.dtype.kind == "f" and array.size]
    times, row, largest, others = max(found, default=(0.0, 0, 0.0, 0))
    if times < _OUTLIER:
        return ""
    also = f" ({others} others are like it)" if others else ""
    return (
        f"Row {row} of `representative_data` goes to {largest:.3g}, {times:.3g} times as far as "
        f"half of the rows{also}: leave it out if it is no usual row, because the ranges of all "
        "integers follow it."
    )


def _outlier(array):
    """`(how many times it is farther than half of the rows, its number, its largest, others)`."""
    sizes = np.abs(array.reshape(len(array), -1)).max(axis=1)
    row, usual = int(np.argmax(sizes)), max(float(np.median(sizes)), 1e-12)
    others = int(np.sum(sizes > _OUTLIER * usual)) - 1
    return float(sizes[row] / usual), row, float(sizes[row]), others
