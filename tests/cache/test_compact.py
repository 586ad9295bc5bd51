"""Compact caches of the largest logits: their bytes, and how they are written and read."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd.ops import compact_logits, sparse_logits
from keras_kd.teachers.cache import format as cache_format
from keras_kd.teachers.cache.format import bytes_on_disk
from tests.cache import caches
from tests.cache.compact_rows import TEMPERATURES, exact_rest, kept, through_bytes

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "cache_version_3"
K = 3


@pytest.mark.parametrize(("k", "classes"), [(1, 1), (1, 2), (1, 7), (6, 7), (7, 7), (64, 64)])
def test_any_number_of_classes_is_kept(k, classes):
    logits = 3 * np.random.default_rng(k).normal(size=(5, classes))
    found = through_bytes(logits, k)
    at = kept(logits, k)
    np.testing.assert_array_equal(found.indices, at)
    for temperature in (0.5, 2.0, 16.0):
        exact = exact_rest(logits, at, temperature)
        np.testing.assert_allclose(found.rest(temperature), exact, rtol=0, atol=2e-3)


def test_equal_logits_keep_the_first_classes():
    logits = np.zeros((2, 3000))
    logits[1, 7::2] = -1.0
    found = through_bytes(logits, 20)
    np.testing.assert_array_equal(found.indices, kept(logits, 20))
    np.testing.assert_array_equal(found.logits, np.zeros((2, 20)))
    np.testing.assert_allclose(
        found.rest(2.0), exact_rest(logits, kept(logits, 20), 2.0), rtol=0, atol=2e-3
    )


@pytest.mark.parametrize("mask", [-1e3, -1e9, -np.inf])
@pytest.mark.parametrize("left", [2, 4, 5, 90])
def test_masked_classes_have_no_probability(mask, left):
    """Of four classes kept some, and of the others some or all, are masked."""
    rng = np.random.default_rng(left)
    logits = np.full((3, 200), mask)
    for row in logits:
        row[rng.permutation(200)[:left]] = rng.normal(size=left)
    found = through_bytes(logits, 4)
    without = np.where(logits < -900, -np.inf, logits)
    at = np.asarray(found.indices)
    exact = np.take_along_axis(without - without.max(-1, keepdims=True), at, -1)
    np.testing.assert_allclose(found.logits, exact, rtol=0, atol=0.02)
    for temperature in TEMPERATURES:
        np.testing.assert_allclose(
            found.rest(temperature), exact_rest(without, at, temperature), rtol=0, atol=6e-3
        )


def test_a_gap_below_the_kept_classes_loses_nothing():
    logits = np.float64([[30.0, *np.linspace(-1.0, -2.0, 99)]])
    found = through_bytes(logits, 1)
    for temperature in (0.5, 1.0, 4.0):
        exact = exact_rest(logits, [[0]], temperature)
        np.testing.assert_allclose(found.rest(temperature), exact, rtol=0, atol=2e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("column", [0, 250, 399])
def test_a_number_that_is_none_is_refused(tmp_path, bad, column):
    logits = np.random.default_rng(2).normal(size=(4, 400)).astype("float32")
    logits[1, column] = bad
    _, is_sound = compact_logits.keep_compact(logits, 2)
    assert not is_sound


def test_a_teacher_with_nan_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="batch 0 of view 0 hold NaN"):
        compact(tmp_path / "c", lambda x: tf.where(x[:, :1] > 0, np.nan, 1.0) * tf.ones([1, 9]))
    assert not list((tmp_path / "c").glob("view-*/*.tfrecord"))


def test_below_the_smallest_temperature_nothing_is_claimed():
    assert np.isnan(through_bytes(np.float64([[3.0, 2.0, 1.0]]), 1).rest(0.49)).all()


@pytest.mark.parametrize("shape", [(1, 40), (0, 40), (3, 5, 40), (70, 3000)])
def test_graph_and_eager_agree_for_any_rows(shape):
    """To a step in what is stored: their exponentials may differ by a rounding."""
    k, classes = 3, shape[-1]
    logits = 4 * np.random.default_rng(1).normal(size=shape).astype("float32")
    spec = tf.TensorSpec([None] * (len(shape) - 1) + [classes])
    keep = tf.function(lambda x: compact_logits.keep_compact(x, k)[0], input_signature=[spec])
    packed = keep(logits)
    assert packed.shape == (*shape[:-1], compact_logits.bytes_of(k, classes))
    spec = tf.TensorSpec([None] * (len(shape) - 1) + [packed.shape[-1]], tf.uint8)
    expand = tf.function(
        lambda x: vars(compact_logits.expand(x, k, classes)), input_signature=[spec]
    )
    eager = vars(through_bytes(logits, k))
    step = {"logits": 0.2, "levels": 2 * np.log(classes - k) / 8190, "slopes": 0.1}
    for name, value in expand(packed).items():
        assert value.shape == (*shape[:-1], k if name in ("logits", "indices") else 12)
        same_bytes = vars(compact_logits.expand(packed, k, classes))[name]
        np.testing.assert_allclose(value, same_bytes, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(value, eager[name], rtol=0, atol=step.get(name, 0))


def test_what_bytes_mean_depends_on_no_other_row():
    """Nor on how many there are: batches may be read in another size."""
    logits = 4 * np.random.default_rng(1).normal(size=(71, 300)).astype("float32")
    packed, _ = compact_logits.keep_compact(logits, 5)
    together = vars(compact_logits.expand(packed, 5, 300))
    for rows in (slice(0, 1), slice(3, 8), slice(8, 71)):
        for name, value in vars(compact_logits.expand(packed[rows], 5, 300)).items():
            np.testing.assert_array_equal(value, together[name][rows])


def test_probabilities_are_kept_as_logarithms():
    logits = 3 * np.random.default_rng(1).normal(size=(4, 60)).astype("float32")
    packed, _ = compact_logits.keep_compact(tf.nn.softmax(logits), 5, from_logits=False)
    found = compact_logits.expand(packed, 5, 60)
    np.testing.assert_allclose(found.rest(2.0), through_bytes(logits, 5).rest(2.0), atol=2e-3)


@pytest.mark.parametrize(("classes", "most"), [(32000, 144), (50257, 148), (65536, 150)])
def test_fifty_of_a_vocabulary_take_at_most_150_bytes_a_token(tmp_path, classes, most):
    kernel = np.random.default_rng(0).normal(size=(caches.FEATURES, classes)).astype("float32")
    x = np.random.default_rng(1).normal(size=(4, 128, caches.FEATURES)).astype("float32")
    path = kd.cache_teacher(
        lambda x: x @ kernel,
        tf.data.Dataset.from_tensor_slices(x).batch(4),
        tmp_path / "c",
        dtype="compact",
        top_k=50,
        verbose=0,
    )
    assert bytes_on_disk(path) / (4 * 128) <= most  # fingerprints and the record's frame included


def compact(path, teacher=None, **options):
    return caches.written(path, teacher, **{"dtype": "compact", "top_k": K, **options})


def test_samples_are_found_by_key(tmp_path):
    path = compact(tmp_path / "c", taps=["h"])
    x, y = caches.arrays()
    order = np.random.default_rng(0).permutation(len(x))
    straight = caches.read(kd.load_cache(path, caches.dataset()))
    found = caches.read(kd.load_cache(path, caches.dataset(x[order], y[order]), key="inputs"))
    for name, value in straight[1].items():
        np.testing.assert_array_equal(found[1][name], value[order])
    assert straight[2]["h"].dtype == np.float16


def test_batches_of_another_size_and_views(tmp_path):
    def view(number):
        x, y = caches.arrays()
        return caches.dataset(x + np.float32(number), y)

    def smaller(number):
        return view(number).unbatch().batch(5)

    path = compact(tmp_path / "c", data=view, epochs=2)
    one, other = (caches.read(kd.load_cache(path, data))[1] for data in (view, smaller))
    assert len(one["logits"]) == 2 * caches.ROWS
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value)


def test_killed_and_resumed_it_is_the_same(tmp_path):
    whole = compact(tmp_path / "whole")
    path = compact(tmp_path / "c")
    (path / "manifest.json").unlink()
    for ending in ("json", "tfrecord"):
        (path / "view-000" / f"shard-00001.{ending}").unlink()
    compact(path)
    assert caches.contents(path) == caches.contents(whole)


def test_it_needs_top_k_and_says_so(tmp_path):
    with pytest.raises(ValueError, match="few bytes: pass `top_k` too"):
        caches.written(tmp_path / "c", dtype="compact")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 8}, "cannot exceed the number of classes. Received: top_k=8"),
        ({"teacher": lambda x: {"a": x, "b": x}}, "the largest logits of one output"),
    ],
)
def test_wrong_calls_make_no_folder(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        compact(tmp_path / "c", **options)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("field", "value"), [("top_k", 2), ("classes", 300), ("classes", None), ("top_k", None)]
)
def test_a_manifest_that_does_not_fit_its_bytes_is_damaged(tmp_path, field, value):
    path = compact(tmp_path / "c") / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["digest"]
    cache_format.write_json(path, {**manifest, field: value})
    with pytest.raises(kd.CacheError, match=r"manifest.json is damaged: `"):
        kd.load_cache(path.parent, caches.dataset())


def test_other_settings_are_another_cache(tmp_path):
    path = compact(tmp_path / "c")
    with pytest.raises(kd.CacheError, match="dtype: 'compact' there, 'float16' now"):
        caches.written(path, top_k=K, dtype="float16")


def test_only_compact_caches_need_this_version(tmp_path):
    versions = [
        json.loads((path / "manifest.json").read_text())["version"]
        for path in (compact(tmp_path / "c"), caches.written(tmp_path / "f", top_k=K))
    ]
    assert versions == [3, 2]


@pytest.mark.parametrize("key", [None, "inputs"])
def test_one_that_was_written_before_is_read_and_left_alone(tmp_path, key):
    """`tests/golden/cache_version_3`: ten rows in batches of four, of `caches.model(1)`."""
    path = shutil.copytree(GOLDEN, tmp_path / "c")
    x, y = caches.arrays(10)
    data = caches.dataset(x, y, 4)
    before = caches.contents(path)
    compact(path, data=data)
    assert caches.contents(path) == before
    given, outputs, _ = caches.read(kd.load_cache(path, data, key=key))
    exact = caches.model(1)(given).numpy().astype("float64")
    at = kept(exact, K)
    np.testing.assert_array_equal(outputs["indices"], at)
    rest = sparse_logits.SparseLogits(**outputs).rest(2.0)
    np.testing.assert_allclose(rest, exact_rest(exact, at, 2.0), rtol=0, atol=6e-3)
