"""Writes the shards of a cache, on a thread of its own."""

import pathlib
import queue
import threading

import tensorflow as tf

from keras_kd.cache import fingerprints, records
from keras_kd.cache import format as cache_format

# Batches that wait to be written: enough that the teacher never waits for the disk's hiccups.
_WAITING = 16
# What the caller says last: all is there, or it failed.
_END, _ABANDON = "end", "abandon"


class ShardWriter:
    """Writes batches into shards; each is a whole file or none.

    A context manager: what is still open when an error leaves it is thrown away.

    Args:
        folder: The cache.
        owner: Number of the process, so that several do not touch each other's unfinished files.
        size: Batches of a full shard.
    """

    def __init__(self, folder, owner, size):
        self._folder, self._owner, self._size = pathlib.Path(folder), owner, size
        self._queue = queue.Queue(_WAITING)
        self._error = None
        self._thread = threading.Thread(target=self._work, daemon=True)

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
        self._queue.put((name, components))

    def _raise(self):
        if self._error is not None:
            raise self._error

    def _work(self):
        item = self._queue.get()
        try:
            while item not in (_END, _ABANDON):
                item = self._shard(item)
        except Exception as error:  # noqa: BLE001 - raised on the caller's thread
            self._error = error
            while self._queue.get() not in (_END, _ABANDON):
                pass  # so that the caller's `put` never waits for nobody

    def _shard(self, item):
        """Writes one shard, and returns the first item that is not of it."""
        path = self._folder / f"{item[0]}.tfrecord"
        try:
            with cache_format.renamed(path, self._owner) as partial:
                item, entry = self._records(partial, item)
            # After the shard itself: a note says that its shard is whole.
            cache_format.write_json(path.with_suffix(".json"), entry)
        except _AbandonedError:
            return _ABANDON
        except (OSError, tf.errors.OpError) as error:
            raise OSError(
                f"{path} could not be written: {error} The shards before it are whole: make room "
                "on the disk and run keras_kd.cache_teacher again with the same arguments, and it "
                "goes on there."
            ) from error
        return self._queue.get() if item is None else item

    def _records(self, partial, item):
        """Writes a shard's records; returns the item after it, if one has come, and its note."""
        name, rows, digests = item[0], 0, []
        with tf.io.TFRecordWriter(str(partial)) as writer:
            while item is not None and item[0] == name:
                writer.write(records.encode(item[1]))
                prints = item[1][records.FINGERPRINTS].numpy()
                rows += len(prints)
                digests.append(prints.tobytes())
                # A full shard ends without a look at what comes next.
                item = self._queue.get() if len(digests) < self._size else None
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


class _AbandonedError(Exception):
    """The caller failed while a shard was open."""
