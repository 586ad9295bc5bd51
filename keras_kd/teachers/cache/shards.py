"""Asks the teacher batch by batch, and writes what is not there yet, in shards."""

import contextlib
import itertools
import pathlib
import queue
import threading

import numpy as np
import tensorflow as tf

from keras_kd._utils import files
from keras_kd.teachers import protocol
from keras_kd.teachers.cache import arguments, fingerprints, schema
from keras_kd.teachers.cache import format as cache_format

# Writes the shards of a cache, on a thread of its own.


# Bytes of answers that wait to be written: enough that the teacher never waits for the disk's
# hiccups. One batch may be more than that.
_WAITING = 32 * 1024 * 1024
# What the caller says last: all is there, or it failed.
_END, _ABANDON = "end", "abandon"


class ShardWriter:
    """Writes batches into shards; each is a whole file or none.

    A context manager: what is still open when an error leaves it is thrown away. Only one writer
    of an `owner` may be at work, which holds that number's lock.

    Args:
        folder: The cache.
        owner: Number of the process, so that several do not touch each other's unfinished files.
        plan: What is written; `batches_per_shard` says how many batches a full shard has.

    Attributes:
        bytes: How many have been written.
    """

    def __init__(self, folder, owner, plan):
        self._folder, self._owner, self._plan = pathlib.Path(folder), owner, plan
        self._queue, self._room = queue.Queue(), _Room(_WAITING)
        self._error = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.bytes = 0

    def __enter__(self):
        for leftover in self._folder.glob(f"view-*/partial-{self._owner}-*"):
            leftover.unlink()  # of a run that was killed
        self._thread.start()
        return self

    def __exit__(self, kind, *rest):
        self._queue.put(_END if kind is None else _ABANDON)
        self._thread.join()
        if kind is None:
            self._raise()

    def put(self, name, components):
        """Adds a batch to the shard `name`, which ends when it is full or another one begins."""
        self._raise()
        self._room.enter(_bytes_of(components))
        self._queue.put((name, components))

    def _next(self):
        item = self._queue.get()
        if item not in (_END, _ABANDON):
            self._room.leave(_bytes_of(item[1]))
        return item

    def _raise(self):
        if self._error is not None:
            raise self._error

    def _work(self):
        try:
            item = self._next()
            while item not in (_END, _ABANDON):
                item = self._shard(item)
        except Exception as error:  # noqa: BLE001 - raised on the caller's thread
            self._error = error
            while self._next() not in (_END, _ABANDON):
                pass  # so that the caller's `put` never waits for nobody

    def _shard(self, item):
        """Writes one shard, and returns the first item that is not of it."""
        path = self._folder / f"{item[0]}.tfrecord"
        try:
            with contextlib.ExitStack() as stack:
                with files.renamed(path, self._owner) as partial:
                    item, entry = self._records(partial, item)
                    # From here to the note nobody else publishes: both are of one run.
                    stack.enter_context(cache_format.held(self._folder, cache_format.CACHE))
                    self._check_is_wanted(path, entry)
                # After the shard itself: a note says that its shard is whole.
                cache_format.write_json(path.with_suffix(".json"), entry)
        except _AbandonedError:
            return _ABANDON
        except _WrittenError:
            pass
        except (OSError, tf.errors.OpError) as error:
            raise OSError(
                f"{path} could not be written: {error} The shards before it are whole: make room "
                "on the disk and run keras_kd.cache_teacher again with the same arguments, and it "
                "goes on there."
            ) from error
        return self._next() if item is None else item

    def _check_is_wanted(self, path, entry):
        """Raises if another run has published this shard, or has made the folder another cache."""
        if cache_format.read_plan(self._folder) != self._plan:
            raise cache_format.CacheError(
                f"{self._folder} has become a cache of another kind while this one was written. "
                "Pass another folder."
            )
        found = note_of(self._folder, path.relative_to(self._folder).with_suffix(""))
        if found is None:
            return
        if found["inputs"] != entry["inputs"]:
            raise other_inputs(self._folder, path.relative_to(self._folder).with_suffix(""))
        raise _WrittenError

    def _records(self, partial, item):
        """Writes a shard's records; returns the item after it, if one has come, and its note."""
        name, rows, digests = item[0], 0, []
        with tf.io.TFRecordWriter(str(partial)) as writer:
            while item is not None and item[0] == name:
                record = schema.encode(item[1])
                writer.write(record)
                self.bytes += len(record)
                prints = item[1][schema.FINGERPRINTS].numpy()
                rows += len(prints)
                digests.append(prints.tobytes())
                # A full shard ends without a look at what comes next.
                is_full = len(digests) == self._plan["batches_per_shard"]
                item = None if is_full else self._next()
                if item is _ABANDON:
                    raise _AbandonedError
                if item is _END:
                    break
        return item, {
            "bytes": partial.stat().st_size,
            "sha256": cache_format.sha256(partial),
            "batches": len(digests),
            "rows": rows,
            "inputs": fingerprints.of_bytes(digests),
        }


class _Room:
    """Lets items in while all of them together are small enough, and one item in any case."""

    def __init__(self, most):
        self._most, self._inside = most, 0
        self._changed = threading.Condition()

    def enter(self, size):
        with self._changed:
            self._changed.wait_for(lambda: not self._inside or self._inside + size <= self._most)
            self._inside += size

    def leave(self, size):
        with self._changed:
            self._inside -= size
            self._changed.notify_all()


def _bytes_of(components):
    return sum(value.shape.num_elements() * value.dtype.size for value in components.values())


def note_of(folder, name):
    """The note of a shard, or `None` where the shard is not there as its note says.

    Raises:
        CacheError: The note is damaged.
    """
    note, shard = (pathlib.Path(folder) / f"{name}.{end}" for end in ("json", "tfrecord"))
    if not note.exists():
        return None
    found = cache_format.read_note(note)
    is_there = shard.is_file() and shard.stat().st_size == found["bytes"]
    return found if is_there else None


def other_inputs(folder, name):
    """The error for a shard that was written of other inputs."""
    return cache_format.CacheError(
        f"The inputs of shard {name} are others than when it was written: the dataset is shuffled, "
        "augmented without a fixed seed, or has changed. Give it a fixed order, or remove "
        f"{folder} and write the cache again."
    )


class _AbandonedError(Exception):
    """The caller failed while a shard was open."""


class _WrittenError(Exception):
    """Another run has written the same shard meanwhile."""


# One run of `cache_teacher`: asks the teacher batch by batch, and writes what is not there yet.


# About what a shard holds where `batches_per_shard` is not given: it is lost if the run is killed.
_SHARD_BYTES = 64 * 1024 * 1024


class Run:
    """One call of `cache_teacher`.

    Args:
        folder: The cache.
        asked: The `contents.Asked`.
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
        arguments.check_rows(self._asked.source, protocol.inputs_of(element))
        traced = tf.function(self._traced, autograph=False)
        self._components = traced.get_concrete_function(element)
        self.specs = self._components.structured_outputs[0]
        if any(spec.shape.rank in (None, 0) for spec in self.specs.values()):
            raise ValueError(
                "Teacher outputs, taps and keys must have one row for each row of the batch, and a "
                f"known rank. Received: { ({n: s.shape for n, s in self.specs.items()}) }"
            )

    def _traced(self, element):
        inputs = protocol.inputs_of(element)
        kept, sound = self._asked(inputs)
        return {**kept, **self._marks(element)}, sound

    def _marks(self, element):
        marks = {schema.FINGERPRINTS: fingerprints.of_rows(protocol.inputs_of(element))}
        if self._key is not None:
            marks[schema.KEYS] = fingerprints.of_rows(self._key(*protocol.parts_of(element)))
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
            with ShardWriter(self.folder, self._process[0], self.plan) as writer:
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
        skipped = Skipped(self.folder)
        for batch, element in enumerate(elements):
            name, rows = cache_format.shard_name(view, batch // size), 0
            if self._is_mine(batch // size) and not skipped.is_whole(name):
                components = self._answer(view, batch, element)
                writer.put(name, components)
                rows = len(components[schema.FINGERPRINTS])
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


# `Skipped`: batches of a resumed run that need not be asked about again.


class Skipped:
    """Batches that need not be asked about; their inputs must be those that were.

    Args:
        folder: The cache.
    """

    def __init__(self, folder):
        self._folder, self._notes = pathlib.Path(folder), {}
        self._name, self._prints = None, []

    def is_whole(self, name):
        """Whether the shard has been written, by an earlier run or by another process."""
        if name not in self._notes:
            self._notes[name] = note_of(self._folder, name)
        return self._notes[name] is not None

    def add(self, name, marks):
        """Notes a batch of the shard `name`; `marks()` gives its fingerprints."""
        if name != self._name:
            self.check()
            self._name = name
        if self.is_whole(name):
            self._prints.append(marks()[schema.FINGERPRINTS].numpy().tobytes())

    def check(self):
        """Raises if a shard that was written before is one of other inputs."""
        prints, self._prints = self._prints, []
        if prints and fingerprints.of_bytes(prints) != self._notes[self._name]["inputs"]:
            raise other_inputs(self._folder, self._name)
