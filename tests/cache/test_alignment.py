"""A dataset that is not the one the teacher saw is an error that names the first row."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.cache import caches


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return caches.written(tmp_path_factory.mktemp("cache") / "cache")


def changed(row, column=2):
    x, _ = caches.arrays()
    x[row, column] = np.nextafter(x[row, column], np.float32(9))
    return caches.dataset(x)


def swapped(one, other):
    x, _ = caches.arrays()
    x[[one, other]] = x[[other, one]]
    return caches.dataset(x)


def unknown(data):
    return data.filter(lambda x, y: True)


CASES = {
    "a row changed by one bit": (lambda: changed(37), "batch 4, sample 5 is the first"),
    "the first row changed": (lambda: changed(0), "batch 0, sample 0 is the first"),
    "two rows swapped": (lambda: swapped(10, 50), "batch 1, sample 2 is the first"),
    "shuffled": (lambda: caches.dataset().shuffle(9, seed=1), "sample 0 is the first"),
    "a batch less": (lambda: caches.dataset().take(8), "has 8 batches; the teacher saw 9"),
    "a batch more": (
        lambda: caches.dataset().concatenate(caches.dataset().take(1)),
        "has 10 batches; the teacher saw 9",
    ),
    "repeated": (lambda: caches.dataset().repeat(), "has infinitely many batches"),
    "a batch less, of unknown length": (
        lambda: unknown(caches.dataset().take(8)),
        "[Aa]t batch 8 the dataset has ended, and the cache goes on",
    ),
    "a batch more, of unknown length": (
        lambda: unknown(caches.dataset().concatenate(caches.dataset().take(1))),
        "[Aa]t batch 9 the cache has ended, and the dataset goes on",
    ),
    "the last batch shorter": (
        lambda: caches.dataset(*(a[:-2] for a in caches.arrays())),
        r"batch 8, sample 5 is the first \(the batch has 5 samples, and had 7 when",
    ),
    "another type": (
        lambda: caches.dataset(caches.arrays()[0].astype("float64")),
        "batch 0, sample 0 is the first",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_first_row_that_differs_is_named(path, case):
    make, message = CASES[case]
    keras.utils.set_random_seed(0)  # the order of the shuffled batches depends on it
    distiller = kd.Distiller(kd.teachers.Cached(path), caches.model(2))
    distiller.compile("sgd", caches.from_logits())
    with pytest.raises(kd.CacheError, match=message):
        distiller.fit(kd.load_cache(path, make()), shuffle=False, verbose=0)


def test_labels_may_change(path):
    _x, y = caches.arrays()
    joined = kd.load_cache(path, caches.dataset(y=y[::-1].copy()))
    assert sum(len(element[1]) for element in joined) == caches.ROWS


@pytest.mark.parametrize("batch", [1, 5, 16, 71, 100])
def test_batches_may_have_another_size(path, batch):
    x, outputs, _ = caches.read(kd.load_cache(path, caches.dataset(batch=batch)))
    exact = caches.model(1).predict(x, verbose=0)
    np.testing.assert_allclose(outputs, exact, rtol=1e-5, atol=1e-6)
    assert len(x) == caches.ROWS


def test_batches_of_another_size_are_compared_too(path):
    x, _ = caches.arrays()
    x[20] += 1
    with pytest.raises(tf.errors.InvalidArgumentError, match="batch 1, sample 4 is the first"):
        caches.read(kd.load_cache(path, caches.dataset(x, batch=16)))


def test_rows_are_found_by_their_inputs(path):
    shuffled = caches.dataset().unbatch().shuffle(80, seed=5).take(40).batch(9)
    x, outputs, _ = caches.read(kd.load_cache(path, shuffled, key="inputs"))
    np.testing.assert_allclose(outputs, caches.model(1)(x), rtol=1e-5, atol=1e-6)
    assert len(x) == 40


def test_a_row_that_the_teacher_never_saw_is_named(path):
    with pytest.raises(
        tf.errors.OpError, match="sample 3 of a batch is none that the cached teacher"
    ):
        caches.read(kd.load_cache(path, changed(11), key="inputs"))


def keyed(x, keys, batch=caches.BATCH):
    data = tf.data.Dataset.from_tensor_slices(({"x": x, "id": keys}, keys % 3))
    return data.batch(batch)


def key_of(inputs, labels):
    return inputs["id"]


def teacher_of(model):
    return lambda inputs: model(inputs["x"])


@pytest.mark.parametrize("as_text", [False, True])
def test_rows_are_found_by_a_key_of_the_data(tmp_path, as_text):
    x, _ = caches.arrays()
    numbers = np.arange(len(x))[::-1].copy()
    key = (lambda i, y: tf.strings.as_string(i["id"])) if as_text else key_of
    model = caches.model(1)
    path = caches.written(tmp_path / "c", teacher_of(model), keyed(x, numbers), key=key)
    order = np.random.default_rng(0).permutation(len(x))[:50]
    joined = kd.load_cache(path, keyed(x[order], numbers[order], 11), key=key)
    outputs = np.concatenate([e[0]["keras_kd_teacher"]["outputs"] for e in joined])
    np.testing.assert_allclose(outputs, model(x[order]), rtol=1e-5, atol=1e-6)


def test_by_key_inputs_are_compared_unless_check_inputs_is_false(tmp_path):
    x, _ = caches.arrays()
    numbers = np.arange(len(x))
    path = caches.written(
        tmp_path / "c", teacher_of(caches.model(1)), keyed(x, numbers), key=key_of
    )
    other = keyed(x + 1, numbers)
    with pytest.raises(tf.errors.OpError, match="inputs of sample 0 of a batch differ"):
        list(kd.load_cache(path, other, key=key_of))
    assert len(list(kd.load_cache(path, other, key=key_of, check_inputs=False))) == 9


def test_keys_that_are_not_unique_are_refused(tmp_path):
    x, _ = caches.arrays()
    data = keyed(x, np.arange(len(x)) // 2)
    path = caches.written(tmp_path / "c", teacher_of(caches.model(1)), data, key=key_of)
    with pytest.raises(kd.CacheError, match="Keys of the cache are not unique"):
        kd.load_cache(path, data, key=key_of)


def test_views_are_not_mistaken_for_each_other(tmp_path):
    def view(number):
        return caches.dataset(caches.arrays()[0] + np.float32(number))

    path = caches.written(tmp_path / "c", data=view, epochs=2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="batch 0, sample 0 is the first"):
        caches.read(kd.load_cache(path, lambda number: view(1 - number)))


@pytest.mark.parametrize("kind", ["text", "ragged", "sparse", "several", "numbers"])
def test_fingerprints_distinguish_all_kinds_of_inputs(tmp_path, kind):
    from keras_kd.teachers.cache import fingerprints

    rows = {
        "text": lambda: tf.constant(["a", "b", "ab", ""]),
        "ragged": lambda: tf.ragged.constant([[0.0], [0.0, 0.0], [], [1.0]]),
        "sparse": lambda: tf.sparse.from_dense([[0, 1], [1, 0], [0, 0], [1, 1]]),
        "several": lambda: {"a": tf.constant([[1], [1], [2], [2]]), "b": tf.constant([1, 2, 1, 2])},
        "numbers": lambda: tf.constant([3.0, 4.0, -3.0, 0.0]),
    }[kind]
    found = [fingerprints.fingerprint_samples(rows()).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*found)
    assert len(set(found[0].tolist())) == 4
    in_graph = tf.function(lambda: fingerprints.fingerprint_samples(rows()))()
    np.testing.assert_array_equal(in_graph, found[0])


def test_a_batch_without_teacher_outputs_is_refused(path):
    distiller = kd.Distiller(kd.teachers.Cached(path), caches.model(2))
    distiller.compile("sgd", caches.from_logits())
    with pytest.raises(ValueError, match="carries no teacher outputs.*load_cache"):
        distiller.fit(caches.dataset(), shuffle=False, verbose=0)


def test_a_living_teacher_does_not_take_a_caches_outputs(path):
    distiller = kd.Distiller(caches.model(1), caches.model(2))
    distiller.compile("sgd", caches.from_logits())
    with pytest.raises(ValueError, match="carries the outputs of a cached teacher"):
        distiller.fit(kd.load_cache(path, caches.dataset()), shuffle=False, verbose=0)


def test_the_outputs_of_another_cache_are_refused(path, tmp_path):
    other = caches.written(tmp_path / "other", caches.model(9))
    distiller = kd.Distiller(kd.teachers.Cached(other), caches.model(2))
    distiller.compile("sgd", caches.from_logits())
    with pytest.raises(ValueError, match="Load the dataset with the cache that teaches"):
        distiller.fit(kd.load_cache(path, caches.dataset()), shuffle=False, verbose=0)


def test_another_batch_size_with_the_same_number_of_batches(tmp_path):
    path = caches.written(tmp_path / "cache", data=caches.dataset(batch=24))
    x, outputs, _ = caches.read(kd.load_cache(path, caches.dataset(batch=30)))
    assert len(x) == caches.ROWS  # three batches, then and now
    np.testing.assert_allclose(outputs, caches.model(1).predict(x, verbose=0), rtol=1e-5, atol=1e-6)
