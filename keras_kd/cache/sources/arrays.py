"""Arrays in memory or in `.npy` files, as shards of rows."""

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.cache.sources import base
from keras_kd.cache.sources import files as source_files
from keras_kd.cache.sources.files import Files

# What tensors are made of: booleans, integers, floats, complex numbers, texts.
_KINDS = "biufcSUO"
_EXPECTED = "a NumPy array, the path of a .npy file, or a dict or tuple of such"


class Arrays(base.CutSource):
    """NumPy arrays, in memory or in `.npy` files, cut by rows.

    Args:
        x: Inputs: an array `[rows, ...]`, the path of a `.npy` file of such, or a dict or tuple
            of them, nested as the model takes them. Arrays in memory travel with the source to each
            worker; of a file a worker reads the rows of its shards only.
        y: Labels, as `x`, or `None`.
        weights: Sample weights, as `x`, or `None`.
        batch_size: Rows of a batch. The last one of a shard may have fewer.
        rows_per_shard: Rows of a shard. The last one may have fewer.
        augment: A function `(inputs[, labels[, weights]], seed)` of a sample that returns the one
            to take its place, with stateless random operations; see `kd.cache.sources`.
        seed: An integer, at least 0, for other augmentations.

    Raises:
        ValueError: An argument is wrong, arrays are empty or differ in length, or a file holds
            what tensors cannot.
        FileNotFoundError: When a shard is read: a file is gone. One whose size has changed is a
            `ValueError`.

    Example:

    ```python
    import pathlib
    import tempfile
    import numpy as np
    import keras_kd as kd

    folder = pathlib.Path(tempfile.mkdtemp())
    np.save(folder / "x.npy", np.random.normal(size=(1000, 8)).astype("float32"))
    labels = np.arange(1000) % 10
    source = kd.cache.sources.Arrays(
        folder / "x.npy", labels, batch_size=32, rows_per_shard=256
    )
    assert source.shards == 4
    inputs, labels = next(iter(source(0, 3)))  # rows 768 to 799
    assert inputs.shape == (32, 8)
    ```
    """

    _reads_batches = True

    def __init__(
        self,
        x: Any,
        y: Any = None,
        weights: Any = None,
        *,
        batch_size: int,
        rows_per_shard: int,
        augment: Callable | None = None,
        seed: int = 0,
    ) -> None:
        batch_size = validation.integer("batch_size", batch_size, 1)
        self._rows_per_shard = validation.integer("rows_per_shard", rows_per_shard, 1)
        if x is None:
            raise invalid("x", _EXPECTED, "None")
        if y is None and weights is not None:
            raise ValueError(
                "`weights` need labels: pass `y` too, or weigh the samples in training."
            )
        named = {"x": x, "y": y, "weights": weights}
        parts = tuple(_structure(name, value) for name, value in named.items() if value is not None)
        self._parts = parts if len(parts) > 1 else parts[0]
        lengths = {each.rows for each in tf.nest.flatten(self._parts)}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError(
                "x, y and weights must have one number of rows, above 0, in their first "
                f"dimension. Received numbers of rows: {sorted(lengths)}"
            )
        (self._count,) = lengths
        super().__init__(-(-self._count // self._rows_per_shard), batch_size, augment, seed)

    def describe(self) -> dict[str, Any]:
        leaves = tf.nest.flatten(self._parts)
        return {
            **super().describe(),
            "rows": self._count,
            "rows_per_shard": self._rows_per_shard,
            "structure": _outline(self._parts),
            "arrays": [each.describe() for each in leaves],
        }

    def _check(self, shard: int) -> None:
        for each in tf.nest.flatten(self._parts):
            each.check()

    def _rows(self, shard: int) -> int:
        return min(self._rows_per_shard, self._count - shard * self._rows_per_shard)

    def _read(self, shard: int) -> tf.data.Dataset:
        start = shard * self._rows_per_shard
        end, size, parts = start + self._rows(shard), self._batch_size, self._parts

        def batches() -> Iterator[tuple]:
            with contextlib.ExitStack() as stack:
                readers = tf.nest.map_structure(lambda x: x.reader(stack), parts)
                for first in range(start, end, size):
                    last = min(first + size, end)
                    read = functools.partial(_read, first, last)
                    yield base.rows(first, last), tf.nest.map_structure(read, readers)

        return base.generated(batches, tf.nest.map_structure(lambda x: x.spec(), parts))


@dataclasses.dataclass
class _InMemory:
    """An array."""

    array: np.ndarray
    digest: str | None = None

    @property
    def rows(self) -> int:
        return len(self.array)

    def spec(self) -> tf.TensorSpec:
        return _spec(self.array.shape, self.array.dtype)

    def reader(self, stack: contextlib.ExitStack) -> Callable[[int, int], np.ndarray]:
        return lambda start, end: _native(self.array[start:end])

    def check(self) -> None:
        """It cannot vanish."""

    def describe(self) -> dict[str, Any]:
        if self.digest is None:
            found = hashlib.sha256()
            for start in range(0, len(self.array), _chunk(self.array)):
                found.update(_bytes_of(self.array[start : start + _chunk(self.array)]))
            self.digest = found.hexdigest()
        return {**_facts(self.array.shape, self.array.dtype), "digest": self.digest}


@dataclasses.dataclass
class _InFile:
    """An array in a `.npy` file, read by ranges of rows."""

    files: Files
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int

    @property
    def rows(self) -> int:
        return self.shape[0]

    def spec(self) -> tf.TensorSpec:
        return _spec(self.shape, self.dtype)

    def reader(self, stack: contextlib.ExitStack) -> Callable[[int, int], np.ndarray]:
        # Not mapped into memory: where the file is on another machine, pages would come one by one.
        file = stack.enter_context(self.files.open(0))

        def read(start: int, end: int) -> np.ndarray:
            found = np.empty((end - start, *self.shape[1:]), self.dtype)
            left = memoryview(found.reshape(-1).view("uint8").data)
            file.seek(self.offset + start * (found.nbytes // (end - start)))
            while left:
                count = file.readinto(left)
                if not count:
                    raise ValueError(f"{self.files.path(0)!r} ends before row {end}.")
                left = left[count:]
            return _native(found)

        return read

    def check(self) -> None:
        self.files.check(0)

    def describe(self) -> dict[str, Any]:
        (name, size), *_ = self.files.describe()
        return {**_facts(self.shape, self.dtype), "file": name, "bytes": size}


def _structure(name: str, value: Any) -> Any:
    """The same structure with readers in place of arrays and paths."""
    if isinstance(value, dict):
        if not value or not all(isinstance(key, str) for key in value):
            raise invalid(name, "a dict with texts as keys", repr(list(value)))
        return {key: _structure(name, each) for key, each in value.items()}
    if isinstance(value, tuple) and value:
        return tuple(_structure(name, each) for each in value)
    if isinstance(value, (str, os.PathLike)):
        return _file(name, value)
    if isinstance(value, np.memmap):
        raise invalid(
            name,
            "the path of a .npy file in place of an array that is mapped from one, which would be "
            "pickled as a whole",
            validation.briefly(value),
        )
    if not isinstance(value, np.ndarray):
        raise invalid(
            name,
            f"{_EXPECTED}. Make arrays of lists and tensors: np.asarray(...)",
            f"{validation.briefly(value)} of type {type(value).__name__}"
            if not isinstance(value, list)
            else "a list",
        )
    if value.ndim == 0 or value.dtype.kind not in _KINDS:
        raise invalid(name, "arrays of rows of numbers or texts", _shown(value))
    return _InMemory(value)


def _file(name: str, path: Any) -> _InFile:
    files = source_files.find(name, path)
    if len(files) > 1:
        raise invalid(name, "one .npy file for each array", f"{path!r}, {len(files)} files")
    shown = files.path(0)
    try:
        mapped = np.load(shown, mmap_mode="r")  # reads the header
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"`{name}`: {shown!r} is not a .npy file of rows of numbers: {error}. Write it with "
            "np.save."
        ) from error
    if not isinstance(mapped, np.memmap):
        mapped.close()
        raise invalid(name, "a .npy file for each array; of an .npz file save each array", shown)
    if mapped.ndim == 0 or mapped.dtype.kind not in _KINDS.replace("O", ""):
        raise invalid(name, "a .npy file of rows of numbers or texts", f"{shown}, {_shown(mapped)}")
    if not mapped.flags.c_contiguous:
        raise invalid(
            name,
            "a .npy file whose rows lie one after another: write it again with "
            "np.save(path, np.ascontiguousarray(array))",
            f"{shown}, in Fortran's order",
        )
    return _InFile(files, mapped.shape, mapped.dtype, mapped.offset)


def _read(start: int, end: int, reader: Callable[[int, int], np.ndarray]) -> np.ndarray:
    return reader(start, end)


def _native(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _spec(shape: tuple[int, ...], dtype: np.dtype) -> tf.TensorSpec:
    kind = tf.string if dtype.kind in "SUO" else tf.as_dtype(dtype.newbyteorder("="))
    return tf.TensorSpec((None, *shape[1:]), kind)


def _facts(shape: tuple[int, ...], dtype: np.dtype) -> dict[str, Any]:
    return {"shape": [int(each) for each in shape], "dtype": str(dtype)}


def _shown(array: np.ndarray) -> str:
    return f"an array of {array.dtype} of shape {array.shape}"


def _chunk(array: np.ndarray) -> int:
    """Rows of about 16 MB."""
    return max(1, (1 << 24) // max(1, array[:1].nbytes))


def _bytes_of(array: np.ndarray) -> bytes:
    if array.dtype.kind == "O":  # its bytes would be addresses
        return repr(array.tolist()).encode()
    return np.ascontiguousarray(array).tobytes()


def _outline(parts: Any) -> Any:
    """The structure, for JSON, with `None` in place of arrays."""
    if isinstance(parts, dict):
        return {key: _outline(each) for key, each in parts.items()}
    return [_outline(each) for each in parts] if isinstance(parts, tuple) else None
