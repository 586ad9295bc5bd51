"""What a source is, and what all of the package's own have in common."""

import abc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid

# Batches that are made ready while the teacher runs.
_AHEAD = 2


class Source(abc.ABC):
    """Data that is cut into shards, each of which can be read alone.

    A class of your own sets `shards` and defines `__call__` and `describe`. It has to be picklable:
    open files in `__call__`, not before.

    Attributes:
        shards: How many shards one view has.

    Example:

    ```python
    import tensorflow as tf
    import keras_kd as kd


    class Squares(kd.cache.sources.Source):
        shards = 3

        def __call__(self, view, shard):
            numbers = tf.data.Dataset.range(100 * shard, 100 * (shard + 1)).batch(50)
            return numbers.map(lambda x: (x, x**2))

        def describe(self):
            return {"kind": "squares", "rows_per_shard": 100, "batch_size": 50}


    squares = Squares()
    assert len(list(squares(0, 2))) == 2
    assert len(list(squares.whole())) == 6
    ```
    """

    shards: int

    @abc.abstractmethod
    def __call__(self, view: int, shard: int) -> tf.data.Dataset:
        """The batches of a shard; no other part of the data is read.

        Args:
            view: The number of an epoch with an augmentation of its own, from 0.
            shard: From 0 to `shards - 1`.

        Returns:
            Batches of inputs, `(inputs, labels)` or `(inputs, labels, weights)`: the same ones in
            the same order each time and in each process.
        """

    @abc.abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the data is and how it is cut, for JSON.

        A worker whose source has another description is refused. It should name what tells data
        apart, such as the sizes of files, and nothing that differs between machines, such as their
        folders and times.
        """

    def whole(self, view: int = 0) -> tf.data.Dataset:
        """The batches of all shards in order, to train with `kd.load_cache`.

        Args:
            view: The number of the view.

        Returns:
            A `tf.data.Dataset`, which opens one shard after another.
        """

        def batches() -> Iterator[Any]:
            for shard in range(self.shards):
                yield from self(view, shard)

        spec = self(view, 0).element_spec
        return _deterministic(tf.data.Dataset.from_generator(batches, output_signature=spec))


class CutSource(Source):
    """A source of the package's own: checks, augmentation, batches.

    A subclass reads: `_read(shard)` is a dataset of `(place, element)`, where a place is two
    integers that tell a sample from all others of the data, such as a file and a row. `place` and
    `element` are of a sample, or `[batch, 2]` and a batch where `_reads_batches`.

    Args:
        shards: How many there are.
        batch_size: Rows of a batch.
        augment: See the package's docstring.
        seed: An integer, at least 0.
    """

    _reads_batches = False

    def __init__(
        self, shards: int, batch_size: int, augment: Callable | None, seed: int | None
    ) -> None:
        self.shards = shards
        self._batch_size = batch_size
        self._augment = _checked_augment(augment)
        self._seed = validation.integer("seed", seed, 0)
        if self._seed >= 2**63:
            raise invalid("seed", "an integer below 2**63", self._seed)

    def __call__(self, view: int, shard: int) -> tf.data.Dataset:
        view = validation.integer("view", view, 0)
        shard = validation.integer("shard", shard, 0)
        if shard >= self.shards:
            raise invalid("shard", f"an integer from 0 to {self.shards - 1}", shard)
        self._check(shard)
        placed = self._read(shard)
        if self._augment is not None:
            samples = placed.unbatch() if self._reads_batches else placed
            dataset = self._augmented(samples, view).batch(self._batch_size)
        else:
            dataset = placed.map(_element_of)
            if not self._reads_batches:
                dataset = dataset.batch(self._batch_size)
        rows = self._rows(shard)
        if rows is not None:
            known = tf.data.experimental.assert_cardinality(-(-rows // self._batch_size))
            dataset = dataset.apply(known)
        return _deterministic(dataset.prefetch(_AHEAD))

    def describe(self) -> dict[str, Any]:
        found = {
            "kind": type(self).__name__,
            "shards": self.shards,
            "batch_size": self._batch_size,
            "augment": name_of(self._augment),
        }
        if self._augment is not None:
            found["seed"] = self._seed
        return found

    @abc.abstractmethod
    def _read(self, shard: int) -> tf.data.Dataset:
        """See the class."""

    def _check(self, shard: int) -> None:
        """Raises where the data of a shard is no longer what it was."""

    def _rows(self, shard: int) -> int | None:
        """How many rows a shard has, or `None` where only reading it tells."""
        return None

    def _augmented(self, samples: tf.data.Dataset, view: int) -> tf.data.Dataset:
        for spec in tf.nest.flatten(samples.element_spec[1]):
            if not isinstance(spec, tf.TensorSpec):
                raise ValueError(
                    "`augment` needs samples of dense tensors. Make them with to_tensor() before, "
                    f"in the function that makes the elements. Received: {spec}"
                )
        augment: Any = self._augment
        seed = self._seed

        def changed(place: tf.Tensor, element: Any) -> Any:
            key = tf.constant([seed, view], tf.int64)
            key = tf.random.fold_in(tf.random.fold_in(key, place[0]), place[1])
            parts = element if isinstance(element, tuple) else (element,)
            found = augment(*parts, key)
            if found is None:
                raise ValueError("`augment` must return a sample. Received: None")
            return found

        return samples.map(changed, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _checked_augment(augment: Any) -> Callable | None:
    arguments = ("inputs", "labels", "weights", "seed")
    for count in (3, 4):
        if callable(augment) and validation.unfit_signature(augment, arguments[:count]) is None:
            return augment
    return validation.function("augment", augment, ("inputs", "seed"), optional=True)


def _element_of(place: tf.Tensor, element: Any) -> Any:
    return element


def _deterministic(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    return dataset.with_options(options)


def name_of(function: Any) -> str | None:
    """A function's name in a description: a lambda and an object have that of their kind."""
    if function is None:
        return None
    return getattr(function, "__qualname__", type(function).__name__)


def rows(start: int, end: int, unit: int = 0) -> np.ndarray:
    """The places of some rows.

    Args:
        start: The first row.
        end: The row after the last.
        unit: The number of their file, where rows are counted in each.
    """
    return np.stack([np.full(end - start, unit, "int64"), np.arange(start, end)], axis=1)


def generated(batches: Callable[[], Iterator[tuple]], spec: Any) -> tf.data.Dataset:
    """A dataset of `(places, batch)` that a generator yields.

    Args:
        batches: Makes the generator.
        spec: The `tf.TensorSpec`s of a batch.
    """
    places = tf.TensorSpec((None, 2), tf.int64)
    return tf.data.Dataset.from_generator(batches, output_signature=(places, spec))
