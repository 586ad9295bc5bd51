"""Data for `kd.measure` of embeddings: what belongs together, as labels of single samples."""

from typing import Any

import keras
import numpy as np

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid


def retrieval_data(queries: Any, documents: Any, relevant: Any = None) -> tuple[Any, np.ndarray]:
    """Queries and documents as data for `kd.measure(..., task="retrieval")`.

    One encoder embeds both, so they become samples of one batch. For a file that takes the same.

    Args:
        queries: Inputs of the model: an array `[queries, ...]`, or a structure of them.
        documents: As `queries`, `[documents, ...]`.
        relevant: For each query the number of its document, integers `[queries]`; -1: it has none,
            and does not count. `None`: as many as queries, in the same order.

    Returns:
        `(inputs, labels)`: queries and then documents; `labels` are int64 `[samples, 2]`: the
        number of the document, and 0 for a query, 1 for a document.

    Raises:
        ValueError: They do not fit.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    bodies, summaries = np.random.normal(size=(2, 20, 8)).astype("float32")
    encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    data = kd.language.retrieval_data(bodies, summaries)
    found = kd.measure(encoder, data, task="retrieval", latency=False, verbose=0)
    print(found.quality["recall_at_1"], found.quality["recall_at_10"])
    ```
    """
    counts = _count("queries", queries), _count("documents", documents)
    if relevant is None:
        if counts[0] != counts[1]:
            raise invalid(
                "relevant",
                "the number of a document for each query, where there are not as many documents "
                f"as queries: {counts[1]} documents, {counts[0]} queries",
                "None",
            )
        relevant = np.arange(counts[0])
    found = np.asarray(relevant)
    if found.shape != counts[:1] or found.dtype.kind not in "iu":
        received = f"shape {found.shape}, {found.dtype}"
        raise invalid("relevant", f"integers, one for each of {counts[0]} queries", received)
    if found.min() < -1 or found.max() >= counts[1]:
        received = f"numbers from {found.min()} to {found.max()}"
        raise invalid("relevant", f"numbers of {counts[1]} documents, or -1", received)
    items = np.concatenate([found.astype(np.int64), np.arange(counts[1])])
    roles = np.repeat([0, 1], counts)
    return _joined(queries, documents), np.stack([items, roles], axis=1)


def similarity_data(first: Any, second: Any, scores: Any) -> tuple[Any, np.ndarray]:
    """Scored pairs as data for `kd.measure(..., task="similarity")`.

    Args:
        first: Inputs of the model: an array `[pairs, ...]`, or a structure of them.
        second: As `first`.
        scores: How alike the two are, numbers `[pairs]`; only their order counts for rank
            correlations.

    Returns:
        `(inputs, labels)`: all of `first` and then all of `second`; `labels` are float64
        `[samples, 2]`: the number of the pair, and its score.

    Raises:
        ValueError: They do not fit.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    first, second = np.random.normal(size=(2, 20, 8)).astype("float32")
    encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    data = kd.language.similarity_data(first, second, np.arange(20.0))
    found = kd.measure(encoder, data, task="similarity", latency=False, verbose=0)
    print(found.quality["spearman"])
    ```
    """
    counts = _count("first", first), _count("second", second)
    found = np.asarray(scores)
    if counts[0] != counts[1] or found.shape != counts[:1] or found.dtype.kind not in "biuf":
        raise ValueError(
            "`first`, `second` and `scores` must have one length, and scores be numbers. Received: "
            f"{counts[0]} and {counts[1]} samples, scores of shape {found.shape}, {found.dtype}."
        )
    labels = np.stack([np.arange(counts[0]), found.astype(np.float64)], axis=1)
    return _joined(first, second), np.concatenate([labels, labels])


def _count(name: str, inputs: Any) -> int:
    if isinstance(inputs, (list, tuple)) and any(isinstance(each, str) for each in inputs):
        inputs = np.asarray(inputs)
    shapes = [np.shape(each) for each in keras.tree.flatten(inputs)]
    if not shapes or () in shapes or len({shape[0] for shape in shapes}) != 1 or not shapes[0][0]:
        raise invalid(
            name, "an array [samples, ...], or a structure of such", validation.briefly(inputs)
        )
    return shapes[0][0]


def _joined(one: Any, other: Any) -> Any:
    is_texts = isinstance(one, (list, tuple)) and any(isinstance(each, str) for each in one)
    if is_texts:
        return np.asarray([*one, *other])
    keras.tree.assert_same_structure(one, other)
    return keras.tree.map_structure(lambda a, b: np.concatenate([a, b]), one, other)
