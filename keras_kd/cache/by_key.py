"""Finds rows of a cache by a key, in any order."""

import os
import pathlib
import shutil

import numpy as np
import tensorflow as tf

from keras_kd.cache import format as cache_format
from keras_kd.cache import records


class Index:
    """One view's rows, found by key: flat arrays on disk, of which only what is asked for is read.

    Args:
        folder: The cache.
        manifest: Its manifest.
        view: Number of the view.
        by_inputs: Whether the fingerprints of the inputs are the keys.

    Raises:
        CacheError: Two rows have one key but different inputs.
        ValueError: Rows have different shapes, such as sequences of different lengths.
    """

    def __init__(self, folder, manifest, view, by_inputs):
        self._specs = records.from_json(manifest["components"])
        for name, spec in self._specs.items():
            if None in spec.shape[1:]:
                raise ValueError(
                    f"Rows can be found by key only where all have one shape. {name!r} has the "
                    f"shape {tuple(spec.shape)}. Pad the inputs to one length, or load the cache "
                    "without `key`."
                )
        at = _arrays(pathlib.Path(folder), manifest, view, self._specs)
        self._arrays = {n: np.load(at / _file(n), mmap_mode="r") for n in self._specs}
        keys = self._arrays[records.FINGERPRINTS if by_inputs else records.KEYS]
        self._order = np.argsort(keys, kind="stable")
        self._sorted = np.asarray(keys)[self._order]
        if not by_inputs:
            self._check_unique()

    def _check_unique(self):
        prints = np.asarray(self._arrays[records.FINGERPRINTS])[self._order]
        same = (self._sorted[1:] == self._sorted[:-1]) & (prints[1:] != prints[:-1])
        if same.any():
            first = int(self._order[:-1][same][0])
            raise cache_format.CacheError(
                f"Keys of the cache are not unique: row {first} and another one have the same key "
                "but different inputs. Write the cache with a `key` that tells rows apart."
            )

    def lookup(self, keys, prints):
        """The components of rows, in TensorFlow operations.

        Args:
            keys: Fingerprints of the keys, `[rows]`, int64.
            prints: Fingerprints of the inputs, which must be those of then; `None`: any.
        """
        names = [n for n in self._specs if n not in (records.FINGERPRINTS, records.KEYS)]
        bits = [_bits(self._specs[name].dtype) for name in names]

        def find(keys, prints):
            rows = self._rows(keys)
            if prints.size:
                self._check_inputs(rows, prints)
            return [np.asarray(self._arrays[name][rows]) for name in names]

        given = tf.zeros([0], tf.int64) if prints is None else prints
        found = tf.numpy_function(find, [keys, given], bits, stateful=False)
        return {n: self._typed(n, value) for n, value in zip(names, found, strict=True)}

    def _typed(self, name, value):
        spec = self._specs[name]
        value.set_shape(spec.shape)
        return value if value.dtype == spec.dtype else tf.bitcast(value, spec.dtype)

    def _rows(self, keys):
        at = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        missing = np.flatnonzero(self._sorted[at] != keys)
        if missing.size:
            raise ValueError(
                f"keras_kd: row {missing[0]} of a batch is none that the cached teacher saw: its "
                f"key is not in the cache ({missing.size} of {len(keys)} rows are not)."
            )
        return self._order[at]

    def _check_inputs(self, rows, prints):
        differs = np.flatnonzero(self._arrays[records.FINGERPRINTS][rows] != prints)
        if differs.size:
            raise ValueError(
                f"keras_kd: the inputs of row {differs[0]} of a batch differ from those that the "
                "cached teacher saw for its key. Pass check_inputs=False if they may, as with "
                "augmentation after the teacher was asked."
            )


def _bits(dtype):
    # NumPy has no bfloat16 of its own: the bits travel as integers.
    return tf.uint16 if dtype == tf.bfloat16 else dtype


def _file(name):
    return name.replace("/", ".") + ".npy"


def _arrays(folder, manifest, view, specs):
    """The folder of a view's flat arrays, which is made where it is missing."""
    at = folder / f"by-key-{cache_format.identity(manifest)}" / f"view-{view:03d}"
    if at.exists():
        return at
    partial = at.with_name(f"partial-{os.getpid()}-{at.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    rows = sum(shard["rows"] for shard in manifest["shards"][view])
    arrays = {
        name: np.lib.format.open_memmap(
            partial / _file(name),
            mode="w+",
            dtype=_bits(spec.dtype).as_numpy_dtype,
            shape=(rows, *spec.shape[1:]),
        )
        for name, spec in specs.items()
    }
    _fill(arrays, folder, manifest, view)
    try:
        partial.rename(at)
    except OSError:
        if not at.exists():  # else another process was first
            raise
        shutil.rmtree(partial)
    return at


def _fill(arrays, folder, manifest, view):
    from keras_kd.cache import reading

    done = 0
    for batch in reading.stored(folder, manifest, view):
        for name, value in batch.items():
            array = value.numpy()
            to = arrays[name]
            to[done : done + len(array)] = (
                array.view(to.dtype) if array.dtype != to.dtype else array
            )
        done += len(array)
    for array in arrays.values():
        array.flush()
