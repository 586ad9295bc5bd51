"""The data of a run, by its kind, checked before anything is trained."""

import hashlib
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd._utils import batches, naming
from keras_kd.runs import images, samples, tables, texts
from keras_kd.runs.reading import Configuration
from keras_kd.runs.samples import Samples

_LOADERS = {"images": images.load, "table": tables.load, "texts": texts.load}


def load(config: Configuration) -> Samples:
    """Reads and checks the data.

    Raises:
        ValueError: It is wrong; the message names the key.
        ImportError: A package is missing.
    """
    kind = config.values.data.kind
    return _LOADERS[kind](config) if kind in _LOADERS else _of_function(config)


def _of_function(config: Configuration) -> Samples:
    words, place = config.values.data.chosen, "data.function"
    found = naming.called(words, config.place(place))
    if not isinstance(found, dict) or set(found) != {*samples.PARTS}:
        received = sorted(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise config.error(
            place,
            f"{words!r} must return a dict with the keys train, validation and test. "
            f"Received: {received}.",
        )
    digest, counts, most, sizes = hashlib.sha256(), {}, 0, []
    for part in samples.PARTS:
        count, highest, largest = _read_part(config, place, part, found[part], digest)
        counts[part], most = count, max(most, highest)
        sizes.append(largest)
    spec = found["train"].element_spec[0]
    is_one = isinstance(spec, tf.TensorSpec)
    return Samples(
        kind="function",
        parts={part: found[part] for part in samples.PARTS},
        counts=counts,
        classes=[str(i) for i in range(max(most + 1, 2))],
        batch_size=sizes[0],
        shape=tuple(spec.shape[1:]) if is_one else None,
        dtype=spec.dtype.name if is_one else "float32",
        preprocessing={"input": f"as {words} gives it"},
        digest=digest.hexdigest(),
        notes=[],
    )


def _read_part(config, place, part, dataset, digest):
    """How many samples a part has, its highest label and largest batch; adds it to the digest."""
    if not isinstance(dataset, tf.data.Dataset):
        raise config.error(
            place,
            f"{part} must be a batched tf.data.Dataset of (inputs, class indices). "
            f"Received: a {type(dataset).__name__}.",
        )
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise config.error(place, f"{part} has no end. Leave out repeat(), or add take(n).")
    count = highest = largest = 0
    for batch in dataset:
        labels = _labels_of(config, place, part, batch)
        count, largest = count + len(labels), max(largest, len(labels))
        highest = max(highest, int(labels.max(initial=0)))
        batches.update_digest(digest, batch)
    if count == 0:
        raise config.error(place, f"{part} has no samples. Give each part some.")
    return count, highest, largest


def _labels_of(config, place, part, batch: Any) -> np.ndarray:
    if not isinstance(batch, tuple) or len(batch) not in (2, 3):
        raise config.error(place, f"{part} has no labels: expected batches of (inputs, labels).")
    labels = np.asarray(batch[1])
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or (labels < 0).any():
        raise config.error(
            place,
            f"the labels of {part} must be class indices from 0 of shape [batch]. "
            f"Received: {labels.dtype} of shape {list(labels.shape)}.",
        )
    return labels
