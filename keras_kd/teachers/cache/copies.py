"""`Copies`: shards of a cache in a store, on this machine while they are read."""

import atexit
import contextlib
import gc
import hashlib
import pathlib
import shutil
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd._utils import storage

# Shards that are fetched ahead of the one that is read.
_AHEAD = 2
_CHUNK = 1 << 20
# Seconds that the end of a program waits for what is being fetched.
_PATIENCE = 10.0
_all_copies: "weakref.WeakSet[Copies]" = weakref.WeakSet()


@atexit.register
def _end_reading() -> None:
    """Ends what the threads of pipelines read, while Python still runs.

    A thread that comes for Python after its end waits for ever, and whoever destroys its iterator
    waits for the thread: the program would not end. So it was where `fit` had raised.
    """
    # Iterators that only the traceback of an error holds, which has been printed by now.
    for name in ("last_exc", "last_value", "last_traceback"):
        if hasattr(sys, name):
            setattr(sys, name, None)
    gc.collect()
    for copies in list(_all_copies):
        copies.close()


class Copies:
    """Fetches shards when they are read, and compares each with its checksum.

    A copy is kept for the next epoch while there is room; the one that was read longest ago goes
    first.

    Args:
        folder: The cache, a `storage.Place` of a store.
        local: A folder of this machine for the copies, which are found there again. It belongs to
            one reader at a time where `most_bytes` is given. `None`: a temporary one, which goes
            with this object.
        most_bytes: How many bytes of copies are kept; `None`: all.

    Attributes:
        local: The folder with the copies.
        fetched_bytes: What has been fetched until now.
    """

    def __init__(
        self, folder: Any, local: pathlib.Path | None = None, most_bytes: int | None = None
    ) -> None:
        self._folder, self._most = folder, most_bytes
        if local is None:
            local = pathlib.Path(tempfile.mkdtemp(prefix="keras_kd-"))
            weakref.finalize(self, shutil.rmtree, local, ignore_errors=True)
        self.local = local
        self.local.mkdir(parents=True, exist_ok=True)
        self.fetched_bytes = 0
        self._sizes: dict[pathlib.Path, int] = {}  # of copies, the least lately read first
        self._guard = threading.Lock()
        self._reads, self._is_closed = 0, False
        _all_copies.add(self)
        self._turns: dict[pathlib.Path, threading.Lock] = {}

    def __str__(self) -> str:
        return str(self._folder)

    def records_of(self, shards: list[dict]) -> tf.data.Dataset:
        """The records of shards in order; each shard is fetched, and read whole, a little ahead."""
        fields = ("name", "sha256", "bytes", "batches")
        columns = {field: [shard[field] for shard in shards] for field in fields}
        data = tf.data.Dataset.from_tensor_slices(columns)
        read = data.map(self._records, num_parallel_calls=_AHEAD, deterministic=True)
        return read.prefetch(1).flat_map(tf.data.Dataset.from_tensor_slices)

    def _records(self, shard: dict[str, tf.Tensor]) -> tf.Tensor:
        def read(name: bytes, sha256: bytes, size: int, batches: int) -> np.ndarray:
            records = self.read(name.decode(), sha256.decode(), int(size))
            if len(records) != batches:
                raise OSError(
                    f"{self._folder / name.decode()} has {len(records)} records, and should have "
                    f"{batches}."
                )
            return np.array(records, object)

        given = [shard[field] for field in ("name", "sha256", "bytes", "batches")]
        records = tf.numpy_function(read, given, tf.string)
        records.set_shape([None])
        return records

    def read(self, name: str, sha256: str, size: int) -> list[bytes]:
        """The records of a shard, which is fetched if it is not there.

        Args:
            name: That of the shard, without its ending.
            sha256: Its checksum.
            size: Its bytes.

        Raises:
            FileNotFoundError: The shard is missing.
            OSError: It could not be fetched, or is not what was written.
        """
        # The checksum is in the name: another cache in the same place has other copies.
        path = self.local / f"{name.replace('/', '-')}-{sha256[:16]}.tfrecord"
        with self._reading(), self._turn(path):
            if not path.exists() or (path not in self._sizes and _wrong(path, sha256, size)):
                source = self._folder / f"{name}.tfrecord"
                storage.download(source, path, lambda file: _wrong(file, sha256, size))
                self.fetched_bytes += size
            records = [each.numpy() for each in tf.data.TFRecordDataset(str(path))]
        with self._guard:
            self._sizes.pop(path, None)
            self._sizes[path] = size
            self._make_room()
        return records

    def close(self) -> None:
        """Lets no further shard be read, and waits for those that are being read."""
        self._is_closed = True
        deadline = time.monotonic() + _PATIENCE
        while self._reads and time.monotonic() < deadline:
            time.sleep(0.01)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._guard:
            if self._is_closed:
                raise OSError(f"The program ends: no shard of {self._folder} is read any more.")
            self._reads += 1
        try:
            yield
        finally:
            with self._guard:
                self._reads -= 1

    def _turn(self, path: pathlib.Path) -> threading.Lock:
        with self._guard:
            return self._turns.setdefault(path, threading.Lock())

    def _make_room(self) -> None:
        """Removes the copies that were read longest ago; the guard is held."""
        for path in list(self._sizes):
            if self._most is None or sum(self._sizes.values()) <= self._most:
                return
            turn = self._turns[path]
            if turn.acquire(blocking=False):  # else it is being read
                path.unlink(missing_ok=True)
                del self._sizes[path]
                turn.release()


def _wrong(path: pathlib.Path, sha256: str, size: int) -> str | None:
    """What is wrong with a copy, or `None`."""
    found = path.stat().st_size
    if found != size:
        return f"has {found} bytes, and had {size} when the cache was finished."
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != sha256:
        return "is not what was written: its checksum differs."
    return None
