"""Text files by lines, as shards of byte ranges."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.cache.sources import base
from keras_kd.cache.sources import files as source_files

# Bytes that are read at once, and those read at once to find the end of a line.
_BLOCK, _SHORT = 1 << 20, 1 << 12
# Lines are looked at in the first so many bytes when the source is made.
_LOOK = 1 << 16
_COMPRESSED = (".bz2", ".gz", ".lz4", ".xz", ".zip", ".zst")


class Texts(base.CutSource):
    r"""Text files by lines, cut by byte ranges, all files one after another.

    A line belongs to the shard in which it begins. To find where its first line begins and its last
    one ends, a shard reads two pieces of lines that others read too, up to 4 KB beyond. Lines have
    no line ending; empty ones count.

    Args:
        files: A path, a pattern such as `"data/*.txt"`, whose files are sorted by name, or a list
            of such.
        preprocess: A function from lines, a string tensor `[batch]`, to `inputs`, `(inputs,
            labels)` or `(inputs, labels, weights)` of the batch: such as a tokenizer or a
            preprocessor of KerasHub that pads to a fixed length. It is called eagerly, and must
            give tensors of one rank and type. A function without arguments makes it, once in each
            process: for what cannot be pickled. Default: the lines themselves.
        batch_size: Lines of a batch. The last one of a shard may have fewer.
        bytes_per_shard: Bytes of a shard, more than the longest line has. The last one may have
            fewer.
        augment: A function `(inputs[, labels[, weights]], seed)` of a sample, after `preprocess`,
            that returns the one to take its place, with stateless random operations; see
            `kd.cache.sources`.
        seed: An integer, at least 0, for other augmentations.

    The first lines, up to 64 KB, are read once more when the source is made, to see what
    `preprocess` gives.

    Raises:
        ValueError: An argument is wrong, no file is there, the files are empty or compressed, or
            `preprocess` gives no batch. While a shard is read TensorFlow makes a
            `tf.errors.InvalidArgumentError` of it: a line is longer than a shard.
        FileNotFoundError: When a shard is read: a file is gone. One whose size has changed is a
            `ValueError`.

    Example:

    ```python
    import pathlib
    import tempfile
    import tensorflow as tf
    import keras_kd as kd

    folder = pathlib.Path(tempfile.mkdtemp())
    (folder / "a.txt").write_text("one\ntwo\nthree\n")
    (folder / "b.txt").write_text("four\nfive\n")


    def preprocess(lines):
        return tf.strings.unicode_decode(lines, "UTF-8").to_tensor(shape=(None, 8))


    source = kd.cache.sources.Texts(
        folder / "*.txt", preprocess, batch_size=2, bytes_per_shard=12
    )
    assert source.shards == 2
    assert [batch.shape[0] for batch in source(0, 0)] == [2, 1]
    ```
    """

    _reads_batches = True

    def __init__(
        self,
        files: str | os.PathLike | Sequence,
        preprocess: Callable | None = None,
        *,
        batch_size: int,
        bytes_per_shard: int,
        augment: Callable | None = None,
        seed: int = 0,
    ) -> None:
        batch_size = validation.integer("batch_size", batch_size, 1)
        self._per_shard = validation.integer("bytes_per_shard", bytes_per_shard, 1)
        self._makes = _is_maker(preprocess)
        self._preprocess: Any = preprocess
        self._made: Callable | None = None
        self._files = source_files.find("files", files)
        compressed = [each for each in self._files.names if each.lower().endswith(_COMPRESSED)]
        if compressed:
            raise invalid(
                "files",
                "files that are not compressed, which cannot be read from the middle: unpack them",
                repr(compressed[0]),
            )
        self._bytes = sum(self._files.sizes)
        if not self._bytes:
            raise invalid("files", "files with lines", f"{len(self._files)} empty files")
        super().__init__(-(-self._bytes // self._per_shard), batch_size, augment, seed)
        self._spec = self._look()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}

    def describe(self) -> dict[str, Any]:
        leaves = tf.nest.flatten(self._spec)
        return {
            **super().describe(),
            "files": self._files.describe(),
            "bytes_per_shard": self._per_shard,
            "preprocess": base.name_of(self._preprocess),
            "batch": [[str(each.shape), each.dtype.name] for each in leaves],
        }

    def _ranges(self, shard: int) -> list[tuple[int, int, int]]:
        """The files of a shard, and the bytes of each from which its lines begin."""
        first, last = shard * self._per_shard, (shard + 1) * self._per_shard
        found, start = [], 0
        for number, size in enumerate(self._files.sizes):
            begin, end = max(first - start, 0), min(last - start, size)
            if begin < end:
                found.append((number, begin, end))
            start += size
        return found

    def _check(self, shard: int) -> None:
        for number, _, _ in self._ranges(shard):
            self._files.check(number)

    def _read(self, shard: int) -> tf.data.Dataset:
        ranges, size = self._ranges(shard), self._batch_size

        def batches() -> Iterator[tuple]:
            places: list[tuple[int, int]] = []
            lines: list[bytes] = []
            is_empty = True
            for number, offset, line in self._lines(ranges):
                is_empty = False
                places.append((number, offset))
                lines.append(line)
                if len(lines) == size:
                    yield np.array(places, "int64"), self._batch(lines)
                    places, lines = [], []
            if lines:
                yield np.array(places, "int64"), self._batch(lines)
            if is_empty:
                number, begin, end = ranges[0]
                raise ValueError(
                    f"No line begins in bytes {begin} to {end} of {self._files.path(number)!r}: a "
                    f"line is longer than bytes_per_shard={self._per_shard}. Pass more."
                )

        return base.generated(batches, self._spec)

    def _lines(self, ranges: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, bytes]]:
        for number, begin, end in ranges:
            with self._files.open(number) as file:
                for offset, line in _lines_in(file, begin, end):
                    yield number, offset, line

    def _batch(self, lines: list[bytes]) -> Any:
        given = tf.constant(lines, tf.string)
        if self._preprocess is None:
            return given
        if self._made is None:
            self._made = self._preprocess() if self._makes else self._preprocess
        return _tensors(self._made(given), len(lines))

    def _look(self) -> Any:
        """What batches are made of; sizes that differ with the lines are not known."""
        number = next(i for i, size in enumerate(self._files.sizes) if size)
        end = min(_LOOK, self._files.sizes[number])
        lines = [line for _, _, line in self._lines([(number, 0, end)])]
        shortest, longest = min(lines, key=len), max(lines, key=len)
        one, other = self._batch([shortest]), self._batch([longest, longest])
        try:
            tf.nest.assert_same_structure(one, other)
            return tf.nest.map_structure(_common_spec, one, other)
        except (TypeError, ValueError) as error:
            raise ValueError(
                "`preprocess` must give batches of one structure, type and rank for all lines. "
                f"Received: {error}"
            ) from error


def _is_maker(preprocess: Any) -> bool:
    """Whether a function makes the function of the lines."""
    if preprocess is None:
        return False
    if callable(preprocess) and validation.unfit_signature(preprocess, ()) is None:
        # A function that takes both is one of the lines.
        return validation.unfit_signature(preprocess, ("lines",)) is not None
    validation.function("preprocess", preprocess, ("lines",))
    return False


def _lines_in(file: Any, begin: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The lines that begin from one byte on, before another, each with the byte it begins at."""
    # From the byte before: what it begins is the end of an earlier line, or a line ending alone.
    place = position = max(begin - 1, 0)
    skips = begin > 0
    file.seek(position)
    rest, more = b"", _SHORT
    while place < end and not (skips and position >= end):
        if position < end:
            block = file.read(min(_BLOCK, end - position))
        else:
            block, more = file.read(more), min(2 * more, _BLOCK)
        position += len(block)
        *whole, rest = (rest + block).split(b"\n")
        if not block:  # the end of the file
            whole, rest = [rest] if rest else [], b""
        for line in whole:
            if place < end and not skips:
                yield place, line.removesuffix(b"\r")
            skips = False
            place += len(line) + 1
        if not block:
            return


def _tensors(found: Any, rows: int) -> Any:
    """What `preprocess` has returned, as dense tensors; `None` at the end is left out."""
    if isinstance(found, tuple):
        while found and found[-1] is None:
            found = found[:-1]
        found = found[0] if len(found) == 1 else found
        if isinstance(found, tuple):
            return tuple(_tensors(each, rows) for each in found)
    if isinstance(found, dict):
        return {key: _tensors(each, rows) for key, each in found.items()}
    expected = (
        f"`preprocess` must give dense tensors of {rows} rows for {rows} lines: pad to a fixed "
        "length, such as with the `sequence_length` of KerasHub's tokenizers and preprocessors, "
        "or with to_tensor(shape=...)."
    )
    if found is None or isinstance(found, (tf.RaggedTensor, tf.SparseTensor)):
        raise ValueError(f"{expected} Received: {validation.briefly(found)}")
    try:
        tensor = tf.convert_to_tensor(found)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{expected} Received: {type(found).__name__}: {error}") from error
    if tensor.shape.rank == 0 or tensor.shape[0] != rows:
        raise ValueError(f"{expected} Received: a tensor of shape {tuple(tensor.shape)}")
    return tensor


def _common_spec(one: tf.Tensor, other: tf.Tensor) -> tf.TensorSpec:
    if one.dtype != other.dtype or one.shape.rank != other.shape.rank:
        raise ValueError(f"{one.dtype.name} {one.shape} and {other.dtype.name} {other.shape}")
    sizes = zip(one.shape[1:], other.shape[1:], strict=True)
    return tf.TensorSpec((None, *(a if a == b else None for a, b in sizes)), one.dtype)
