"""The same rows as each kind of source; as a program, what a fresh process reads of a source.

python -m tests.cache.small_sources OUTPUT SOURCE.pickle
"""

import hashlib
import json
import pathlib
import pickle
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import batches
from keras_kd.cache import sources
from tests import extras

ROWS, SIDE = 46, 4
# Files of those sources whose shards are files or have files of their own.
KINDS = ["arrays", "npy", "tfrecords", "parquet", "images", "indexed", "texts"]


def arrays(rows=ROWS):
    """`(x, y)`: images of whole numbers, and classes that are sorted as folders are."""
    x = np.random.default_rng(0).integers(256, size=(rows, SIDE, SIDE, 1)).astype("float32")
    return x, np.arange(rows) * 3 // rows


def parse(record):
    features = {"x": tf.io.FixedLenFeature([SIDE * SIDE], tf.float32)}
    features["y"] = tf.io.FixedLenFeature([], tf.int64)
    found = tf.io.parse_single_example(record, features)
    return tf.reshape(found["x"], [SIDE, SIDE, 1]), found["y"]


def of_columns(columns):
    return tf.reshape(columns["x"], [-1, SIDE, SIDE, 1]), columns["y"]


def of_lines(lines):
    numbers = tf.strings.to_number(tf.strings.split(lines, " ").to_tensor())
    return tf.reshape(numbers[:, 1:], [-1, SIDE, SIDE, 1]), tf.cast(numbers[:, 0], tf.int64)


def augment(x, y, seed):
    return x + tf.random.stateless_uniform(x.shape, seed), y


def write_records(path, x, y):
    def feature(**value):
        return tf.train.Feature(**value)

    with tf.io.TFRecordWriter(str(path)) as file:
        for one, label in zip(x, y, strict=True):
            features = {
                "x": feature(float_list=tf.train.FloatList(value=one.reshape(-1))),
                "y": feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            file.write(example.SerializeToString())


def write_parquet(path, x, y, rows=None, **more):
    arrow, parquet = extras.require("pyarrow"), extras.require("pyarrow.parquet")
    flat = arrow.FixedSizeListArray.from_arrays(x.reshape(-1), SIDE * SIDE)
    table = arrow.table({"x": flat, "y": y, **more})
    parquet.write_table(table, path, row_group_size=rows, compression=None, use_dictionary=False)


def lines(x, y):
    rows = zip(x.reshape(len(x), -1).astype(int), y, strict=True)
    return "".join(f"{label} {' '.join(map(str, one))}\n" for one, label in rows)


def make(kind, folder, batch_size=4, large=False, **options):
    """A source of the rows of `arrays()`, whose files are written on the first call.

    Args:
        kind: One of `KINDS`.
        folder: Where its files are.
        batch_size: As of the source.
        large: Whether its shards are about twice as large.
    """
    folder = pathlib.Path(folder) / kind
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    x, y = arrays()
    options = {"batch_size": batch_size, **options}
    rows = {"rows_per_shard": 24 if large else 12, **options}
    parts = np.array_split(np.arange(ROWS), 5)
    if kind == "arrays":
        return sources.Arrays(x, y, **rows)
    if kind == "npy":
        if is_new:
            np.save(folder / "x.npy", x)
            np.save(folder / "y.npy", y)
        return sources.Arrays(folder / "x.npy", str(folder / "y.npy"), **rows)
    if kind == "indexed":
        return sources.Indexed(list(zip(x, y, strict=True)), **rows)
    if kind == "images":
        for i in range(ROWS if is_new else 0):
            path = folder / f"class {y[i]}" / f"{i:02d}.png"
            path.parent.mkdir(exist_ok=True)
            keras.utils.save_img(path, x[i], scale=False)
        shape = {"image_size": (SIDE, SIDE), "color_mode": "grayscale"}
        return sources.Images(folder, **shape, **rows)
    for i, part in enumerate(parts if is_new else []):
        if kind == "tfrecords":
            write_records(folder / f"part-{i}", x[part], y[part])
        elif kind == "parquet":
            write_parquet(folder / f"part-{i}", x[part], y[part], 6)
        else:
            (folder / f"part-{i}").write_text(lines(x[part], y[part]))
    files = str(folder / "part-*")
    if kind == "tfrecords":
        return sources.TFRecords(files, parse, files_per_shard=2 if large else 1, **options)
    if kind == "parquet":
        each = 4 if large else 2
        return sources.Parquet(files, of_columns, row_groups_per_shard=each, **options)
    each = 1500 if large else 700
    return sources.Texts([files], of_lines, bytes_per_shard=each, **options)


def digest(dataset):
    """The digest of the batches."""
    found = hashlib.sha256()
    for batch in dataset:
        batches.update_digest(found, batch)
    return found.hexdigest()


def rows_of(datasets):
    """The rows of several datasets of `(x, y)`, as arrays."""
    found = [batch for dataset in datasets for batch in dataset.as_numpy_iterator()]
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


def bytes_read():
    """What this process has read from files and pipes."""
    return int(pathlib.Path("/proc/self/io").read_text().split()[1])


def main(output, path):
    source = pickle.loads(pathlib.Path(path).read_bytes())
    for _ in source(0, 0):
        pass  # whatever is imported or looked up at first
    before = bytes_read()
    digests = [digest(source(0, shard)) for shard in range(source.shards)]
    found = {"bytes": bytes_read() - before, "digests": digests, "describe": source.describe()}
    pathlib.Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
