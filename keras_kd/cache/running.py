"""One run of `cache_teacher`: asks the teacher batch by batch, and writes what is not there yet."""

import itertools

import numpy as np
import tensorflow as tf

from keras_kd.cache import arguments, fingerprints, records, shards, skipping
from keras_kd.cache import format as cache_format
from keras_kd.teachers import carried

# About what a shard holds where `batches_per_shard` is not given: it is lost if the run is killed.
_SHARD_BYTES = 64 * 1024 * 1024


class Run:
    """One call of `cache_teacher`.

    Args:
        folder: The cache.
        asked: The `answers.Asked`.
        key: A function from an element to keys, or `None`.
        process: `(index, count)`.
        datasets: Those of the views.
        shown: The `progress.Progress`.
    """

    def __init__(self, folder, asked, key, process, datasets, shown):
        self.folder, self._asked, self._key = folder, asked, key
        self._process, self._datasets, self._shown = process, datasets, shown
        self.plan, self.specs = {}, {}
        self._components = None
        # The first batch is asked about before anything is written, and not twice.
        self._begun, self._first = None, None

    def trace(self):
        """Traces the teacher once for all batches; what does not fit is told here."""
        element = self._datasets[0].element_spec
        arguments.check_rows(self._asked.source, carried.inputs_of(element))
        traced = tf.function(self._traced, autograph=False)
        self._components = traced.get_concrete_function(element)
        self.specs = self._components.structured_outputs[0]
        if any(spec.shape.rank in (None, 0) for spec in self.specs.values()):
            raise ValueError(
                "Teacher outputs, taps and keys must have one row for each row of the batch, and a "
                f"known rank. Received: { ({n: s.shape for n, s in self.specs.items()}) }"
            )

    def _traced(self, element):
        inputs = carried.inputs_of(element)
        kept, sound = self._asked(inputs)
        return {**kept, **self._marks(element)}, sound

    def _marks(self, element):
        marks = {records.FINGERPRINTS: fingerprints.of_rows(carried.inputs_of(element))}
        if self._key is not None:
            marks[records.KEYS] = fingerprints.of_rows(self._key(*carried.parts_of(element)))
        return marks

    def default_shard(self):
        """How many batches a shard has, by the size of the first one's answers.

        Raises:
            ValueError: There is no first batch, or what the teacher says of it cannot be kept.
        """
        first = self._answer_to_first()
        size = sum(np.prod(value.shape) * value.dtype.size for value in first.values())
        return max(1, int(_SHARD_BYTES // max(size, 1)))

    def _answer_to_first(self):
        if self._first is None:
            self._begun = iter(self._datasets[0].prefetch(tf.data.AUTOTUNE))
            element = next(self._begun, None)
            if element is None:
                raise ValueError("The dataset is empty: there is nothing to ask the teacher about.")
            self._begun = itertools.chain([element], self._begun)
            self._first = self._answer(0, 0, element)
        return self._first

    def write(self):
        """Writes the shards that are this process's and not there yet.

        Returns:
            The number of batches of each view.
        """
        counts = []
        try:
            with shards.ShardWriter(self.folder, self._process[0], self.plan) as writer:
                for view, dataset in enumerate(self._datasets):
                    counts.append(self._write_view(view, dataset, writer))
        except _UnsoundError as error:
            written = len(list(self.folder.glob("view-*/*.json")))
            if not written:
                raise
            raise ValueError(
                f"{error} {self.folder} holds {written} whole shards of "
                f"dtype={self._asked.dtype!r} by now: for another dtype pass another path, or "
                "remove that folder."
            ) from None
        return counts

    def _write_view(self, view, dataset, writer):
        begun = self._begun if view == 0 else None
        self._begun = None
        elements = dataset.prefetch(tf.data.AUTOTUNE) if begun is None else begun
        batch, size = -1, self.plan["batches_per_shard"]
        skipped = skipping.Skipped(self.folder)
        for batch, element in enumerate(elements):
            name, rows = cache_format.shard_name(view, batch // size), 0
            if self._is_mine(batch // size) and not skipped.is_whole(name):
                components = self._answer(view, batch, element)
                writer.put(name, components)
                rows = len(components[records.FINGERPRINTS])
            else:
                skipped.add(name, lambda element=element: self._marks(element))
            self._shown.add(rows, writer.bytes)
        skipped.check()
        if batch < 0:
            raise ValueError(f"The dataset of view {view} is empty: there is nothing to ask about.")
        return batch + 1

    def _is_mine(self, shard):
        index, count = self._process
        return shard % count == index

    def _answer(self, view, batch, element):
        if view == batch == 0 and self._first is not None:
            return self._first
        components, sound = self._components(element)
        rows = {name: value.shape[:1] for name, value in components.items()}
        if len({tuple(shape) for shape in rows.values()}) > 1:
            raise ValueError(
                "Teacher outputs, taps and inputs must have one row for each row of the batch, in "
                f"their first dimension. Received: {rows}. Batch the dataset."
            )
        self._check_sound(f"The teacher's outputs for batch {batch} of view {view} hold", sound)
        return components

    def _check_sound(self, what, sound):
        has_no_nan, fits = sound.numpy()
        if not has_no_nan:
            raise _UnsoundError(f"{what} NaN. Look at the inputs of that batch.")
        if not fits:
            kept = self._asked.dtype
            others = "'bfloat16' or 'float32'" if kept == "float16" else "'float32' or None"
            raise _UnsoundError(
                f"{what} numbers too large for dtype={kept!r}. Pass dtype={others}."
            )


class _UnsoundError(ValueError):
    """What the teacher says cannot be kept."""
