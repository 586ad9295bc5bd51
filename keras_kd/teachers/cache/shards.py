"""Runs the teacher batch by batch, and writes the shards that are not there yet."""

import contextlib
import functools
import itertools
import pathlib
import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from keras_kd._utils import files, locks, storage
from keras_kd.teachers.cache import fingerprints, schema, teacher_run
from keras_kd.teachers.cache import format as cache_format

# Bytes of outputs that wait to be written: enough that the teacher never waits for the disk's
# hiccups. One batch may be more than that.
_WAITING = 32 * 1024 * 1024
# The last item of the queue: everything was put, or the caller failed.
_END, _ABANDON = "end", "abandon"
# Bytes of a shard, about, where `batches_per_shard` is not given: a killed run loses one.
_SHARD_BYTES = 64 * 1024 * 1024


class ShardWriter:
    """Writes batches into shards, on a thread of its own; each is a whole file or none.

    A context manager: a shard that is open when an error leaves it is thrown away. Only one writer
    of an `owner` may run, and it must hold that one's lock.

    Args:
        folder: The cache.
        owner: A text, so that several do not touch each other's unfinished files.
        plan: The plan of the cache; `batches_per_shard` is the size of a full shard, or `None`
            where a shard ends with the next one's first batch.

    Attributes:
        bytes: How many have been written.
        written: The names of the shards that this writer has published.
    """

    def __init__(self, folder: storage.Place, owner: str, plan: dict) -> None:
        self._folder, self._owner, self._plan = folder, owner, plan
        self._queue: queue.Queue = queue.Queue()
        self._room = _Room(_WAITING)
        self._error: Exception | None = None
        self._has_ended = False  # the last item has been taken off the queue
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.bytes = 0
        self.written: list[str] = []

    def __enter__(self) -> "ShardWriter":
        if not storage.is_remote(self._folder):
            for leftover in self._folder.glob(f"view-*/partial-{self._owner}-*"):
                leftover.unlink()  # of a run that was killed
        self._thread.start()
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        self._queue.put(_END if kind is None else _ABANDON)
        self._thread.join()
        if kind is None:
            self._raise()

    def put(self, name: str, components: dict[str, tf.Tensor]) -> None:
        """Adds a batch to the shard `name`, which ends when it is full or another one begins."""
        self._raise()
        self._room.enter(bytes_of(components))
        self._queue.put((name, components))

    def _next(self) -> Any:
        item = self._queue.get()
        self._has_ended = item in (_END, _ABANDON)
        if not self._has_ended:
            self._room.leave(bytes_of(item[1]))
        return item

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            item = self._next()
            while item not in (_END, _ABANDON):
                item = self._write_shard(item)
        except Exception as error:  # noqa: BLE001 - raised on the caller's thread
            self._error = error
            while not self._has_ended:
                self._next()  # so that the caller's `put` does not wait for ever

    def _write_shard(self, item: Any) -> Any:
        """Writes one shard, and returns the first item that does not belong to it."""
        name = item[0]
        path = self._folder / f"{name}.tfrecord"
        try:
            with contextlib.ExitStack() as stack:
                with files.replace_atomically(path, self._owner) as partial:
                    item, note = self._write_records(partial, item)
                    # From here to the note no other run publishes: both come from one run.
                    stack.enter_context(locks.held(self._folder, cache_format.CACHE))
                    self._check_is_needed(name, note)
                # After the shard itself: where there is a note its shard is whole.
                cache_format.write_json(path.with_suffix(".json"), note)
            self.written.append(name)
        except _AbandonedError:
            return _ABANDON
        except _WrittenError:
            pass
        except (OSError, tf.errors.OpError) as error:
            raise OSError(
                f"{path} could not be written: {error} The shards before it are whole: make room "
                "on the disk and run keras_kd.cache_teacher (or the job) again with the same "
                "arguments, and it continues there."
            ) from error
        return self._next() if item is None else item

    def _check_is_needed(self, name: str, note: dict) -> None:
        """Raises if another run has published this shard, or has made the folder another cache."""
        if cache_format.read_plan(self._folder) != self._plan:
            raise cache_format.CacheError(
                f"{self._folder} became a cache of another kind while this one was written. "
                "Pass another folder."
            )
        found = note_of(self._folder, name)
        if found is None:
            return
        if found["inputs"] != note["inputs"]:
            raise other_inputs(self._folder, name)
        raise _WrittenError

    def _write_records(self, partial: pathlib.Path, item: Any) -> tuple[Any, dict]:
        """Writes a shard's records; returns the item after it, if one has come, and its note."""
        name, samples = item[0], 0
        digests: list[bytes] = []
        with tf.io.TFRecordWriter(str(partial)) as writer:
            while item is not None and item[0] == name:
                record = schema.encode(item[1])
                writer.write(record)
                self.bytes += len(record)
                prints = item[1][schema.FINGERPRINTS].numpy()
                samples += len(prints)
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
            "rows": samples,
            "inputs": fingerprints.of_bytes(digests),
        }


class _Room:
    """Lets items in while all of them together are small enough, and one item in any case."""

    def __init__(self, most: int) -> None:
        self._most, self._inside = most, 0
        self._changed = threading.Condition()

    def enter(self, size: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._inside or self._inside + size <= self._most)
            self._inside += size

    def leave(self, size: int) -> None:
        with self._changed:
            self._inside -= size
            self._changed.notify_all()


def bytes_of(components: dict[str, tf.Tensor]) -> int:
    """The size of a batch's components."""
    return sum(value.shape.num_elements() * value.dtype.size for value in components.values())


def note_of(folder: storage.Place, name: str) -> dict | None:
    """The note of a shard, or `None` where there is no shard of the size in its note.

    Raises:
        CacheError: The note is damaged.
    """
    found = cache_format.read_note(folder / f"{name}.json")
    if found is None:
        return None
    return found if storage.size(folder / f"{name}.tfrecord") == found["bytes"] else None


def other_inputs(folder: storage.Place, name: str) -> cache_format.CacheError:
    """The error for a shard that was written for other inputs."""
    return cache_format.CacheError(
        f"The inputs of shard {name} differ from those when it was written: the dataset is "
        "shuffled, augmented without a fixed seed, or has changed. Give it a fixed order, or "
        f"remove {folder} and write the cache again."
    )


class _AbandonedError(Exception):
    """The caller failed while a shard was open."""


class _WrittenError(Exception):
    """Another run has written the same shard meanwhile."""


class Run:
    """One call of `cache_teacher`: goes through the dataset once, and writes what is missing.

    Args:
        folder: The cache.
        outputs: The `teacher_run.TeacherRun`, traced.
        process: `(index, count)`.
        datasets: One for each view.
        shown: The `CacheProgress`.
    """

    def __init__(
        self,
        folder: storage.Place,
        outputs: teacher_run.TeacherRun,
        process: tuple[int, int],
        datasets: list[tf.data.Dataset],
        shown: Any,
    ) -> None:
        self.folder, self._outputs = folder, outputs
        self._process, self._datasets, self._shown = process, datasets, shown
        self.plan: dict[str, Any] = {}
        # The teacher runs on the first batch before anything is written, and not twice.
        self._begun: Iterable | None = None
        self._first: dict[str, tf.Tensor] | None = None

    def default_shard(self) -> int:
        """How many batches a shard has, by the size of the outputs for the first one.

        Raises:
            ValueError: There is no first batch, or the outputs for it cannot be stored.
        """
        rest = iter(self._datasets[0].prefetch(tf.data.AUTOTUNE))
        element = next(rest, None)
        if element is None:
            raise ValueError("The dataset is empty: there are no batches to run the teacher on.")
        self._begun = itertools.chain([element], rest)
        self._first = self._run(0, 0, element)
        return max(1, int(_SHARD_BYTES // max(bytes_of(self._first), 1)))

    def write(self) -> list[int]:
        """Writes the shards that are this process's and not there yet.

        Returns:
            The number of batches of each view.
        """
        counts = []
        try:
            with ShardWriter(self.folder, str(self._process[0]), self.plan) as writer:
                for view, dataset in enumerate(self._datasets):
                    counts.append(self._write_view(view, dataset, writer))
        except teacher_run.UnsoundError as error:
            written = sum(
                len(storage.names(self.folder / cache_format.view_name(view), ".json"))
                for view in range(len(self._datasets))
            )
            if not written:
                raise
            raise ValueError(
                f"{error} {self.folder} holds {written} whole shards of "
                f"dtype={self._outputs.dtype!r} by now: for another dtype pass another path, or "
                "remove that folder."
            ) from None
        return counts

    def _write_view(self, view: int, dataset: tf.data.Dataset, writer: ShardWriter) -> int:
        begun = self._begun if view == 0 else None
        self._begun = None
        elements = dataset.prefetch(tf.data.AUTOTUNE) if begun is None else begun
        batch, size = -1, self.plan["batches_per_shard"]
        skipped = Skipped(self.folder)
        for batch, element in enumerate(elements):
            name, samples = cache_format.shard_name(view, batch // size), 0
            if self._is_own(batch // size) and not skipped.is_whole(name):
                components = self._run(view, batch, element)
                writer.put(name, components)
                samples = len(components[schema.FINGERPRINTS])
            else:
                skipped.add(name, functools.partial(self._outputs.marks, element))
            self._shown.add(samples, writer.bytes)
        skipped.check()
        if batch < 0:
            raise ValueError(f"The dataset of view {view} is empty: it has no batches.")
        return batch + 1

    def _is_own(self, shard: int) -> bool:
        index, count = self._process
        return shard % count == index

    def _run(self, view: int, batch: int, element: Any) -> dict[str, tf.Tensor]:
        """The components of a batch."""
        if view == batch == 0 and self._first is not None:
            return self._first
        return self._outputs.components(element, f"batch {batch} of view {view}")


class Skipped:
    """Batches whose shards are there already; their inputs must be those of then.

    Args:
        folder: The cache.
    """

    def __init__(self, folder: storage.Place) -> None:
        self._folder = folder
        self._notes: dict[str, dict | None] = {}
        self._name: str | None = None
        self._prints: list[bytes] = []

    def is_whole(self, name: str) -> bool:
        """Whether the shard has been written, by an earlier run or by another process."""
        if name not in self._notes:
            self._notes[name] = note_of(self._folder, name)
        return self._notes[name] is not None

    def add(self, name: str, marks: Callable[[], dict[str, tf.Tensor]]) -> None:
        """Counts a batch of the shard `name`; `marks()` returns its fingerprints."""
        if name != self._name:
            self.check()
            self._name = name
        if self.is_whole(name):
            self._prints.append(marks()[schema.FINGERPRINTS].numpy().tobytes())

    def check(self) -> None:
        """Raises if a shard that was written before is one of other inputs."""
        prints, self._prints = self._prints, []
        note = None if self._name is None else self._notes.get(self._name)
        if prints and note is not None and fingerprints.of_bytes(prints) != note["inputs"]:
            raise other_inputs(self._folder, str(self._name))
