"""`Copies`: shards of a cache in a store, on this machine while they are read."""

import hashlib
import pathlib
import tempfile
import threading
from typing import Any

import tensorflow as tf

from keras_kd._utils import storage

# Shards that are fetched ahead of the one that is read.
_AHEAD = 2
_CHUNK = 1 << 20


class Copies:
    """Fetches shards when they are read, and compares each with its checksum.

    A copy is kept for the next epoch while there is room; the one that was read longest ago goes
    first. The file of a shard that is being read may go too: whoever has it open reads on.

    Args:
        folder: The cache, a `storage.Place` of a store.
        local: A folder of this machine for the copies, which are found there again; `None`: a
            temporary one, which goes with this object.
        most_bytes: How many bytes of copies are kept, beside the shards that are being read;
            `None`: all.

    Attributes:
        local: The folder with the copies.
        fetched_bytes: What has been fetched until now.
    """

    def __init__(
        self, folder: Any, local: pathlib.Path | None = None, most_bytes: int | None = None
    ) -> None:
        self._folder, self._most = folder, most_bytes
        if local is None:
            self._temporary = tempfile.TemporaryDirectory()  # removed with this object
            local = pathlib.Path(self._temporary.name)
        self.local = local
        self.local.mkdir(parents=True, exist_ok=True)
        self.fetched_bytes = 0
        self._sizes: dict[pathlib.Path, int] = {}  # of copies, the least lately read first
        self._guard = threading.Lock()
        self._turns: dict[pathlib.Path, threading.Lock] = {}

    def __str__(self) -> str:
        return str(self._folder)

    def files_of(self, shards: list[dict]) -> tf.data.Dataset:
        """The names of the copies of shards, in order; each is fetched a little ahead."""
        fields = ("name", "sha256", "bytes")
        columns = {field: [shard[field] for shard in shards] for field in fields}
        data = tf.data.Dataset.from_tensor_slices(columns)
        fetched = data.map(self._fetched, num_parallel_calls=_AHEAD, deterministic=True)
        return fetched.prefetch(1)

    def _fetched(self, shard: dict[str, tf.Tensor]) -> tf.Tensor:
        def fetch(name: bytes, sha256: bytes, size: int) -> bytes:
            return str(self.fetch(name.decode(), sha256.decode(), int(size))).encode()

        given = [shard["name"], shard["sha256"], shard["bytes"]]
        name = tf.numpy_function(fetch, given, tf.string)
        name.set_shape([])
        return name

    def fetch(self, name: str, sha256: str, size: int) -> pathlib.Path:
        """The copy of a shard, fetched if it is not there.

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
        with self._turn(path):
            if not path.exists() or (path not in self._sizes and _wrong(path, sha256, size)):
                source = self._folder / f"{name}.tfrecord"
                storage.download(source, path, lambda file: _wrong(file, sha256, size))
                self.fetched_bytes += size
            with self._guard:
                self._sizes.pop(path, None)
                self._sizes[path] = size
                self._make_room(path)
        return path

    def _turn(self, path: pathlib.Path) -> threading.Lock:
        with self._guard:
            return self._turns.setdefault(path, threading.Lock())

    def _make_room(self, latest: pathlib.Path) -> None:
        if self._most is None:
            return
        # Those that were fetched ahead have not been opened yet.
        kept = list(self._sizes)[-(_AHEAD + 2) :]
        for path in list(self._sizes):
            if sum(self._sizes.values()) <= self._most or path in kept or path == latest:
                return
            path.unlink(missing_ok=True)
            del self._sizes[path]


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
