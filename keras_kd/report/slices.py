"""The models on parts of the test data that the user names."""

import collections

import keras
import numpy as np
import tensorflow as tf

from keras_kd import checks
from keras_kd.diagnosis import batches
from keras_kd.report import row_scores
from keras_kd.report.entrants import BASELINE, STUDENT, mean_and_deviation

# A key with more values than that names rows, not parts.
MOST_VALUES = 50


def keys_of(slices, data):
    """`{name: a value for each row}` of the user's slices.

    Args:
        slices: `None`; a function from (inputs, labels) of a batch to a value for each row; an
            array of them, `[rows]`; or a dict of such, by name.
        data: The test data.

    Raises:
        ValueError: They are none of this, or have too many values.
    """
    if slices is None:
        return {}
    named = slices if isinstance(slices, dict) else {"slice": slices}
    for name, key in named.items():
        if callable(key):
            checks.function(f"slices[{name!r}]", key, ["inputs", "labels"])
    made = {str(name): _values(str(name), key, data) for name, key in named.items()}
    for name, values in made.items():
        found = len(set(values))
        if found > MOST_VALUES:
            raise ValueError(
                f"The slice {name!r} has {found} different values in {len(values)} rows; expected "
                f"at most {MOST_VALUES}. Make groups of them, such as "
                "np.digitize(values, [10, 100])."
            )
        if not isinstance(data, tf.data.Dataset):
            _check_length(name, values, len(keras.tree.flatten(data)[0]))
    return made


def _values(name, key, data):
    if not callable(key):
        values = np.asarray(key)
        if values.ndim != 1 or values.dtype.kind not in "biufSUO":
            raise ValueError(
                f"The slice {name!r} must be a function of (inputs, labels), or one value for each "
                f"row. Received: an array of shape {values.shape}."
            )
        return _plain(values)
    found = []
    for x, y, _ in batches.of(data):
        given = keras.tree.map_structure(np.asarray, (x, y))
        values = np.asarray(key(*given))
        rows = len(keras.tree.flatten(x)[0])
        if values.shape != (rows,):
            raise ValueError(
                f"The function of the slice {name!r} must return one value for each of the {rows} "
                f"rows of a batch, of shape ({rows},). Received: shape {values.shape}."
            )
        found += _plain(values)
    return found


def _plain(values):
    """Values that are equal where they are the same, and that JSON has."""
    return [
        each.decode("utf-8", "replace")
        if isinstance(each, bytes)
        else "NaN"
        if each != each
        else each
        for each in values.tolist()
    ]


def of_counted(keys, measurement):
    """The keys of the rows that count.

    Args:
        keys: Of `keys_of`.
        measurement: A `Measurement` on the data.

    Returns:
        As `keys`.

    Raises:
        ValueError: There is not one value for each row.
    """
    return {name: _of_counted(name, values, measurement) for name, values in keys.items()}


def _of_counted(name, values, measurement):
    counted = measurement.counted
    rows = measurement.samples if counted is None else len(counted)
    _check_length(name, values, rows)
    if counted is None:
        return values
    positions = counted.size // rows  # of each row, where these have labels of their own
    return np.repeat(np.array(values, object), positions)[counted.reshape(-1)].tolist()


def _check_length(name, values, rows):
    if len(values) != rows:
        raise ValueError(
            f"The slice {name!r} has {len(values)} values, but the test data have {rows} rows. "
            "Give one value for each row, also for those without a label."
        )


def table(comparison, keys):
    """The models on each part.

    Returns:
        A list of dicts: `slice`, `value`, `samples`, `scores` (`{entrant: mean over seeds}`: the
        share of right rows, or the mean absolute error), `gain` and `deviation` of the distilled
        student over the one with labels only (positive is better), or `None`.

    Raises:
        ValueError: The rows do not fit the test data, or the task has no rows that are right.
    """
    if not keys:
        return []
    scores = {each.name: _scores(each) for each in comparison.entrants}
    first = comparison.entrants[0].measurements[0]
    weights = row_scores.weights(first)
    return [
        _row(comparison, name, value, (rows, weights[rows]), scores)
        for name, values in of_counted(keys, first).items()
        for value, rows in _groups(values).items()
    ]


def _scores(entrant):
    """Float64 `[seeds, rows]`, higher is better."""
    found = [_of_rows(each) for each in entrant.measurements]
    if any(each is None for each in found):
        raise ValueError(
            f"Slices need a prediction for each row, which {entrant.name!r} does not have: "
            f"its task is {entrant.measurements[0].task!r}."
        )
    return np.array(found, np.float64)


def _of_rows(measurement):
    right = row_scores.right(measurement)
    if right is not None:
        return right
    errors = row_scores.errors(measurement)
    return None if errors is None else -errors.mean(axis=-1)


def _groups(values):
    groups = collections.defaultdict(list)
    for row, value in enumerate(values):
        groups[value].append(row)
    return {value: groups[value] for value in sorted(groups, key=_order)}


def _order(value):
    return (0, value, "") if isinstance(value, (int, float)) else (1, 0, str(value))


def _row(comparison, name, value, chosen, scores):
    rows, weights = chosen
    of_rows = {
        key: np.average(found[:, rows], axis=-1, weights=weights) for key, found in scores.items()
    }
    gain = deviation = None
    sides = [_name(comparison, role) for role in (STUDENT, BASELINE)]
    if None not in sides:
        gain, deviation = mean_and_deviation(of_rows[sides[0]] - of_rows[sides[1]])
    return {
        "slice": name,
        "value": value,
        "samples": len(rows),
        "scores": {key: abs(float(found.mean())) for key, found in of_rows.items()},
        "gain": gain,
        "deviation": deviation,
    }


def _name(comparison, role):
    return next((each.name for each in comparison.entrants if each.role == role), None)
