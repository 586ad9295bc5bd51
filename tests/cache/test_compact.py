"""Compact caches of the largest logits: their bytes, and what they are wrong by, in float64."""

import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd.ops import compact_logits, sparse_logits
from keras_kd.teachers.cache.format import bytes_on_disk
from tests.cache import caches

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "cache_version_3"
TEMPERATURES = (0.5, 0.6, 1.0, 1.7, 2.0, 3.3, 4.0, 7.0, 11.0, 14.0, 16.0, np.inf)
K = 3


def logsumexp(values):
    if not values.size:
        return -np.inf
    return np.log(np.exp(values - values.max()).sum()) + values.max()


def kept(logits, k):
    """The classes of the `k` largest, of equal ones the first, sorted; `[rows, k]`."""
    return np.sort(np.argsort(-logits, axis=-1, kind="stable")[:, :k], axis=-1)


def exact_rest(logits, classes, temperature):
    centered = logits - logits.max(-1, keepdims=True)
    rest = [np.delete(row, at) for row, at in zip(centered, classes, strict=True)]
    return [logsumexp(row[np.isfinite(row)] / temperature) for row in rest]


def through_bytes(logits, k):
    packed, is_sound = compact_logits.keep_compact(np.float32(logits), k)
    assert is_sound
    assert packed.dtype == tf.uint8
    assert packed.shape[-1] == compact_logits.bytes_of(k, logits.shape[-1])
    return compact_logits.expand(packed, k, logits.shape[-1])


def logits_of(kind, rows, classes):
    rng = np.random.default_rng(classes)
    if kind == "zipf":
        ranks = rng.permuted(np.tile(np.arange(1, classes + 1), (rows, 1)), axis=-1)
        return -1.2 * np.log(ranks) + 2 * rng.normal(size=ranks.shape)
    draw = {
        "normal": lambda size: 4 * rng.normal(size=size),
        "narrow": lambda size: 0.3 * rng.normal(size=size),
        "laplace": lambda size: 3 * rng.laplace(size=size),
        "exponential": lambda size: 3 * rng.exponential(size=size),
        "uniform": lambda size: rng.uniform(-30, 0, size=size),
        "student": lambda size: 2 * rng.standard_t(3, size=size),
    }[kind]
    return draw((rows, classes))


@pytest.mark.parametrize(
    "kind", ["normal", "narrow", "laplace", "exponential", "uniform", "zipf", "student"]
)
@pytest.mark.parametrize(("classes", "k"), [(300, 50), (32000, 50), (65537, 50)])
def test_the_error_is_the_documented_one(kind, classes, k):
    logits = np.float32(logits_of(kind, 4, classes)).astype("float64")
    found = through_bytes(logits, k)
    at = kept(logits, k)
    np.testing.assert_array_equal(found.indices, at)
    centered = logits - logits.max(-1, keepdims=True)
    exact = np.take_along_axis(centered, at, -1)
    scale = -np.sort(centered)[:, [-k - 1]]
    bound = np.sqrt(-exact * scale) / 254 + scale / 254**2 + 1e-5
    assert (np.abs(found.logits - exact) <= bound).all()
    for temperature in TEMPERATURES:
        np.testing.assert_allclose(
            found.rest(temperature),
            exact_rest(logits, at, temperature),
            rtol=0,
            atol={"student": 0.05, "zipf": 0.02}.get(kind, 6e-3),
            err_msg=str(temperature),
        )


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


@pytest.mark.parametrize("shape", [(1, 40), (0, 40), (3, 5, 40)])
def test_graph_and_eager_agree_for_any_rows(shape):
    logits = 4 * np.random.default_rng(1).normal(size=shape).astype("float32")
    spec = tf.TensorSpec([None] * (len(shape) - 1) + [shape[-1]])
    graph = tf.function(
        lambda x: vars(compact_logits.expand(compact_logits.keep_compact(x, 3)[0], 3, 40)),
        input_signature=[spec],
    )
    expected = vars(through_bytes(logits, 3))
    for name, value in graph(logits).items():
        assert value.shape[:-1] == shape[:-1]
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_a_student_learns_as_from_float32(tmp_path, mode):
    histories = []
    for name, write in (("c", compact), ("f", lambda path: caches.written(path, top_k=K))):
        path = write(tmp_path / name)
        joined = kd.load_cache(path, caches.dataset())
        histories.append(
            caches.trained(
                kd.teachers.Cached(path), joined, kd.losses.SoftTargets(3.3), mode, epochs=3
            )[0]["soft_targets"]
        )
    np.testing.assert_allclose(*histories, rtol=0.02)
    assert histories[0][-1] < 0.9 * histories[0][0]


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


def test_a_strategy_reads_it(tmp_path):
    path = compact(tmp_path / "c")
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    with strategy.scope():
        distiller = kd.Distiller(kd.teachers.Cached(path), caches.model(2))
        distiller.compile(keras.optimizers.SGD(0.1), caches.from_logits())
    history = distiller.fit(
        kd.load_cache(path, caches.dataset()), epochs=2, shuffle=False, verbose=0
    ).history["loss"]
    assert history[1] < history[0]


def test_it_needs_top_k_and_says_so(tmp_path):
    with pytest.raises(ValueError, match="few bytes: pass `top_k` too"):
        caches.written(tmp_path / "c", dtype="compact")
    assert not (tmp_path / "c").exists()


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
