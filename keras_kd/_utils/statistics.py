"""Statistics of classifiers: outputs and labels as arrays, accuracy against chance, linear CKA."""

from typing import Any

import numpy as np

# Outputs and labels as rows, one for each sample or position, in float64.


# A probability of 0, or a logit of -inf, counts as the least that float32 can hold, exp(-104):
# whatever was below it has been lost.
LOWEST = -104.0


def flat_outputs(role: str, outputs: Any) -> np.ndarray:
    """Outputs `[..., classes]` as float64 `[rows, classes]`.

    Raises:
        ValueError: There are several outputs, or fewer than two classes.
    """
    if isinstance(outputs, (dict, list, tuple)):
        raise ValueError(
            f"The {role} has {len(outputs)} outputs in a {type(outputs).__name__}; classifiers "
            "with one output [..., classes] can be diagnosed. Make a model of one of them: "
            "keras.Model(model.inputs, output)."
        )
    array = np.asarray(outputs)
    if array.ndim < 2 or array.shape[-1] < 2:
        raise ValueError(
            f"The {role} gives outputs of shape {tuple(array.shape)}. Classifiers with outputs "
            "[batch, ..., classes] and at least two classes can be diagnosed; regression and "
            "single sigmoid outputs cannot."
        )
    return array.reshape(-1, array.shape[-1]).astype(np.float64)


def class_indices(labels: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, int | None] | None:
    """Labels as class indices.

    Args:
        labels: Class indices `[batch, ...]` or `[batch, ..., 1]`, or a probability for each class,
            `[batch, ..., classes]`; the largest counts.
        shape: The shape of the model's outputs.

    Returns:
        `(indices, classes)`: int64 `[rows]`, negative for rows without a label, and the number of
        classes where the labels have a number for each, else `None`. `None` in place of both where
        a label is not one class.
    """
    labels = np.asarray(labels)
    if labels.ndim == len(shape) and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if not (np.issubdtype(labels.dtype, np.number) and np.isrealobj(labels)):
        return None
    if labels.shape == tuple(shape[:-1]):
        whole = np.isfinite(labels) & (np.floor(labels) == labels)
        return (labels.reshape(-1).astype(np.int64), None) if whole.all() else None
    if labels.ndim != len(shape) or labels.shape[:-1] != tuple(shape[:-1]):
        return None
    # A hundredth: label smoothing in half precision.
    if (labels < 0).any() or (abs(labels.sum(axis=-1, dtype=np.float64) - 1) > 0.01).any():
        return None
    return labels.argmax(axis=-1).reshape(-1), labels.shape[-1]


def are_finite(values: np.ndarray) -> np.ndarray:
    """Which rows `[rows]` have a distribution: no NaN, no +inf, and not only -inf."""
    return ~(np.isnan(values).any(-1) | np.isposinf(values).any(-1) | np.isneginf(values).all(-1))


def to_logits(values: np.ndarray, from_logits: bool) -> np.ndarray:
    """Finite logits `[rows, classes]`, the largest of each row 0, of finite rows."""
    if not from_logits:
        positive = values > 0
        values = np.where(positive, np.log(np.where(positive, values, 1.0)), -np.inf)
    largest = values.max(axis=-1, keepdims=True)
    # Rows of numbers that are not probabilities may have none left.
    shifted = values - np.where(np.isfinite(largest), largest, 0.0)
    return np.where(np.isneginf(shifted), LOWEST, shifted)


# How likely a number of right answers is.


# A true statement about the teacher is rejected in fewer than one of 1000 cases.
UNLIKELY = 1e-3
# If a guessing teacher would do as well as observed more often than this, it may be guessing.
NOT_ABOVE = 0.05
# A useful teacher covers at least this part of the way from chance to always being right.
USEFUL = 0.25
# Or this many times chance: of 32,000 classes no teacher is right for a quarter of the samples.
TIMES_CHANCE = 3.0


def binomial_cdf(right: int, rows: int, probability: float) -> float:
    """`P(X <= right)` of a binomial `X` of `rows` draws; `0 < probability < 1`."""
    if right < 0:
        return 0.0
    if right >= rows:
        return 1.0
    i = np.arange(right)
    # Ratios of neighbors: factorials of a million rows do not fit into a float.
    steps = np.log((rows - i) / (i + 1.0)) + np.log(probability) - np.log1p(-probability)
    logs = rows * np.log1p(-probability) + np.concatenate([[0.0], np.cumsum(steps)])
    return float(min(1.0, np.exp(logs).sum()))


def is_above_chance(right: int, rows: int, classes: int) -> bool:
    """Whether guessing would be right as often in 5 % of such data or less."""
    return 1.0 - binomial_cdf(right - 1, rows, 1.0 / classes) <= NOT_ABOVE


def is_guessing(right: int, rows: int, classes: int) -> bool:
    """Whether so few right answers mean that the teacher may be guessing, and is not useful.

    Both must hold: guessing (probability `1 / classes`) would be right as often in more than 5 % of
    such data; and a teacher whose true accuracy is `1 / classes + (1 - 1 / classes) / 4` or more
    would be right so rarely in less than 0.1 %. Few rows never suffice: with 10 classes it takes
    18 rows without one right answer.

    Args:
        right: Number of right answers.
        rows: Number of (independent) rows.
        classes: Number of classes, at least 2.
    """
    chance = 1.0 / classes
    useful = chance + USEFUL * (1.0 - chance)
    is_useful = binomial_cdf(right, rows, useful) >= UNLIKELY
    return not (is_useful or is_above_chance(right, rows, classes))


def knows_little(right: int, rows: int, classes: int) -> bool:
    """Whether the accuracy is surely below `useful` and below three times chance; see above."""
    chance = 1.0 / classes
    little = min(chance + USEFUL * (1.0 - chance), TIMES_CHANCE * chance)
    return binomial_cdf(right, rows, little) < UNLIKELY


def effective(weights_sum: Any, squares_sum: Any) -> np.ndarray:
    """The effective sample size: as many rows of equal weight tell as much."""
    squares = np.asarray(squares_sum, np.float64)
    safe = np.where(squares > 0, squares, 1.0)
    return np.where(squares > 0, np.asarray(weights_sum) ** 2 / safe, 0.0)


# How alike two models' features are: linear CKA.


def cka(features: Any, others: Any) -> float:
    """Centered kernel alignment of two layers' features of the same samples.

    `sum(K * L) / sqrt(sum(K * K) sum(L * L))` with the centered Gram matrices `K` and `L`: 1 where
    one is a rotation and scaling of the other. Widths may differ.

    Args:
        features: `[batch, ...]`.
        others: `[batch, ...]`.

    Returns:
        A float from 0 to 1; 0 where the features of all samples are equal.

    Reference: Kornblith et al., "Similarity of Neural Network Representations Revisited",
    https://arxiv.org/abs/1905.00414
    """
    return cka_of_grams(centered_gram(features), centered_gram(others))


def cka_of_grams(a: np.ndarray, b: np.ndarray) -> float:
    """As `cka`, from `centered_gram`s: with many layers each is computed once."""
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size > 0 else 0.0


def centered_gram(features: Any) -> np.ndarray:
    """Inner products of the samples' deviations from their mean, `[batch, batch]` in float64."""
    rows = np.asarray(features, "float64")
    rows = rows.reshape(len(rows), -1)
    rows = rows - rows.mean(axis=0)
    return rows @ rows.T
