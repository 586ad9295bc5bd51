"""`TuningData`: what all trials of a search train and are judged on, and the teacher's outputs.

The teacher runs once: its outputs for the training data are stored before the first trial.
"""

import hashlib
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import batches
from keras_kd._utils.validation import invalid
from keras_kd.teachers.cache import CacheError, cache_teacher, load_cache
from keras_kd.teachers.cache.teacher import Cached

# Rows that are held in memory to be shuffled.
_SHUFFLED = 20_000
_BATCH = 256
# Bytes of rows that are held in memory. To read those of a cache again costs a small student, such
# as a CNN for digits, half as much again as its training.
_HELD = 512 * 2**20


class TuningData:
    """Training and validation data of a search.

    Args:
        train: `(x, y)` or `(x, y, sample_weight)` of arrays, or a batched `tf.data.Dataset` in the
            same order each time.
        validation: As `train`.
        seed: Of the order in which rows are trained on, which is the same in every trial.

    Attributes:
        validation: Batched.
        rows: How many training rows there are.
        digests: `{"train": ..., "validation": ...}`: tell these data from others.
    """

    def __init__(self, train: Any, validation: Any, seed: int) -> None:
        self._train = _dataset("train", train)
        self.validation = _dataset("validation", validation)
        self._seed = seed
        _check_alike(self._train.element_spec, self.validation.element_spec)
        self.digests: dict[str, str] = {}
        self.rows, self.digests["train"] = _read("train", self._train)
        _, self.digests["validation"] = _read("validation", self.validation)
        self._rows = self._held(self._train)

    @property
    def labels(self) -> Any:
        """The specification of a batch of training labels."""
        return keras.utils.unpack_x_y_sample_weight(self._train.element_spec)[1]

    def store(
        self, teacher: Any, folder: pathlib.Path, taps: list[str], verbose: int
    ) -> "StoredTeacher":
        """The teacher's outputs, written where they are not there yet.

        Args:
            teacher: What teaches; a `Cached` one has them already.
            folder: For them.
            taps: Layers of the teacher that losses read.
            verbose: 0 to 2.
        """
        if isinstance(teacher, Cached):
            return StoredTeacher(self, pathlib.Path(teacher.folder))
        try:
            path = cache_teacher(
                teacher, self._train, folder, taps=taps, dtype="float32", verbose=verbose
            )
        except CacheError as error:
            raise ValueError(
                f"`directory` {str(folder.parent)!r} holds a search with another teacher, or what "
                f"it gave is damaged. Pass another directory. ({error})"
            ) from error
        return StoredTeacher(self, path)

    def shuffled(self, batch_size: int, seed: int | None = None) -> tf.data.Dataset:
        """The training data in another order each epoch."""
        return self.in_order_of(self._rows, batch_size, seed)

    def rows_with(self, path: pathlib.Path) -> tf.data.Dataset:
        """The training rows with what a cache holds for them."""
        return self._held(load_cache(path, self._train))

    def in_order_of(
        self, rows: tf.data.Dataset, batch_size: int, seed: int | None = None
    ) -> tf.data.Dataset:
        """Rows in another order each epoch, which the seed alone decides.

        Args:
            rows: Of the training data, one by one.
            batch_size: Rows in a batch.
            seed: A number; default: that of the search.
        """
        seed = self._seed if seed is None else seed
        shuffled = rows.shuffle(min(self.rows, _SHUFFLED), seed=seed).batch(batch_size)
        steps = -(-self.rows // batch_size)
        # Keras takes an unknown length for the end of the data.
        known = shuffled.apply(tf.data.experimental.assert_cardinality(steps))
        return known.prefetch(tf.data.AUTOTUNE)

    def _held(self, batches_of_rows):
        """Rows one by one, held in memory where they are few."""
        rows = batches_of_rows.unbatch()
        specs = tf.nest.flatten(rows.element_spec)
        # Of texts, and of rows of other lengths, the size is not known.
        if not all(spec.shape.is_fully_defined() and spec.dtype.size for spec in specs):
            return rows
        size = self.rows * sum(spec.shape.num_elements() * spec.dtype.size for spec in specs)
        return rows.cache() if size <= _HELD else rows


class StoredTeacher:
    """The outputs of a teacher for the training data.

    Args:
        data: The `TuningData`.
        path: Of the cache.
    """

    def __init__(self, data: TuningData, path: pathlib.Path) -> None:
        self._data, self._path = data, path
        self._rows = data.rows_with(path)

    def teacher(self) -> Cached:
        """What teaches; each distiller has its own."""
        return Cached(self._path)

    def batches(self, batch_size: int, seed: int | None = None) -> tf.data.Dataset:
        """The training data with the outputs, in the order of `TuningData.shuffled`."""
        return self._data.in_order_of(self._rows, batch_size, seed)


def _dataset(name: str, value: Any) -> tf.data.Dataset:
    if isinstance(value, tuple) and len(value) in (2, 3):
        x, y, weights = (*value, None)[:3]
        value = batches.dataset_of(x, y, weights, _BATCH, shuffle=False)
    if not isinstance(value, tf.data.Dataset):
        raise invalid(
            name,
            "(x, y), (x, y, sample_weight), or a batched tf.data.Dataset of such",
            repr(value)[:200],
        )
    found = batches.batched(name, value)
    if batches.never_ends(found):
        raise invalid(name, f"a dataset that ends, such as {name}.take(batches)", "an endless one")
    x, y, _ = keras.utils.unpack_x_y_sample_weight(found.element_spec)
    if y is None:
        raise invalid(name, "data with labels, by which students are judged", f"inputs alone, {x}")
    return found


def _check_alike(train: Any, validation: Any) -> None:
    """Raises unless both data have inputs and labels of the same kind."""
    names = ("inputs", "labels")
    parts = [keras.utils.unpack_x_y_sample_weight(spec)[:2] for spec in (train, validation)]
    for name, one, other in zip(names, *parts, strict=True):
        kinds = [
            [(spec.shape.rank, spec.dtype.is_integer) for spec in tf.nest.flatten(each)]
            for each in (one, other)
        ]
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"`train` and `validation` have {name} of different kinds: {one} and {other}. Give "
                "both the same form."
            )


def _read(name: str, dataset: tf.data.Dataset) -> tuple[int, str]:
    """How many rows a dataset has, and a digest of them; it is read once, its first batch twice."""
    digest, rows = hashlib.sha256(), 0
    first = None
    for batch in dataset:
        parts = [np.asarray(part) for part in tf.nest.flatten(batch)]
        if first is None:
            first = parts
        rows += len(parts[0])
        batches.update_digest(digest, parts)
    if first is None or not rows:
        raise ValueError(f"`{name}` is empty.")
    again = [np.asarray(part) for part in tf.nest.flatten(next(iter(dataset)))]
    if not all(map(_are_equal, first, again)):
        raise ValueError(
            f"`{name}` gives other batches each time it is read, so it is shuffled or augmented. "
            "Leave out shuffle: rows of `train` are shuffled here. Give augmentations a fixed seed."
        )
    return rows, digest.hexdigest()


def _are_equal(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
