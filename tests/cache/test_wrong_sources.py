"""Wrong arguments and data of sources: refused when they are made, with a remedy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd.cache import sources
from tests import extras
from tests.cache import small_sources
from tests.cache.small_sources import KINDS, make

X = np.zeros((6, 2), "float32")
CUT = {"batch_size": 2, "rows_per_shard": 4}


@pytest.mark.parametrize("kind", KINDS)
def test_calls_and_common_arguments(kind, tmp_path):
    if kind == "parquet":
        extras.require("pyarrow")
    source = make(kind, tmp_path)
    last = source.shards - 1
    with pytest.raises(ValueError, match=f"`shard`. Expected an integer from 0 to {last}. Receiv"):
        source(0, source.shards)
    for view, shard in ((-1, 0), (0.0, 0), (0, -1), (0, None), (0, True)):
        with pytest.raises(ValueError, match="Invalid value for argument `(view|shard)`"):
            source(view, shard)
    for name, values in {
        "batch_size": [0, 2.0, None],
        "seed": [-1, None, 2**63],
        "augment": [3, lambda x: x],
    }.items():
        for value in values:
            with pytest.raises(ValueError, match=f"Invalid value for argument `{name}`"):
                make(kind, tmp_path, **{name: value})
    nothing = make(kind, tmp_path, augment=lambda x, y, seed: None)
    with pytest.raises(ValueError, match="`augment` must return a sample"):
        nothing(0, 0)


def test_arrays(tmp_path):
    np.save(tmp_path / "fortran.npy", np.asfortranarray(np.ones((3, 2))))
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    np.savez(tmp_path / "a.npz", x=X)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    (tmp_path / "text.npy").write_text("no array")
    for x, message in {
        "list": ([1, 2], r"`x`.*np.asarray.*a list"),
        "tensor": (tf.constant(X), "`x`.*np.asarray"),
        "none": (None, "`x`"),
        "number": (np.array(1.0), "`x`.*rows"),
        "empty dict": ({}, "`x`"),
        "empty": (X[:0], r"number of rows, above 0.*\[0\]"),
        "lengths": ((X, X[:3]), r"\[3, 6\]"),
        "map": (mapped, "`x`.*path of a .npy file"),
        "fortran": (tmp_path / "fortran.npy", "`x`.*ascontiguousarray"),
        "objects": (tmp_path / "objects.npy", "`x`.*is not a .npy file of rows of numbers"),
        "npz": (tmp_path / "a.npz", "`x`.*save each array"),
        "text": (tmp_path / "text.npy", "`x`.*is not a .npy file"),
        "two files": (tmp_path / "*.npy", "`x`.*one .npy file for each"),
        "no file": (tmp_path / "none.npy", "`x`.*none.npy.*matches no file"),
        "address": ("s3://bucket/x.npy", "`x`.*Copy the files"),
    }.values():
        with pytest.raises(ValueError, match=message):
            sources.Arrays(x, **CUT)
    with pytest.raises(ValueError, match="`weights` need labels"):
        sources.Arrays(X, None, X[:, 0], **CUT)
    with pytest.raises(ValueError, match="`rows_per_shard`"):
        sources.Arrays(X, batch_size=2, rows_per_shard=0)


def test_files(tmp_path):
    (tmp_path / "a.txt").write_text("a\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "a.txt.gz").write_text("a\n")
    (tmp_path / "b[1].txt").write_text("b\n")
    options = {"batch_size": 2, "bytes_per_shard": 4}
    for files, message in {
        "none": (tmp_path / "*.csv", r"`files`.*matches no file"),
        "folder": (tmp_path, r"`files`.*is a folder: add a pattern"),
        "twice": ([tmp_path / "a.txt", tmp_path / "a.*xt"], r"each file once.*'a.txt' twice"),
        "empty list": ([], "`files`"),
        "set": ({"a"}, "`files`"),
        "number": ([3], "`files`"),
        "empty files": (tmp_path / "empty.txt", "`files`.*empty files"),
        "packed": (tmp_path / "a.txt.gz", "`files`.*unpack them"),
        "address": ("gs://bucket/*", "`files`.*Copy the files"),
    }.values():
        with pytest.raises(ValueError, match=message):
            sources.Texts(files, **options)
    # A name with characters of patterns is a name where it is there.
    assert next(iter(sources.Texts(tmp_path / "b[1].txt", **options)(0, 0))).numpy() == [b"b"]


def test_functions(tmp_path):
    (tmp_path / "a").write_text("a\nbc\n")
    options = {"batch_size": 2, "bytes_per_shard": 4}
    for wrong, message in (
        (3, "`preprocess`"),
        (lambda a, b: a, "`preprocess`"),
        (lambda lines: None, "`preprocess` must give dense tensors"),
        (lambda lines: lines[0], "`preprocess` must give dense tensors of 1 rows.*pad to"),
        (tf.strings.split, "`preprocess` must give dense tensors.*RaggedTensor"),
        (lambda lines: lines if len(lines) == 1 else (lines, lines), "one structure, type"),
    ):
        with pytest.raises(ValueError, match=message):
            sources.Texts(tmp_path / "a", wrong, **options)
    for parse in (None, lambda: 1):
        with pytest.raises(ValueError, match="`parse`"):
            sources.TFRecords(tmp_path / "a", parse, batch_size=2)
    with pytest.raises(ValueError, match="`compression`.*'GZIP'"):
        sources.TFRecords(tmp_path / "a", small_sources.parse, batch_size=2, compression="zip")


def test_parquet(tmp_path):
    arrow, parquet = extras.require("pyarrow"), extras.require("pyarrow.parquet")
    parquet.write_table(arrow.table({"a": [1], "b": [2]}), tmp_path / "1.parquet")
    parquet.write_table(arrow.table({"a": [1.0], "b": [2]}), tmp_path / "2.parquet")
    parquet.write_table(arrow.table({"a": [1]}).slice(1), tmp_path / "3.parquet")
    (tmp_path / "text").write_text("no table")
    for name, columns, message in (
        ("*.parquet", ["b"], r"3.parquet' has no column 'b'"),
        ("[12].parquet", None, r"same columns.*a: int64, b: int64.*2.parquet' with a: double"),
        ("3.parquet", None, "without a row"),
        ("text", None, "text' is not a Parquet file"),
        ("1.parquet", [], "`columns`"),
        ("1.parquet", "a", "`columns`"),
        ("1.parquet", [1], "`columns`"),
    ):
        with pytest.raises(ValueError, match=message):
            sources.Parquet(tmp_path / name, dict, batch_size=2, columns=columns)
    with pytest.raises(ValueError, match="`files`.*not both"):
        sources.Parquet(["memory://a", "b"], dict, batch_size=2)
    source = sources.Parquet(tmp_path / "[12].parquet", dict, batch_size=2, columns=["b"])
    assert source.shards == 2


def test_images(tmp_path):
    options = {"image_size": (4, 4), **CUT}
    with pytest.raises(ValueError, match=r"`folder`.*a folder of images for each class.*\.png"):
        sources.Images(tmp_path, **options)
    (tmp_path / "a").mkdir()
    keras.utils.save_img(tmp_path / "a" / "1.png", np.zeros((4, 4, 3)))
    for name, value in {
        "image_size": 4,
        "labels": "inferred",
        "color_mode": "gray",
        "interpolation": "best",
        "crop_to_aspect_ratio": 1,
    }.items():
        with pytest.raises(ValueError, match=f"`{name}`"):
            sources.Images(tmp_path, **{**options, name: value})
    with pytest.raises(ValueError, match="`interpolation`"):
        sources.Images(tmp_path, interpolation="area", crop_to_aspect_ratio=True, **options)
    with pytest.raises(ValueError, match="`folder`.*that is there"):
        sources.Images(tmp_path / "none", **options)
    (tmp_path / "a" / "2.png").write_text("no image")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Not an image.*a/2\.png"):
        list(sources.Images(tmp_path, **options)(0, 0))


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return X


class Endless:
    def __len__(self):
        return 2**62

    def __getitem__(self, i):
        return X[0]


def test_indexed():
    for data, message in (
        (X, "`data`.*kd.cache.sources.Arrays"),
        (Batches(), "`data`.*PyDataset are batches"),
        ({"a": 1}, "`data`.*of type dict"),
        ("text", "`data`"),
        (tf.data.Dataset.range(3), "`data`.*len.data. and data"),
        ([], "`data`.*empty data"),
        (Endless(), "`data`.*endless data"),
        ([None], r"data\[0\].*None"),
        ([object()], r"data\[0\].*`element`"),
        ([[1, [2, 3]]], r"data\[0\].*list"),
    ):
        with pytest.raises(ValueError, match=message):
            sources.Indexed(data, **CUT)
    with pytest.raises(ValueError, match="`element`"):
        sources.Indexed([1], element=3, **CUT)


def test_ragged_samples_are_not_augmented(tmp_path):
    arrow, parquet = extras.require("pyarrow"), extras.require("pyarrow.parquet")
    parquet.write_table(arrow.table({"a": [[1], [1, 2]]}), tmp_path / "a")
    source = sources.Parquet(
        tmp_path / "a", lambda columns: columns["a"], batch_size=2, augment=lambda x, seed: x
    )
    with pytest.raises(ValueError, match=r"`augment` needs samples of dense tensors.*to_tensor"):
        source(0, 0)
