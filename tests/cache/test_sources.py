"""Sources: shards that are the data, each of which reads its own part, in any process."""

import json
import pathlib
import pickle
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd.cache import sources
from tests import extras, fresh_process
from tests.cache import small_sources
from tests.cache.small_sources import KINDS, ROWS, arrays, digest, make, rows_of


def shards(source, view=0):
    return [source(view, shard) for shard in range(source.shards)]


@pytest.fixture(params=KINDS)
def kind(request):
    if request.param == "parquet":
        extras.require("pyarrow")
    return request.param


@pytest.mark.parametrize("large", [False, True])
def test_shards_are_the_data_in_order(kind, large, tmp_path):
    source = make(kind, tmp_path, large=large)
    assert 2 <= source.shards <= 10
    x, y = rows_of(shards(source))
    np.testing.assert_array_equal(x, arrays()[0])
    np.testing.assert_array_equal(y, arrays()[1])
    np.testing.assert_array_equal(rows_of([source.whole()])[0], x)
    for dataset in shards(source):
        sizes = [len(batch[1]) for batch in dataset]
        assert sizes[:-1] == [4] * (len(sizes) - 1)
        assert dataset.cardinality() in (len(sizes), tf.data.UNKNOWN_CARDINALITY)


def test_a_fresh_process_reads_the_same(kind, tmp_path):
    cloudpickle = extras.require("cloudpickle")
    source = make(kind, tmp_path)
    (tmp_path / "source").write_bytes(cloudpickle.dumps(source))
    arguments = ["-m", "tests.cache.small_sources", tmp_path / "found", tmp_path / "source"]
    fresh_process.run_preloaded(arguments)
    found = json.loads((tmp_path / "found").read_text())
    assert found["digests"] == [digest(each) for each in shards(source)]
    assert found["describe"] == source.describe()
    assert len(set(found["digests"])) == source.shards


def test_functions_of_a_program_travel(tmp_path):
    cloudpickle = extras.require("cloudpickle")
    factor = 2.0
    source = make("arrays", tmp_path, augment=lambda x, y, seed: (factor * x, y))
    copy = pickle.loads(cloudpickle.dumps(source))
    np.testing.assert_array_equal(rows_of(shards(copy))[0], 2 * arrays()[0])


def test_descriptions_tell_data_apart_not_folders(kind, tmp_path):
    source, same = make(kind, tmp_path / "a"), make(kind, tmp_path / "b")
    described = source.describe()
    assert json.loads(json.dumps(described)) == described == same.describe()
    assert str(tmp_path) not in json.dumps(described)
    for other in ({"batch_size": 8}, {"large": True}, {"augment": small_sources.augment}):
        assert make(kind, tmp_path / "a", **other).describe() != described


def test_contents_of_arrays_are_described():
    x, y = arrays()
    options = {"batch_size": 4, "rows_per_shard": 12}
    described = sources.Arrays(x, y, **options).describe()
    assert sources.Arrays(x, y, **options).describe() == described
    assert sources.Arrays(x, y + 1, **options).describe() != described
    texts = [np.array(["a", each], object) for each in "bcb"]
    one, other, same = (sources.Arrays(each, **options).describe() for each in texts)
    assert one == same != other


def test_augmented_views(kind, tmp_path):
    source = make(kind, tmp_path, augment=small_sources.augment)
    first, second = rows_of(shards(source))[0], rows_of(shards(source, 1))[0]
    added = first - arrays()[0]
    assert 0 <= added.min() < 0.1
    assert 0.9 < added.max() < 1
    flat = added.reshape(ROWS, -1)
    apart = np.abs(flat[:, None] - flat[None]).max(axis=-1)
    assert apart[~np.eye(ROWS, dtype=bool)].min() > 0.1  # no two samples have one seed
    assert not (first == second).all(axis=(1, 2, 3)).any()
    np.testing.assert_array_equal(rows_of(shards(source, 1))[0], second)
    # However it is cut, and after a journey.
    cut = make(kind, tmp_path, batch_size=7, large=True, augment=small_sources.augment)
    copy = pickle.loads(pickle.dumps(cut))
    np.testing.assert_array_equal(rows_of(shards(copy, 1))[0], second)
    seeded = make(kind, tmp_path, augment=small_sources.augment, seed=1)
    assert (rows_of(shards(seeded))[0] != first).any()


@pytest.mark.parametrize("kind", ["tfrecords", "images"])
def test_a_file_belongs_to_one_shard(kind, tmp_path):
    source = make(kind, tmp_path)
    before = [digest(each) for each in shards(source)]
    files = sorted(each for each in (tmp_path / kind).rglob("*") if each.is_file())
    owners = []
    for path in files:
        contents = path.read_bytes()
        path.unlink()
        for shard in range(source.shards):
            try:
                found = digest(source(0, shard))
            except FileNotFoundError as error:
                found = str(error)
                owners.append(shard)
            assert found == before[shard] or str(path) in found
        path.write_bytes(contents)
    # In order, and each of them once.
    assert owners == sorted(owners)
    assert len(owners) == len(files)
    assert set(owners) == set(range(source.shards))


@pytest.mark.parametrize("kind", ["npy", "tfrecords", "parquet", "images", "texts"])
def test_a_file_that_changed_is_refused(kind, tmp_path):
    source = make(kind, tmp_path)
    path = next(each for each in sorted((tmp_path / kind).rglob("*")) if each.is_file())
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"0")
    message = f"{re.escape(str(path))}' has changed. Expected {size} bytes.* Received: {size + 1} "
    with pytest.raises(ValueError, match=message):
        source(0, 0)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        source(0, 0)


def many(kind, folder):
    """A source of several megabytes in four shards or more, and its bytes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    path = folder / "data"
    if kind == "npy":
        np.save(folder / "data.npy", rng.normal(size=(65536, 4, 4)).astype("float32"))
        path = folder / "data.npy"
        made = sources.Arrays(path, batch_size=256, rows_per_shard=16384)
    elif kind == "texts":
        path.write_text(small_sources.lines(*arrays(100_000)))
        made = sources.Texts(path, batch_size=256, bytes_per_shard=1 << 20)
    elif kind == "tfrecords":
        for i in range(4):
            small_sources.write_records(folder / f"part-{i}", *arrays(4000))
        made = sources.TFRecords(folder / "part-*", small_sources.parse, batch_size=256)
    else:
        other = rng.normal(size=400_000)  # which is not read
        more = {"other": other} if kind == "parquet, two columns" else {}
        small_sources.write_parquet(path, *arrays(400_000), 100_000, **more)
        made = sources.Parquet(
            path, small_sources.of_columns, batch_size=256, columns=["x", "y"] if more else None
        )
        return made, path.stat().st_size - (other.nbytes if more else 0)
    return made, sum(each.stat().st_size for each in folder.iterdir())


@pytest.mark.parametrize("kind", ["npy", "tfrecords", "parquet", "parquet, two columns", "texts"])
def test_all_shards_read_the_data_once(kind, tmp_path):
    if not pathlib.Path("/proc/self/io").exists():
        pytest.skip("no GPU, and no /proc/self/io on this system")
    extras.require_in_a_process("pyarrow")
    source, size = many(kind, tmp_path / "data")
    assert source.shards >= 4
    assert size > 1_000_000
    (tmp_path / "source").write_bytes(pickle.dumps(source))
    arguments = ["-m", "tests.cache.small_sources", tmp_path / "found", tmp_path / "source"]
    fresh_process.run_preloaded(arguments)
    found = json.loads((tmp_path / "found").read_text())
    assert 1.0 <= round(found["bytes"] / size, 3) <= 1.05, found["bytes"] / size


def test_a_cache_of_all_shards(tmp_path):
    """The data of training is that of the cache, in whichever shards it was written."""
    source = make("tfrecords", tmp_path, augment=small_sources.augment)
    teacher = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    kd.cache_teacher(
        teacher, source.whole, tmp_path / "cache", epochs=2, dtype="float32", verbose=0
    )
    joined = kd.load_cache(tmp_path / "cache", source.whole)
    expected = [x.numpy().reshape(len(x), -1) for view in range(2) for x, _ in source.whole(view)]
    found = [tf.nest.flatten(batch) for batch in joined]
    assert len(found) == len(expected)
    for batch, outputs in zip(found, expected, strict=True):
        assert any(np.array_equal(each, outputs) for each in batch)


# What each kind takes and gives.


def test_structures_of_arrays(tmp_path):
    x, y = arrays()
    np.save(tmp_path / "big.npy", x.astype(">f4"))
    inputs = {"big": tmp_path / "big.npy", "text": (np.array([f"row {i}" for i in range(ROWS)]),)}
    source = sources.Arrays(inputs, y, y * 0.5, batch_size=40, rows_per_shard=40)
    (found, labels, weights), *rest = source.whole()
    assert len(rest) == 1
    assert found["big"].dtype == tf.float32
    np.testing.assert_array_equal(found["big"], x[:40])
    assert found["text"][0][7] == b"row 7"
    np.testing.assert_array_equal(labels, y[:40])
    np.testing.assert_array_equal(weights, y[:40] * 0.5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"labels": None},
        {"color_mode": "grayscale", "interpolation": "nearest"},
        {"color_mode": "rgba", "crop_to_aspect_ratio": True},
    ],
)
def test_images_are_those_of_keras(options, tmp_path):
    rng = np.random.default_rng(0)
    names = ["b/2.png", "b/10.jpg", "a/deep/x.bmp", "a/Z.PNG", "a/a.gif", "c/1.png", ".not/1.png"]
    channels = options.get("color_mode", "rgb")
    for i, name in enumerate(names):
        # TensorFlow decodes the others as they are, or without transparency.
        ends = {"rgb": "", "grayscale": ("g", "G"), "rgba": (".png", ".PNG")}[channels]
        if not name.endswith(ends):
            continue
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(256, size=(9 + i, 13, 3))
        keras.utils.save_img(path, pixels, scale=False)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    labels = None if options.get("labels", "") is None else "inferred"
    expected = keras.utils.image_dataset_from_directory(
        tmp_path,
        image_size=(8, 6),
        batch_size=3,
        shuffle=False,
        verbose=False,
        **{**options, "labels": labels, "label_mode": labels and "int"},
    )
    source = sources.Images(tmp_path, image_size=(8, 6), batch_size=3, rows_per_shard=3, **options)
    assert tf.nest.map_structure(lambda x: x.dtype, source(0, 0).element_spec) == (
        tf.nest.map_structure(lambda x: x.dtype, expected.element_spec)
    )
    assert digest(source.whole()) == digest(expected)


def test_columns_of_parquet(tmp_path):
    arrow, parquet = extras.require("pyarrow"), extras.require("pyarrow.parquet")
    images = [{"bytes": bytes([i]), "path": f"{i}.png"} for i in range(10)]
    columns = {
        "text": [f"é {i}" for i in range(10)],
        "word": arrow.array(["a", "b"] * 5).dictionary_encode(),
        "ids": [[1] * (i % 3) for i in range(10)],
        "image": images,
        "flag": [True, False] * 5,
        "when": arrow.array(range(10), arrow.timestamp("s")),
    }
    parquet.write_table(arrow.table(columns), tmp_path / "a.parquet", row_group_size=3)
    chosen = ["text", "word", "ids", "image.bytes", "flag"]
    source = sources.Parquet(
        tmp_path / "a.parquet", dict, batch_size=4, row_groups_per_shard=4, columns=chosen
    )
    assert source.shards == 1
    first, _, last = source(0, 0)
    assert first["text"].numpy()[1].decode() == "é 1"
    assert first["word"].numpy().tolist() == [b"a", b"b"] * 2
    assert first["ids"].to_list() == [[], [1], [1, 1], []]
    assert set(first["image"]) == {"bytes"}
    assert last["image"]["bytes"].numpy().tolist() == [b"\x08", b"\x09"]
    assert first["flag"].dtype == tf.bool
    with pytest.raises(ValueError, match="'when' .* has the type timestamp.*`columns`"):
        sources.Parquet(tmp_path / "a.parquet", dict, batch_size=4)
    parquet.write_table(arrow.table({"a": [1, None]}), tmp_path / "b.parquet")
    with_none = sources.Parquet(tmp_path / "b.parquet", dict, batch_size=4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="'a' has 1 missing values"):
        list(with_none(0, 0))


def test_parquet_in_a_store():
    fsspec, parquet = extras.require("fsspec"), extras.require("pyarrow.parquet")
    arrow = extras.require("pyarrow")
    store = fsspec.filesystem("memory")
    for i in range(3):
        with store.open(f"/bucket/data/part-{i}.parquet", "wb") as file:
            parquet.write_table(arrow.table({"a": np.arange(5) + 5 * i}), file)
    address = "memory://bucket/data/*.parquet"
    source = sources.Parquet(address, lambda columns: columns["a"], batch_size=5)
    assert source.shards == 3
    assert [file[0] for file in source.describe()["files"]] == [
        f"part-{i}.parquet" for i in range(3)
    ]
    assert np.concatenate(list(source.whole())).tolist() == [*range(15)]
    store.rm("/bucket/data/part-1.parquet")
    source(0, 2)
    with pytest.raises(FileNotFoundError, match=r"data/part-1\.parquet"):
        source(0, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 7, 11, 64])
def test_lines_at_every_cut(size, tmp_path):
    contents = ["ab\n\ncde\r\nf", "", "\n", "gh\nij\n", "k"]
    for i, text in enumerate(contents):
        (tmp_path / f"{i}.txt").write_bytes(text.encode())
    source = sources.Texts(tmp_path / "*.txt", batch_size=2, bytes_per_shard=size)
    found, refused = [], []
    for dataset in shards(source):
        try:
            found += [line for batch in dataset.as_numpy_iterator() for line in batch]
        except tf.errors.InvalidArgumentError as error:
            refused.append("a line is longer than bytes_per_shard" in str(error))
    assert found == [b"ab", b"", b"cde", b"f", b"", b"gh", b"ij", b"k"]
    assert all(refused)
    assert size < 6 or not refused


def test_lines_longer_than_a_block(tmp_path):
    long = [b"a" * 1_500_000, b"b" * 30_000, b"c" * 1_550_000, b"d" * 10]
    (tmp_path / "a.txt").write_bytes(b"\n".join(long))
    source = sources.Texts(tmp_path / "a.txt", batch_size=1, bytes_per_shard=1_600_000)
    found = [len(batch[0]) for dataset in shards(source) for batch in dataset.as_numpy_iterator()]
    assert found == [1_500_000, 30_000, 1_550_000, 10]


def tokenizer():
    keras_hub = extras.require("keras_hub")
    vocabulary = {each: i for i, each in enumerate(["a", "b", "ab", "<|endoftext|>"])}
    return keras_hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=["a b"])


def preprocessor():
    return extras.require("keras_hub").models.GPT2CausalLMPreprocessor(
        tokenizer(), sequence_length=6
    )


@pytest.mark.parametrize("as_function", [False, True])
def test_preprocessors_of_keras_hub(as_function, tmp_path):
    lines = ["ab", "aab", "b", "abab"]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    made = preprocessor()
    expected = made(lines)
    given = preprocessor if as_function else made
    source = sources.Texts(tmp_path / "a.txt", given, batch_size=2, bytes_per_shard=7)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.describe() == source.describe()
    for one in (source, copy):
        batches = list(one.whole())
        assert len(batches) == 2
        found = tf.nest.map_structure(lambda *parts: np.concatenate(parts), *batches)
        tf.nest.map_structure(np.testing.assert_array_equal, found, tuple(expected))
    with pytest.raises(ValueError, match=r"sequence_length.* Received: .*list"):
        sources.Texts(
            tmp_path / "a.txt", lambda x: [[1], [1, 2]][: len(x)], batch_size=2, bytes_per_shard=7
        )


class Rows:
    """Such as a dataset of PyTorch or Hugging Face."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def test_rows_of_any_kind():
    rows = Rows([{"text": "a" * i, "ids": [i, 2], "label": i} for i in range(5)])
    source = sources.Indexed(rows, batch_size=2, rows_per_shard=4)
    (_, batch), (last,) = shards(source)
    assert batch["text"].numpy().tolist() == [b"aa", b"aaa"]
    assert batch["ids"].numpy().tolist() == [[2, 2], [3, 2]]
    assert last["label"].numpy().tolist() == [4]
    for odd, message in (
        ({"text": "a", "ids": [1], "label": 1}, r"data\[3\].*int64 of shape \(1,\), not int64"),
        ({"text": "a", "label": 1}, r"data\[3\].*another structure"),
        ({"text": None, "ids": [1, 2], "label": 1}, r"data\[3\].*Received: None"),
    ):
        source = sources.Indexed(Rows([*rows.rows[:3], odd]), batch_size=2, rows_per_shard=4)
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            list(source(0, 0))
