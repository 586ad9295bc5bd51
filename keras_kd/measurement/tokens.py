"""Quality of language models: perplexity over the positions that count.

The logits of a language model are too many to be kept: 1,000 texts of 256 tokens and 32,000 words
are 33 GB. Each batch is reduced to a few numbers a position while it is there.
"""

from typing import Any

import numpy as np

from keras_kd._utils import batches, statistics
from keras_kd.measurement import predictions
from keras_kd.measurement.quality import Figures
from keras_kd.measurement.sample_scores import SampleScores

# Texts at once, where `batch_size` is not given for arrays: logits are large.
BATCH_SIZE = 8
# What is kept of a position: the loss, the likeliest token, and against a teacher whether that is
# its likeliest too, the divergence, and the difference of the probabilities.
_LOSS, _LIKELIEST, _SAME, _KL, _DIFFERENCE = range(5)


class Reducer:
    """Reduces logits of a batch to a few numbers for each position.

    Args:
        name: The model's name, for errors.
        from_logits: Whether outputs are logits, else probabilities.
        teacher_from_logits: Whether the teacher's are.
    """

    def __init__(self, name: str, from_logits: bool, teacher_from_logits: bool) -> None:
        self._name, self._from_logits = name, from_logits
        self._teacher_from_logits = teacher_from_logits

    def __call__(self, outputs: Any, labels: Any, weights: Any, teacher: Any) -> np.ndarray:
        """Float64 `[texts, positions, 5]`, 0 at positions that do not count.

        Args:
            outputs: `[texts, positions, vocabulary]`.
            labels: Token ids `[texts, positions]`, negative where there is none.
            weights: `[texts, positions]`, `[texts]` or `None`.
            teacher: As `outputs`, or `None`.
        """
        outputs = np.asarray(outputs)
        check_shape(self._name, outputs.shape)
        ids, of_positions = read_labels(outputs.shape, labels, weights)
        if teacher is not None and np.shape(teacher) != outputs.shape:
            raise ValueError(
                f"The teacher gives outputs of shape {np.shape(teacher)} where {self._name} gives "
                f"{outputs.shape}: they cannot be compared. Pass a teacher of the same tokenizer, "
                "or teacher=None."
            )
        found = np.zeros((*outputs.shape[:-1], 5))
        for row in range(len(outputs)):  # float64 of one text at a time
            counted = (ids[row] >= 0) & (of_positions[row] > 0)
            if counted.any():
                other = None if teacher is None else np.asarray(teacher)[row][counted]
                found[row, counted] = self._reduce(outputs[row][counted], ids[row][counted], other)
        return found

    def _reduce(self, outputs: Any, ids: np.ndarray, teacher: Any) -> np.ndarray:
        if ids.max() >= outputs.shape[-1]:
            raise ValueError(
                f"The data has the token {ids.max()}, but {self._name} only {outputs.shape[-1]} "
                "(0 is the first): another tokenizer, or a vocabulary that was cut."
            )
        logits = predictions.convert_outputs(
            "multiclass", self._name, np.asarray(outputs, np.float64), self._from_logits
        )
        logs = predictions.log_probabilities(logits)
        found = np.zeros((len(ids), 5))
        found[:, _LOSS] = -logs[np.arange(len(ids)), ids]
        found[:, _LIKELIEST] = logits.argmax(axis=-1)
        if teacher is not None:
            of_teacher = predictions.convert_outputs(
                "multiclass",
                "The teacher",
                np.asarray(teacher, np.float64),
                self._teacher_from_logits,
            )
            teacher_logs = predictions.log_probabilities(of_teacher)
            shares = np.exp(teacher_logs)
            found[:, _SAME] = of_teacher.argmax(axis=-1) == found[:, _LIKELIEST]
            found[:, _KL] = (shares * (teacher_logs - logs)).sum(axis=-1)
            found[:, _DIFFERENCE] = abs(shares - np.exp(logs)).mean(axis=-1)
        return found


def check_shape(name: str, shape: tuple) -> None:
    """Raises unless outputs are logits for positions."""
    if len(shape) != 3 or (shape[-1] is not None and shape[-1] < 2):
        raise ValueError(
            f"The task is 'language_model', but {name} gives outputs of shape {tuple(shape)}. "
            "Expected [texts, positions, vocabulary]: pass the model with its head, not its "
            "backbone, or choose one of several outputs with `output`."
        )


def read_labels(shape: tuple, labels: Any, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """`(token ids, weights)`, both `[texts, positions]`.

    Raises:
        ValueError: They do not fit the outputs.
    """
    labels = np.asarray(labels)
    found = statistics.class_indices(labels, shape)
    if found is None:
        raise ValueError(
            f"Expected token ids [texts, positions] as labels of outputs of shape {tuple(shape)}, "
            "negative (such as -100) where a position does not count. Received: shape "
            f"{labels.shape}, {labels.dtype}."
        )
    of_positions = batches.position_weights("data", weights, tuple(shape))
    return found[0].reshape(shape[:2]), of_positions.reshape(shape[:2])


def measure(reduced: np.ndarray, labels: Any, weights: Any) -> Figures:
    """Perplexity, loss and accuracy of tokens.

    `log_loss = sum_ij w_ij l_ij / sum_ij w_ij` over the positions `j` of texts `i` that count, with
    `l = -log p(label)` in nats; `perplexity = exp(log_loss)`; `accuracy` is the share of positions,
    by their weights, whose likeliest token is the label. Texts are the samples of paired tests:
    the tokens of one depend on each other.

    Args:
        reduced: What a `Reducer` returned, for all texts.
        labels: Token ids `[texts, positions]`.
        weights: `[texts, positions]`, `[texts]` or `None`.
    """
    shape = (*reduced.shape[:2], 2)  # of a head of any size
    ids, of_positions = read_labels(shape, labels, weights)
    counts = np.where(ids >= 0, of_positions, 0.0)
    texts = counts.sum(axis=1) > 0
    if not texts.any():
        raise ValueError("`data` has no position with a label and a weight above 0.")
    counts, reduced, ids = counts[texts], reduced[texts], ids[texts]
    likeliest = reduced[..., _LIKELIEST].astype(np.int64)
    totals = counts.sum(axis=1)
    losses = (counts * reduced[..., _LOSS]).sum(axis=1)
    right = (counts * (likeliest == ids)).sum(axis=1)
    scores = {
        "perplexity": SampleScores(losses, totals, is_exponential=True),
        "log_loss": SampleScores(losses, totals),
        "accuracy": SampleScores(right, totals),
    }
    quality = {name: each.value() for name, each in scores.items()}
    counted = counts > 0
    figures = Figures(
        quality,
        np.where(counted, likeliest, -1),
        np.where(counted, ids, -1),
        sample_scores=scores,
        counted=texts.reshape(-1, 1),
    )
    figures.notes.append(f"{counted.sum():,} positions of {len(counts):,} texts count.")
    return figures


def measure_agreement(reduced: np.ndarray, labels: Any, weights: Any) -> dict[str, float]:
    """The model against its teacher, means over the positions that count, by their weights.

    `agreement`, `kl` and `mean_abs_difference` as of other classifiers.

    Args:
        reduced: What a `Reducer` returned for all texts, with a teacher.
        labels: Token ids `[texts, positions]`.
        weights: `[texts, positions]`, `[texts]` or `None`.
    """
    ids, of_positions = read_labels((*reduced.shape[:2], 2), labels, weights)
    counts = np.where(ids >= 0, of_positions, 0.0)
    places = {"agreement": _SAME, "kl": _KL, "mean_abs_difference": _DIFFERENCE}
    return {
        name: float(np.average(reduced[..., place], weights=counts))
        for name, place in places.items()
    }
