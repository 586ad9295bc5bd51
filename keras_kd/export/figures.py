"""How near outputs of a file are to those of its model: figures that no outlier hides."""

import numpy as np

# Of the rows so many are left out, those that lie farthest: one row of 64 that is 3000 times the
# others made the deviation so large that a file with one value for all the others was near.
_LEFT_OUT = 0.1
_CHUNK = 256
# An output of which no row is other than the next has no deviation to measure with.
_CONSTANT = 1e-6
# What two probabilities may differ by and still say the same; 8 bits have steps of 0.004.
_OF_SHARES = 0.02
# Of the distance of logits from their threshold: far from it small differences do not matter.
_OF_DISTANCE = 0.1


def error(output, found, expected):
    """The root mean squared error of a file in standard deviations of the model's output.

    `sqrt(sum_ri (f_ri - m_ri)^2 / sum_ri (m_ri - mean_r m_ri)^2)` over numbers i of rows r, but for
    the tenth of the rows that lies farthest from the mean. 1 is what a constant has at best. Of
    classes the deviation is at least 0.02 of probabilities, and a tenth of the logits' distance
    from their threshold (of several classes: from the mean of the row's).

    Args:
        output: The `judging.Output`.
        found: Outputs of the file, `[rows, ...]`.
        expected: The same of the model.
    """
    rows, classes = len(expected), expected.shape[-1]
    found, expected = found.reshape(rows, -1), expected.reshape(rows, -1)
    near = _near(expected)
    squares = _mean(near, found, lambda part, rows: np.square(part - expected[rows]))
    middle = _center(expected, near)
    scale = np.sqrt(_mean(near, expected, lambda part, rows: np.square(part - middle)))
    size = np.sqrt(_mean(near, expected, lambda part, rows: np.square(part)))
    if scale <= _CONSTANT * size:
        scale = size
    if output.has_classes:
        scale = max(scale, _OF_DISTANCE * _distance(output, expected, near, classes))
        scale = max(scale, _OF_SHARES) if output.are_shares else scale
    return float(np.sqrt(squares) / scale) if squares else 0.0


def _near(values):
    """Which rows are not among those farthest from the mean."""
    middle = _center(values, np.ones(len(values), bool))
    distances = np.concatenate(
        [np.square(part - middle).mean(axis=1) for part in _chunks(values)], dtype=np.float64
    )
    return distances <= np.quantile(distances, 1 - _LEFT_OUT, method="higher")


def _chunks(values):
    """Parts that fit in memory in float64."""
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK].astype(np.float64)


def _center(values, kept):
    return values[kept].mean(axis=0, dtype=np.float64)


def _mean(kept, values, of_part):
    """The mean of `of_part(chunk, its place)` over rows."""
    total = 0.0
    for i, part in enumerate(_chunks(values)):
        place = slice(i * _CHUNK, i * _CHUNK + len(part))
        total += of_part(part, place)[kept[place]].sum()
    return total / (kept.sum() * values.shape[1])


def _distance(output, values, kept, classes):
    """The root mean square of the distance from what tells classes from each other."""
    if output.task != "multiclass":
        return np.sqrt(_mean(kept, values, lambda part, _: np.square(part - output.threshold)))

    def of_row(part, place):
        del place
        each = part.reshape(len(part), -1, classes)
        return np.square(each - each.mean(axis=-1, keepdims=True)).reshape(len(each), -1)

    return np.sqrt(_mean(kept, values, of_row))


def agreement(output, found, expected):
    """`(fraction of the same answer, that of a file that knows nothing of the row)`.

    The second is what answers have in common that are drawn with the shares that model and file
    give them: `sum_c p_c q_c`.
    """
    mine, theirs = output.answers(found), output.answers(expected)
    same = float(np.mean(mine == theirs))
    if output.task == "multilabel":
        yes, wanted = mine.mean(axis=0), theirs.mean(axis=0)
        return same, float(np.mean(yes * wanted + (1 - yes) * (1 - wanted)))
    kinds, places = np.unique(np.stack([mine, theirs]), return_inverse=True)
    places = places.reshape(2, -1)
    counts = [np.bincount(each, minlength=len(kinds)) / places.shape[1] for each in places]
    return same, float(np.dot(*counts))


def accuracy(output, values):
    """The fraction of right answers; a row of several labels is right where all of them are."""
    labels, given = output.labels, output.answers(values)
    given = given.reshape(labels.shape)
    counted = labels >= 0
    right = given == labels
    if output.task == "multilabel":
        counted, right = counted.all(axis=-1), right.all(axis=-1)
    if output.are_indices:
        counted = np.ones_like(counted)
    return float(right[counted].mean()) if counted.any() else None
