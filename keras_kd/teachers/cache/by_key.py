"""`Index`: finds samples of a cache by a key, in any order."""

import hashlib
import math
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd._utils import files, locks
from keras_kd.teachers.cache import copies, schema
from keras_kd.teachers.cache import format as cache_format

# Written last: the checksums of the arrays.
_DIGESTS = "digests.json"


class Index:
    """One view's samples, found by key: flat arrays on disk, read only where they are needed.

    The arrays are derived from the shards: where they are not what was written they are made again.

    Args:
        source: The cache: its path, or its `copies.Copies`, beside which the index is made then.
        manifest: Its manifest, which was checked.
        view: Number of the view.
        by_inputs: Whether the fingerprints of the inputs are the keys.
        thorough: Whether the arrays are compared with their checksums; else their sizes.

    Raises:
        CacheError: Two samples have one key but different inputs; or the shards do not hold the
            samples of the manifest.
        ValueError: Samples have different shapes, such as sequences of different lengths, or are
            texts.
    """

    def __init__(
        self,
        source: Any,
        manifest: dict,
        view: int,
        by_inputs: bool,
        thorough: bool = True,
    ) -> None:
        self._specs = schema.from_json(manifest["components"])
        for name, spec in self._specs.items():
            if None in spec.shape[1:] or spec.dtype == tf.string:
                raise ValueError(
                    "Samples can be found by key only where all have one shape, of numbers. "
                    f"{name!r} has the shape {tuple(spec.shape)} and the type {spec.dtype.name}. "
                    "Pad the inputs to one length, or load the cache without `key`."
                )
        self._arrays = _arrays(source, manifest, view, self._specs, thorough)
        keys = self._arrays[schema.FINGERPRINTS if by_inputs else schema.KEYS]
        self._order = np.argsort(keys, kind="stable")
        self._sorted = np.asarray(keys)[self._order]
        if not by_inputs:
            self._check_unique()

    def _check_unique(self) -> None:
        prints = np.asarray(self._arrays[schema.FINGERPRINTS])[self._order]
        same = (self._sorted[1:] == self._sorted[:-1]) & (prints[1:] != prints[:-1])
        if same.any():
            first = int(self._order[:-1][same][0])
            raise cache_format.CacheError(
                f"Keys of the cache are not unique: sample {first} and another one have the same "
                "key but different inputs. Write the cache with a `key` that tells samples apart."
            )

    def lookup(self, keys: tf.Tensor, prints: tf.Tensor | None) -> dict[str, tf.Tensor]:
        """The components of samples, in TensorFlow operations.

        Args:
            keys: Fingerprints of the keys, `[batch]`, int64.
            prints: Fingerprints of the inputs, which must be those of the cache; `None`: any.
        """
        names = [n for n in self._specs if n not in (schema.FINGERPRINTS, schema.KEYS)]
        bits = [_bits(self._specs[name].dtype) for name in names]

        def find(keys: np.ndarray, prints: np.ndarray) -> list[np.ndarray]:
            positions = self._positions(keys)
            if prints.size:
                self._check_inputs(positions, prints)
            return [np.asarray(self._arrays[name][positions]) for name in names]

        given = tf.zeros([0], tf.int64) if prints is None else prints
        found = tf.numpy_function(find, [keys, given], bits, stateful=False)
        return {n: self._typed(n, value) for n, value in zip(names, found, strict=True)}

    def _typed(self, name: str, value: tf.Tensor) -> tf.Tensor:
        spec = self._specs[name]
        value.set_shape(spec.shape)
        return value if value.dtype == spec.dtype else tf.bitcast(value, spec.dtype)

    def _positions(self, keys: np.ndarray) -> np.ndarray:
        at = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        missing = np.flatnonzero(self._sorted[at] != keys)
        if missing.size:
            raise ValueError(
                f"keras_kd: sample {missing[0]} of a batch is none that the cached teacher saw: "
                f"its key is not in the cache ({missing.size} of {len(keys)} samples are not)."
            )
        return self._order[at]

    def _check_inputs(self, positions: np.ndarray, prints: np.ndarray) -> None:
        differs = np.flatnonzero(self._arrays[schema.FINGERPRINTS][positions] != prints)
        if differs.size:
            raise ValueError(
                f"keras_kd: the inputs of sample {differs[0]} of a batch differ from those that "
                "the cached teacher saw for its key. Pass check_inputs=False if they may, as with "
                "augmentation after the teacher."
            )


def _bits(dtype: tf.DType) -> tf.DType:
    # NumPy has no bfloat16 of its own: the bits travel as integers.
    return tf.uint16 if dtype == tf.bfloat16 else dtype


def _arrays(
    source: Any, manifest: dict, view: int, specs: dict, thorough: bool
) -> dict[str, np.ndarray]:
    """A view's flat arrays by component, mapped into memory; made where they are not whole."""
    folder = source.local if isinstance(source, copies.Copies) else source
    root = folder / f"by-key-{cache_format.identity(manifest)}"
    at = root / f"view-{view:03d}"
    samples = sum(shard["rows"] for shard in manifest["shards"][view])
    wanted = {
        name: _ArrayFile(_bits(spec.dtype).as_numpy_dtype, (samples, *spec.shape[1:]))
        for name, spec in specs.items()
    }
    with locks.held(folder, cache_format.CACHE):
        arrays = _open(at, wanted, thorough)
        if arrays is not None:
            return arrays
        _clean(folder, root)
        _publish(_make(source, manifest, view, at, wanted), at)
        arrays = _open(at, wanted, thorough)
    if arrays is None:
        raise cache_format.CacheError(f"{at} changed while it was made. Load the cache again.")
    return arrays


class _ArrayFile:
    """The type and shape of the array in a file.

    Args:
        dtype: The NumPy type.
        shape: The shape.
    """

    def __init__(self, dtype: Any, shape: tuple[int, ...]) -> None:
        self.dtype, self.shape = np.dtype(dtype), shape
        self.bytes = math.prod(shape) * self.dtype.itemsize

    def open(self, path: pathlib.Path, mode: str = "rb") -> np.ndarray | None:
        """The array in a file, or `None` where the file is missing or has another size."""
        if not self.bytes:  # cannot be mapped
            return np.empty(self.shape, self.dtype)
        try:
            with path.open(mode) as file:
                if os.fstat(file.fileno()).st_size != self.bytes:
                    return None
                if mode == "rb":
                    return np.memmap(file, self.dtype, "r", shape=self.shape)
                return np.memmap(file, self.dtype, "r+", shape=self.shape)
        except FileNotFoundError:
            return None


def _open(
    at: pathlib.Path, wanted: dict[str, _ArrayFile], thorough: bool
) -> dict[str, np.ndarray] | None:
    """The arrays of a finished index, or `None` where they are not what was written."""
    opened = {name: each.open(at / _file(name)) for name, each in wanted.items()}
    arrays = {name: array for name, array in opened.items() if array is not None}
    if len(arrays) < len(wanted) or not (at / _DIGESTS).exists():
        return None
    if thorough:
        fields = {_file(name): schema.DIGEST for name in wanted}
        try:
            digests = cache_format.read_sealed(at / _DIGESTS, _checker(fields))
        except cache_format.CacheError:
            return None  # derived data: it is made again
        # Through the mapping that is read afterwards, so that both see the same bytes.
        if any(_digest(array) != digests[_file(name)] for name, array in arrays.items()):
            return None
    return arrays


def _checker(fields: dict[str, schema.Rule]) -> Callable[[Any], dict]:
    def check(value: Any) -> dict:
        schema.check_fields(value, fields)
        return value

    return check


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()


def _file(name: str) -> str:
    return name.replace("/", ".") + ".bin"


def _clean(folder: pathlib.Path, root: pathlib.Path) -> None:
    """Removes leftovers of killed runs and of earlier caches in the folder; the lock is held."""
    for leftover in folder.glob("by-key-*"):
        if leftover != root:
            shutil.rmtree(leftover)
    for leftover in root.glob("partial-*"):
        shutil.rmtree(leftover)


def _make(
    source: Any,
    manifest: dict,
    view: int,
    at: pathlib.Path,
    wanted: dict[str, _ArrayFile],
) -> pathlib.Path:
    """A folder with the arrays, filled and synced, under a name of its own."""
    at.parent.mkdir(exist_ok=True)
    made = at.with_name(f"partial-{secrets.token_hex(8)}-{at.name}")
    made.mkdir()
    try:
        arrays: dict[str, Any] = {}
        for name, each in wanted.items():
            with (made / _file(name)).open("wb") as file:
                file.truncate(each.bytes)
            arrays[name] = each.open(made / _file(name), "r+b")
        _fill(arrays, source, manifest, view)
        for name, array in arrays.items():
            if array.size:
                array.flush()
            files.sync(made / _file(name))
        digests = {_file(name): _digest(array) for name, array in arrays.items()}
        cache_format.write_json(made / _DIGESTS, digests)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return made


def _publish(made: pathlib.Path, at: pathlib.Path) -> None:
    if at.exists():
        shutil.rmtree(at)
    made.rename(at)
    files.sync(at.parent)
    files.sync(at.parent.parent)


def _fill(arrays: dict[str, np.ndarray], source: Any, manifest: dict, view: int) -> None:
    done, samples = 0, len(arrays[schema.FINGERPRINTS])
    for batch in schema.stored_batches(source, manifest, manifest["shards"][view]):
        count = len(batch[schema.FINGERPRINTS])
        if done + count > samples or any(len(value) != count for value in batch.values()):
            raise _wrong_samples(source, view, samples)
        for name, value in batch.items():
            array = value.numpy()
            to = arrays[name]
            to[done : done + count] = array.view(to.dtype) if array.dtype != to.dtype else array
        done += count
    if done != samples:
        raise _wrong_samples(source, view, samples)


def _wrong_samples(folder: Any, view: int, samples: int) -> cache_format.CacheError:
    return cache_format.CacheError(
        f"The shards of view {view} of {folder} do not hold the {samples} samples of the manifest. "
        "Restore the cache from a copy, or write it again."
    )
