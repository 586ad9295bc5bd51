"""Writes the shards of a cache, on a thread of its own."""

import pathlib
import queue
import threading

import tensorflow as tf

from keras_kd.cache import fingerprints, records
from keras_kd.cache import format as cache_format

# Batches that wait to be written: enough that the teacher never waits for the disk's hiccups.
_WAITING = 16


class ShardWriter:
    """Writes batches into shards; each is a whole file or none.

    A context manager: what is still open when an error leaves it is thrown away.

    Args:
        folder: The cache.
        owner: Number of the process, so that several do not touch each other's unfinished files.
    """

    def __init__(self, folder, owner):
        self._folder, self._owner = pathlib.Path(folder), owner
        self._queue = queue.Queue(_WAITING)
        self._error = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self):
        for leftover in self._folder.glob(f"view-*/partial-{self._owner}-*"):
            leftover.unlink()  # of a run that was killed
        self._thread.start()
        return self

    def __exit__(self, kind, *rest):
        self._queue.put(None if kind is None else ("abandon",))
        self._thread.join()
        if kind is None:
            self._raise()

    def put(self, name, components):
        """Adds a batch to the shard `name`; the one before it is finished when the name changes."""
        self._raise()
        self._queue.put((name, components))

    def _raise(self):
        if self._error is not None:
            raise self._error

    def _work(self):
        item = self._queue.get()
        while item is not None and len(item) == 2:
            try:
                item = self._shard(item)
            except Exception as error:  # noqa: BLE001 - raised on the caller's thread
                self._error = error
                break
        while item is not None and len(item) == 2:
            item = self._queue.get()  # so that the caller's `put` never waits for nobody

    def _shard(self, item):
        """Writes one shard, and returns the first item that is not of it."""
        name, rows, batches, digests = item[0], 0, 0, []
        path = self._folder / f"{name}.tfrecord"
        try:
            with cache_format.renamed(path, self._owner) as partial:
                with tf.io.TFRecordWriter(str(partial)) as writer:
                    while item is not None and item[0] == name:
                        writer.write(records.encode(item[1]))
                        prints = item[1][records.FINGERPRINTS].numpy()
                        rows, batches = rows + len(prints), batches + 1
                        digests.append(prints.tobytes())
                        item = self._queue.get()
                if item is not None and len(item) == 1:
                    raise _AbandonedError
                entry = {
                    "bytes": partial.stat().st_size,
                    "sha256": cache_format.sha256(partial),
                    "batches": batches,
                    "rows": rows,
                    "inputs": fingerprints.of_bytes(digests),
                }
            # After the shard itself: a note says that its shard is whole.
            cache_format.write_json(path.with_suffix(".json"), entry)
        except _AbandonedError:
            return item
        except (OSError, tf.errors.OpError) as error:
            raise OSError(
                f"{path} could not be written: {error} The shards before it are whole: make room "
                "on the disk and run keras_kd.cache_teacher again with the same arguments, and it "
                "goes on there."
            ) from error
        return item


class _AbandonedError(Exception):
    """The caller failed while a shard was open."""
