"""TFRecord files, as shards of files."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.cache.sources import base
from keras_kd.cache.sources import files as source_files

_COMPRESSIONS = ("GZIP", "ZLIB")


class TFRecords(base.CutSource):
    """TFRecord files, cut by files: records cannot be found in the middle of one.

    Args:
        files: A path, a pattern such as `"data/train-*.tfrecord"`, whose files are sorted by name,
            or a list of such.
        parse: A function from a record, a string tensor, to `inputs`, `(inputs, labels)` or
            `(inputs, labels, weights)` of one sample, in TensorFlow operations.
        batch_size: Rows of a batch. The last one of a shard may have fewer.
        files_per_shard: Files of a shard. The last one may have fewer.
        compression: `"GZIP"`, `"ZLIB"` or `None`.
        augment: A function `(inputs[, labels[, weights]], seed)` of a sample that returns the one
            to take its place, with stateless random operations; see `kd.cache.sources`.
        seed: An integer, at least 0, for other augmentations.

    Raises:
        ValueError: An argument is wrong, or no file is there.
        FileNotFoundError: When a shard is read: a file is gone. One whose size has changed is a
            `ValueError`.

    Example:

    ```python
    import pathlib
    import tempfile
    import tensorflow as tf
    import keras_kd as kd

    folder = pathlib.Path(tempfile.mkdtemp())
    for part in range(3):
        with tf.io.TFRecordWriter(str(folder / f"part-{part}.tfrecord")) as file:
            for row in range(10):
                file.write(tf.io.serialize_tensor(tf.fill([4], 10.0 * part + row)).numpy())


    def parse(record):
        return tf.ensure_shape(tf.io.parse_tensor(record, tf.float32), [4])


    source = kd.cache.sources.TFRecords(folder / "part-*.tfrecord", parse, batch_size=5)
    assert source.shards == 3
    assert [batch[0, 0].numpy() for batch in source(0, 2)] == [20.0, 25.0]
    ```
    """

    def __init__(
        self,
        files: str | os.PathLike | Sequence,
        parse: Callable,
        *,
        batch_size: int,
        files_per_shard: int = 1,
        compression: str | None = None,
        augment: Callable | None = None,
        seed: int = 0,
    ) -> None:
        self._parse = validation.function("parse", parse, ("record",))
        batch_size = validation.integer("batch_size", batch_size, 1)
        self._per_shard = validation.integer("files_per_shard", files_per_shard, 1)
        if compression is not None and compression not in _COMPRESSIONS:
            raise invalid("compression", "'GZIP', 'ZLIB' or None", repr(compression))
        self._compression = compression
        self._files = source_files.find("files", files)
        super().__init__(-(-len(self._files) // self._per_shard), batch_size, augment, seed)

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "files": self._files.describe(),
            "files_per_shard": self._per_shard,
            "compression": self._compression,
            "parse": base.name_of(self._parse),
        }

    def _numbers(self, shard: int) -> range:
        start = shard * self._per_shard
        return range(start, min(start + self._per_shard, len(self._files)))

    def _check(self, shard: int) -> None:
        for number in self._numbers(shard):
            self._files.check(number)

    def _read(self, shard: int) -> tf.data.Dataset:
        numbers = self._numbers(shard)
        parse, compression = self._parse, self._compression

        def records(number: tf.Tensor, path: tf.Tensor) -> tf.data.Dataset:
            found = tf.data.TFRecordDataset(path, compression_type=compression).enumerate()
            return found.map(lambda row, record: (tf.stack([number, row]), record))

        paths = [self._files.path(number) for number in numbers]
        files = tf.data.Dataset.from_tensor_slices(
            (tf.range(numbers[0], numbers[-1] + 1, dtype=tf.int64), paths)
        )
        return files.flat_map(records).map(
            lambda place, record: (place, parse(record)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
