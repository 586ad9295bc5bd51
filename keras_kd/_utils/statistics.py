"""Statistics that several rooms need: binomial tails, and linear CKA."""

import numpy as np

# How likely a number of right answers is.


# A true statement about the teacher is called false in fewer than one of 1000 cases.
UNLIKELY = 1e-3
# At most so often a teacher that only guesses is as good as observed: then it may be guessing.
NOT_ABOVE = 0.05
# A teacher that is useful has at least this part of the way from chance to always being right.
USEFUL = 0.25
# Or this many times chance: of 32,000 classes nobody is right in a quarter of the rows.
TIMES_CHANCE = 3.0


def at_most(right, rows, probability):
    """`P(X <= right)` of a binomial `X` of `rows` draws; `0 < probability < 1`."""
    if right < 0:
        return 0.0
    if right >= rows:
        return 1.0
    i = np.arange(right)
    # Ratios of neighbours: factorials of a million rows have no place in a float.
    steps = np.log((rows - i) / (i + 1.0)) + np.log(probability) - np.log1p(-probability)
    logs = rows * np.log1p(-probability) + np.concatenate([[0.0], np.cumsum(steps)])
    return float(min(1.0, np.exp(logs).sum()))


def is_above_chance(right, rows, classes):
    """Whether one who guesses would be right as often in 5 % of such data or less."""
    return 1.0 - at_most(right - 1, rows, 1.0 / classes) <= NOT_ABOVE


def is_guessing(right, rows, classes):
    """Whether so few right answers mean that the teacher may as well guess, and is not useful.

    Both must hold: one who guesses (probability `1 / classes`) would be right as often in more than
    5 % of such data; and a teacher whose true accuracy is `1 / classes + (1 - 1 / classes) / 4` or
    more would be right so rarely in less than 0.1 %. Few rows never suffice: of 10 classes it
    takes 18 rows without one right answer.

    Args:
        right: Number of right answers.
        rows: Number of (independent) rows.
        classes: Number of classes, at least 2.
    """
    chance = 1.0 / classes
    useful = chance + USEFUL * (1.0 - chance)
    is_useful = at_most(right, rows, useful) >= UNLIKELY
    return not (is_useful or is_above_chance(right, rows, classes))


def knows_little(right, rows, classes):
    """Whether the accuracy is surely below `useful` and below three times chance; see above."""
    chance = 1.0 / classes
    little = min(chance + USEFUL * (1.0 - chance), TIMES_CHANCE * chance)
    return at_most(right, rows, little) < UNLIKELY


def effective(weights_sum, squares_sum):
    """How many rows of equal weight tell as much as rows with these weights."""
    squares = np.asarray(squares_sum, np.float64)
    safe = np.where(squares > 0, squares, 1.0)
    return np.where(squares > 0, np.asarray(weights_sum) ** 2 / safe, 0.0)


# How alike two models' features are: linear CKA.


def cka(features, others):
    """Centred kernel alignment of two layers' features of the same rows.

    `sum(K * L) / sqrt(sum(K * K) sum(L * L))` with the centred Gram matrices `K` and `L`: 1 where
    one is a rotation and scaling of the other. Widths may differ.

    Args:
        features: `[rows, ...]`.
        others: `[rows, ...]`.

    Returns:
        A float from 0 to 1; 0 where the features of all rows are equal.

    Reference: Kornblith et al., "Similarity of Neural Network Representations Revisited",
    https://arxiv.org/abs/1905.00414
    """
    return cka_of_grams(centred_gram(features), centred_gram(others))


def cka_of_grams(a, b):
    """As `cka`, of what `centred_gram` gives: with many layers each is worked out once."""
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size > 0 else 0.0


def centred_gram(features):
    """Inner products of the rows' deviations from their mean, `[rows, rows]` in float64."""
    rows = np.asarray(features, "float64")
    rows = rows.reshape(len(rows), -1)
    rows = rows - rows.mean(axis=0)
    return rows @ rows.T
