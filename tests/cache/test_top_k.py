"""Caches of the largest logits: exact on the kept classes, accurate on the others' log-sum-exp."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd.ops import sparse_logits
from tests import reference
from tests.cache import caches


def logsumexp(values):
    top = values.max(-1, keepdims=True)
    return np.log(np.exp(values - top).sum(-1)) + top[..., 0]


@pytest.mark.parametrize(("classes", "k"), [(7, 1), (7, 6), (100, 10), (1000, 50)])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 3.3, 4.0, 10.0, 16.0, 100.0])
def test_tail_is_accurate_at_any_temperature(classes, k, temperature):
    logits = 5 * np.random.default_rng(classes + k).normal(size=(20, classes))
    sparse = sparse_logits.keep_largest(logits.astype("float32"), k)
    kept = np.argsort(-logits)[:, :k]
    np.testing.assert_array_equal(sparse.indices, kept)
    centered = logits - logits.max(-1, keepdims=True)
    np.testing.assert_allclose(
        sparse.logits, np.take_along_axis(centered, kept, -1), rtol=1e-5, atol=1e-5
    )
    rest = np.delete(centered[0], kept[0])
    exact = [
        logsumexp(np.delete(row, at) / temperature) for row, at in zip(centered, kept, strict=True)
    ]
    assert rest.size == classes - k
    on_grid = temperature in sparse_logits.TEMPERATURES
    np.testing.assert_allclose(
        sparse.rest(temperature), exact, rtol=0, atol=2e-5 if on_grid else 2e-3
    )


@pytest.mark.parametrize("mask", [-1e3, -1e7, -1e9, -1e10, -np.inf])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 16.0, 20.0, 48.0, 1e3])
def test_masked_classes_have_no_mass_at_any_temperature(mask, temperature):
    rng = np.random.default_rng(5)
    logits = 3 * rng.normal(size=(6, 200))
    logits[:, rng.permutation(200)[:120]] = mask
    sparse = sparse_logits.keep_largest(logits.astype("float32"), 4)
    rest = [np.sort(row[row > -900])[:-4] - row.max() for row in logits]
    exact = [logsumexp(row / temperature) for row in rest]
    np.testing.assert_allclose(sparse.rest(temperature), exact, rtol=0, atol=2e-3)


@pytest.mark.parametrize("scale", [30.0, 100.0])
@pytest.mark.parametrize("temperature", [0.6, 5.0, 12.0, 17.0, 30.0, 200.0])
def test_far_from_smooth_the_mass_stays_between_its_bounds(scale, temperature):
    logits = np.repeat([[0.0, -1.0, -1.5, -scale, -scale]], 2, axis=0).astype("float32")
    sparse = sparse_logits.keep_largest(logits, 1)
    found = sparse.rest(temperature).numpy()
    assert (found <= np.log(4)).all()
    assert (found >= -1.0 / temperature - 1e-5).all()  # that of its largest class alone


@pytest.mark.parametrize("classes", [5000, 4999, 801, 800, 37])
@pytest.mark.parametrize("levels", [None, 3, 1])
def test_the_largest_of_many_classes_are_those_of_tensorflow(classes, levels):
    logits = np.random.default_rng(classes).normal(size=(7, classes)).astype("float32")
    if levels is not None:  # of equal logits the first ones are kept
        logits = np.round(logits * levels).clip(-1, 1)
    logits[3, : classes - 3] = -np.inf
    sparse = sparse_logits.keep_largest(logits, 5)
    values, indices = tf.math.top_k(logits, 5)
    np.testing.assert_array_equal(sparse.indices, indices)
    np.testing.assert_array_equal(sparse.logits, values - values[:, :1])


@pytest.mark.parametrize("shape", [(1, 40), (0, 40), (3, 5, 40), (700, 3000)])
def test_rows_are_taken_in_blocks_of_any_number(shape):
    logits = 4 * np.random.default_rng(1).normal(size=shape).astype("float32")
    graph = tf.function(
        lambda x: vars(sparse_logits.keep_largest(x, 3)),
        input_signature=[tf.TensorSpec([None] * (len(shape) - 1) + [shape[-1]])],
    )
    found = graph(logits)
    for name, value in vars(sparse_logits.keep_largest(logits, 3)).items():
        assert value.shape[:-1] == shape[:-1]
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-6)
    flat = logits.reshape(-1, shape[-1])[::97]
    centered = -np.sort(-flat.astype("float64"))
    exact = [logsumexp((row - row[0])[3:] / 2.0) for row in centered]
    rest = np.reshape(sparse_logits.SparseLogits(**found).rest(2.0), [-1])[::97]
    np.testing.assert_allclose(rest, exact, rtol=0, atol=2e-5)


def test_no_tensor_has_tokens_times_kept_times_classes_numbers():
    """It would have 137 GB, as bits that are bytes; the logits have 34 MB."""
    rows, k, classes = 32, 16384, 262144
    logits = np.random.default_rng(3).normal(size=(rows, classes)).astype("float32")
    found = sparse_logits.keep_largest(logits, k).rest(1.0)
    ordered = -np.sort(-logits[:2].astype("float64"))
    exact = [logsumexp((row - row[0])[k:]) for row in ordered]
    np.testing.assert_allclose(found[:2], exact, rtol=0, atol=2e-5)


@pytest.mark.parametrize("column", [0, 399])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("classes", [400, 7])
def test_a_number_that_is_none_shows(column, bad, classes):
    logits = np.random.default_rng(2).normal(size=(4, classes)).astype("float32")
    logits[1, column % classes] = bad
    sparse = sparse_logits.keep_largest(logits, 2)
    found = np.concatenate([sparse.logits, sparse.levels], axis=-1)
    np.testing.assert_array_equal(np.isnan(found).any(axis=-1), [False, True, False, False])


def test_below_the_smallest_temperature_nothing_is_claimed():
    sparse = sparse_logits.keep_largest(np.float32([[3.0, 2.0, 1.0]]), 1)
    assert np.isnan(sparse.rest(0.49)).all()


def test_classes_without_probability_and_no_rest_at_all():
    logits = np.float32([[3.0, -np.inf, 1.0, -np.inf], [1.0, 2.0, 3.0, -np.inf]])
    for temperature in (1.0, 3.0, 50.0):
        rest = sparse_logits.keep_largest(logits, 2).rest(temperature)
        np.testing.assert_allclose(rest, [-np.inf, -2.0 / temperature], rtol=1e-5)
    assert np.isneginf(sparse_logits.keep_largest(logits, 4).rest(2.0)).all()


def coarse(student, teacher, k, temperature):
    """The divergence in which all classes but the teacher's `k` largest are one, float64."""
    kept = np.argsort(-teacher)[:, :k]

    def pooled(logits):
        rest = [
            temperature * logsumexp(np.delete(row, at) / temperature)
            for row, at in zip(logits, kept, strict=True)
        ]
        return np.concatenate([np.take_along_axis(logits, kept, -1), np.c_[rest]], -1)

    return reference.soft_target_loss(pooled(student), pooled(teacher), temperature, "forward_kl")


@pytest.mark.parametrize(
    ("mode", "k"), [("eager", 3), ("graph", 1), ("graph", 3), ("graph", 6), ("xla", 3)]
)
def test_a_student_learns_the_kept_classes_and_the_rest_as_a_whole(tmp_path, mode, k):
    path = caches.written(tmp_path / "c", top_k=k)
    joined = kd.load_cache(path, caches.dataset())
    losses = kd.losses.SoftTargets(4.0)
    distiller = kd.Distiller(kd.teachers.Cached(path), caches.model(2), losses)
    options = {"eager": {"run_eagerly": True}, "graph": {"jit_compile": False}}
    options["xla"] = {"jit_compile": True}
    distiller.compile(keras.optimizers.SGD(0.1), caches.from_logits(), **options[mode])
    found = distiller.evaluate(joined, with_teacher=True, verbose=0, return_dict=True)
    x, _ = caches.arrays()
    student, teacher = (np.float64(caches.model(seed)(x)) for seed in (2, 1))
    expected = coarse(student, teacher, k, 4.0).mean()
    assert found["soft_targets"] == pytest.approx(expected, rel=1e-4)
    full = reference.soft_target_loss(student, teacher, 4.0, "forward_kl").mean()
    assert expected <= full
    history = distiller.fit(joined, epochs=5, shuffle=False, verbose=0).history["soft_targets"]
    assert history[-1] < 0.8 * history[0]


def test_all_classes_kept_are_soft_targets(tmp_path):
    path = caches.written(tmp_path / "c", top_k=caches.CLASSES)
    joined = kd.load_cache(path, caches.dataset())
    found, _ = caches.trained(kd.teachers.Cached(path), joined)
    expected, _ = caches.trained(caches.model(1), caches.dataset())
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5)


def test_a_temperature_schedule_needs_no_other_cache(tmp_path):
    path = caches.written(tmp_path / "c", top_k=6)
    joined = kd.load_cache(path, caches.dataset())
    distiller = kd.Distiller(kd.teachers.Cached(path), caches.model(2))
    distiller.compile("sgd", caches.from_logits())
    schedule = kd.callbacks.TemperatureSchedule(5.0, 1.0)
    history = distiller.fit(
        joined, epochs=5, callbacks=[schedule], shuffle=False, verbose=0
    ).history
    living = kd.Distiller(caches.model(1), caches.model(2))
    living.compile("sgd", caches.from_logits())
    expected = living.fit(
        caches.dataset(),
        epochs=5,
        callbacks=[kd.callbacks.TemperatureSchedule(5.0, 1.0)],
        shuffle=False,
        verbose=0,
    ).history
    # One class is left to the rest: as good as all of them.
    np.testing.assert_allclose(history["soft_targets"], expected["soft_targets"], rtol=2e-3)


def test_probabilities_are_kept_as_logarithms(tmp_path):
    model = caches.model(1)
    options = {"top_k": 3, "from_logits": False}
    path = caches.written(tmp_path / "p", lambda x: tf.nn.softmax(model(x)), **options)
    same = caches.written(tmp_path / "l", model, top_k=3)
    found = [
        caches.read(kd.load_cache(each, caches.dataset()))[1]["logits"] for each in (path, same)
    ]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


def test_other_losses_say_that_they_need_all_logits(tmp_path):
    path = caches.written(tmp_path / "c", top_k=3)
    with pytest.raises(ValueError, match="needs all logits of the teacher"):
        kd.Distiller(kd.teachers.Cached(path), caches.model(2), kd.losses.LogitsMSE())


def test_many_classes_take_few_bytes(tmp_path):
    from keras_kd.teachers.cache.format import bytes_on_disk

    x, _ = caches.arrays(64)
    kernel = np.random.default_rng(0).normal(size=(caches.FEATURES, 5000)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices(x).batch(32)
    options = {"data": data, "dtype": "float16", "teacher": lambda x: x @ kernel}
    dense = bytes_on_disk(caches.written(tmp_path / "dense", **options))
    small = bytes_on_disk(caches.written(tmp_path / "small", top_k=20, **options))
    assert dense / 64 == pytest.approx(2 * 5000, rel=0.05)
    assert small / 64 < 20 * 4 + 12 * 8 + 8 + 60


def test_numbers_of_numpy_are_taken(tmp_path):
    options = {"top_k": np.int64(2), "epochs": np.int64(1), "batches_per_shard": np.int64(3)}
    path = caches.written(tmp_path / "c", **options)
    *_, outputs, _ = caches.read(kd.load_cache(path, caches.dataset()))
    assert tf.nest.flatten(outputs)
