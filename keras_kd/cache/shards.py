"""Writes the shards of a cache, on a thread of its own."""

import contextlib
import pathlib
import queue
import threading

import tensorflow as tf

from keras_kd import files
from keras_kd.cache import fingerprints, locks, records
from keras_kd.cache import format as cache_format

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
                    stack.enter_context(locks.held(self._folder, locks.CACHE))
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
                record = records.encode(item[1])
                writer.write(record)
                self.bytes += len(record)
                prints = item[1][records.FINGERPRINTS].numpy()
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
