"""Quality of embeddings: what is found by them, and whether their distances rank as people do."""

import dataclasses
from typing import Any

import numpy as np

from keras_kd._utils import validation
from keras_kd.measurement.quality import Figures
from keras_kd.measurement.sample_scores import SampleScores

DEFAULT_TOP_K = (1, 5, 10)
# Cosines that differ by less are equal: rows of one matrix product are rounded differently.
_ROUNDING = 1e-9
# Queries whose scores are in memory at once.
_AT_ONCE = 256
_QUERY, _DOCUMENT = 0, 1


def unit_vectors(name: str, outputs: Any) -> np.ndarray:
    """Embeddings of length 1, float64 `[samples, width]`; zeros stay.

    Raises:
        ValueError: They are no vectors, or not finite.
    """
    values = np.asarray(outputs, np.float64)
    if values.ndim != 2:
        raise ValueError(
            f"{name} gives outputs of shape {values.shape}. Expected embeddings [samples, width]: "
            "pool positions inside of the model, or choose one of several outputs with `output`."
        )
    if not np.isfinite(values).all():
        rows = ~np.isfinite(values).all(axis=1)
        raise ValueError(
            f"{name} gives NaN or infinities in {rows.sum()} of {len(values)} samples, first in "
            f"sample {int(np.argmax(rows))}: it cannot be measured."
        )
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(lengths > 0, lengths, 1.0)


def row_weights(weights: Any, samples: int) -> np.ndarray:
    """A weight for each sample, float64.

    Raises:
        ValueError: There is not one for each.
    """
    if weights is None:
        return np.ones(samples)
    found = np.asarray(weights, np.float64).reshape(-1)
    if len(found) != samples:
        raise ValueError(
            f"The data has {len(found)} sample weights for {samples} embeddings: one each."
        )
    return found


# Retrieval.


@dataclasses.dataclass(frozen=True)
class Search:
    """Who is looked for among whom.

    Attributes:
        items: Int64 `[samples]`: samples of one item belong together.
        queries: Rows that are looked for.
        documents: Rows that are found.
        excludes_itself: Whether a query is one of the documents, and not found by itself.
    """

    items: np.ndarray
    queries: np.ndarray
    documents: np.ndarray
    excludes_itself: bool


def read_search(labels: Any, weights: Any) -> Search:
    """The `Search` that labels describe.

    Raises:
        ValueError: They describe none, or no query has anything to find.
    """
    labels = np.asarray(labels)
    is_whole = labels.dtype.kind in "biuf" and bool((labels == np.floor(labels)).all())
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    has_roles = labels.ndim == 2 and labels.shape[1] == 2
    if not is_whole or not (labels.ndim == 1 or has_roles):
        raise ValueError(
            "The task is 'retrieval'. Expected labels [samples], whole numbers that are equal for "
            "samples that belong together, or [samples, 2], with 0 for a query and 1 for a "
            f"document behind it (kd.language.retrieval_data makes them). Received: shape "
            f"{labels.shape}, {labels.dtype}."
        )
    labels = labels.astype(np.int64)
    items = labels[:, 0] if has_roles else labels
    is_there = row_weights(weights, len(items)) > 0
    may_ask = is_there & (items >= 0)
    if has_roles:
        roles = labels[:, 1]
        if not np.isin(roles, (_QUERY, _DOCUMENT)).all():
            raise ValueError(
                "The second label of a sample must be 0, a query, or 1, a document. Received: "
                f"{sorted(set(roles.tolist()))[:10]}"
            )
        queries, documents = may_ask & (roles == _QUERY), is_there & (roles == _DOCUMENT)
        has_target = np.isin(items, items[documents])
    else:
        queries, documents = may_ask, is_there
        _, places, counts = np.unique(
            np.where(is_there, items, -1), return_inverse=True, return_counts=True
        )
        has_target = counts[places] > 1
    queries = queries & has_target
    if not queries.any():
        raise ValueError(
            "No query has a document to find: no two samples have the same label (of labels "
            "[samples, 2]: no query and document)."
        )
    rows = np.flatnonzero(queries), np.flatnonzero(documents)
    return Search(items, *rows, excludes_itself=not has_roles)


def choose_top_k(top_k: tuple[int, ...] | None, documents: int) -> tuple[int, ...]:
    """For which k the recall is measured: `None` is the default, without those that are too large.

    Raises:
        ValueError: A k of the user's is larger than the number of documents.
    """
    if top_k is None:
        return tuple(k for k in DEFAULT_TOP_K if k <= documents)
    too_large = [k for k in top_k if k > documents]
    if too_large:
        raise validation.invalid(
            "top_k", f"numbers up to that of the documents, {documents}", repr(top_k)
        )
    return top_k


def measure_retrieval(
    name: str, outputs: Any, labels: Any, weights: Any, top_k: tuple[int, ...] | None
) -> Figures:
    """Recall at k, and the mean reciprocal rank, of a search by cosine.

    `recall_at_k`: the share of a query's documents that are among the k nearest; `mrr`: 1 over the
    rank of the first of them; both are means over queries by their weights. Of equally near ones
    the wrong ones count as nearer: embeddings that are all the same find nothing.

    Args:
        name: The model's name, for errors.
        outputs: `[samples, width]`.
        labels: See `read_search`.
        weights: `[samples]`, of queries; documents of weight 0 are left out. Or `None`.
        top_k: Whole numbers, or `None`.
    """
    vectors = unit_vectors(name, outputs)
    search = read_search(labels, weights)
    top_k = choose_top_k(top_k, len(search.documents) - search.excludes_itself)
    ranks = [_ranks(*each) for each in _searched(vectors, search)]
    scores = {
        f"recall_at_{k}": SampleScores.mean([np.mean(each <= k) for each in ranks]) for k in top_k
    }
    scores["mrr"] = SampleScores.mean([1 / each[0] for each in ranks])
    of_queries = row_weights(weights, len(vectors))[search.queries]
    of_queries = None if (of_queries == of_queries[0]).all() else of_queries
    counted = np.zeros((len(vectors), 1), bool)
    counted[search.queries] = True
    figures = Figures(
        {key: each.value(of_queries) for key, each in scores.items()},
        np.array([each[0] for each in ranks]),
        search.items[search.queries],
        weights=of_queries,
        counted=counted,
        sample_scores=scores,
    )
    figures.notes.append(
        f"{len(search.queries):,} queries among {len(search.documents):,} documents."
    )
    return figures


def _searched(vectors: np.ndarray, search: Search) -> Any:
    """`(scores, is it one of the query's documents)` of each query, without the query itself."""
    documents = vectors[search.documents].T
    items = search.items[search.documents]
    for start in range(0, len(search.queries), _AT_ONCE):
        rows = search.queries[start : start + _AT_ONCE]
        for row, scores in zip(rows, vectors[rows] @ documents, strict=True):
            is_right = items == search.items[row]
            if search.excludes_itself:
                others = search.documents != row
                scores, is_right = scores[others], is_right[others]
            yield scores, is_right


def _ranks(scores: np.ndarray, is_right: np.ndarray) -> np.ndarray:
    """The ranks of a query's documents, in order, from 1."""
    right = np.sort(scores[is_right])[::-1]
    wrong = np.sort(scores[~is_right])
    nearer = len(wrong) - np.searchsorted(wrong, right - _ROUNDING)
    return nearer + np.arange(1, len(right) + 1)


def compare_retrieval(
    name: str, outputs: Any, teacher: Any, labels: Any, weights: Any
) -> dict[str, float]:
    """The model against its teacher.

    `agreement`: the share of queries, by their weights, for which both find the same document
    first; `cosine`: the mean cosine of a sample's two embeddings, where they have one width.
    """
    ours, theirs = unit_vectors(name, outputs), unit_vectors("The teacher", teacher)
    _check_rows(ours, theirs)
    search = read_search(labels, weights)
    first = [
        np.array([scores.argmax() for scores, _ in _searched(vectors, search)])
        for vectors in (ours, theirs)
    ]
    of_rows = row_weights(weights, len(ours))
    found = {"agreement": np.average(first[0] == first[1], weights=of_rows[search.queries])}
    return {key: float(x) for key, x in {**found, **_cosine(ours, theirs, of_rows)}.items()}


def _check_rows(ours: np.ndarray, theirs: np.ndarray) -> None:
    if len(ours) != len(theirs):
        raise ValueError(
            f"The teacher gives {len(theirs)} outputs where the model gives {len(ours)}."
        )


def _cosine(ours: np.ndarray, theirs: np.ndarray, of_rows: np.ndarray) -> dict[str, float]:
    if ours.shape != theirs.shape:
        return {}
    return {"cosine": float(np.average((ours * theirs).sum(axis=1), weights=of_rows))}


# Similarity.


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of samples, and how alike people find them.

    Attributes:
        first: A row of each pair.
        second: The other one.
        scores: Float64 `[pairs]`.
    """

    first: np.ndarray
    second: np.ndarray
    scores: np.ndarray


def read_pairs(labels: Any, weights: Any) -> Pairs:
    """The pairs that labels describe.

    Raises:
        ValueError: They describe none, or too few to rank.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.shape[1] != 2 or labels.dtype.kind not in "biuf":
        raise ValueError(
            "The task is 'similarity'. Expected labels [samples, 2]: the number of a pair, which "
            "two samples have, and its score (kd.language.similarity_data makes them). Received: "
            f"shape {labels.shape}, {labels.dtype}."
        )
    rows = np.flatnonzero(equal_weights(weights, len(labels)))
    labels = labels[rows].astype(np.float64)
    _, begins, counts = np.unique(labels[:, 0], return_index=True, return_counts=True)
    if (counts != 2).any():
        wrong = labels[begins[np.argmax(counts != 2)], 0]
        raise ValueError(
            f"Two samples must have the number of a pair; {counts[counts != 2][0]} have {wrong:g}."
        )
    order = np.argsort(labels[:, 0], kind="stable").reshape(-1, 2)
    order = order[np.argsort(order[:, 0])]
    first, second = order.T
    scores = labels[first, 1]
    if not np.array_equal(scores, labels[second, 1]) or not np.isfinite(scores).all():
        raise ValueError("Both samples of a pair must have its score, a finite number.")
    _check_scores(scores)
    return Pairs(rows[first], rows[second], scores)


def equal_weights(weights: Any, samples: int) -> np.ndarray:
    """Which samples count, bool; raises where weights are not all the same or 0."""
    found = row_weights(weights, samples)
    counted = found > 0
    if len(set(found[counted].tolist())) != 1:
        raise ValueError(
            "Rank correlations take no sample weights: give all samples the same one, or 0 to "
            "those that do not count."
        )
    return counted


def _check_scores(scores: np.ndarray) -> None:
    if len(scores) < 2 or (scores == scores[0]).all():
        raise ValueError(
            "A rank correlation needs at least two pairs, and scores that are not all the same."
        )


def are_scores(outputs: Any) -> bool:
    """Whether a model gives one number for each sample, as one that reads both texts of a pair."""
    shape = np.shape(outputs)
    return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)


def measure_similarity(name: str, outputs: Any, labels: Any, weights: Any) -> Figures:
    """Spearman's, Kendall's (tau-b) and Pearson's correlation of cosines and given scores.

    Args:
        name: The model's name, for errors.
        outputs: Embeddings `[samples, width]`, or a score for each sample.
        labels: See `read_pairs`; of scores `[samples]`.
        weights: `[samples]`, equal or 0, or `None`.
    """
    predicted, true, counted = _scores_of(name, outputs, labels, weights)
    quality, notes = _correlations(predicted, true)
    return Figures(quality, predicted, true, notes=notes, counted=counted.reshape(-1, 1))


def _scores_of(
    name: str, outputs: Any, labels: Any, weights: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(scores of the model, true scores, which samples stand for a score)`."""
    if not are_scores(outputs):
        vectors = unit_vectors(name, outputs)
        pairs = read_pairs(labels, weights)
        counted = np.zeros(len(vectors), bool)
        counted[pairs.first] = True
        return (vectors[pairs.first] * vectors[pairs.second]).sum(axis=1), pairs.scores, counted
    values = np.asarray(outputs, np.float64).reshape(-1)
    labels = np.asarray(labels)
    if labels.size != len(values) or labels.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} gives one number for each of {len(values)} samples. Expected as many scores "
            f"as labels. Received: shape {labels.shape}, {labels.dtype}."
        )
    counted = equal_weights(weights, len(values))
    true, values = labels.reshape(-1)[counted].astype(np.float64), values[counted]
    if not (np.isfinite(true).all() and np.isfinite(values).all()):
        raise ValueError(f"{name} or the labels have NaN or infinities: they have no rank.")
    _check_scores(true)
    return values, true, counted


def _differ(values: np.ndarray) -> bool:
    """Whether scores differ by more than rounding, whose ranks would be noise."""
    return np.ptp(values) > _ROUNDING * max(1.0, abs(values).max())


def _correlations(predicted: np.ndarray, true: np.ndarray) -> tuple[dict[str, float], list[str]]:
    if not _differ(predicted):
        return {}, ["spearman, kendall, pearson: left out; all scores are the same."]
    stats = validation.needs("scipy.stats", "Rank correlations", "language")
    return {
        "spearman": float(stats.spearmanr(predicted, true).statistic),
        "kendall": float(stats.kendalltau(predicted, true).statistic),
        "pearson": float(stats.pearsonr(predicted, true).statistic),
    }, []


def compare_similarity(
    name: str, outputs: Any, teacher: Any, labels: Any, weights: Any
) -> dict[str, float]:
    """The model against its teacher: `spearman` of their scores, `cosine` as of a retrieval."""
    ours, _, _ = _scores_of(name, outputs, labels, weights)
    theirs, _, _ = _scores_of("The teacher", teacher, labels, weights)
    found = _correlations(ours, theirs)[0] if _differ(theirs) else {}
    result = {key: found[key] for key in ("spearman",) if key in found}
    if are_scores(outputs) or are_scores(teacher):
        return result
    vectors = unit_vectors(name, outputs), unit_vectors("The teacher", teacher)
    return {**result, **_cosine(*vectors, row_weights(weights, len(vectors[0])))}
