"""A student learns from a cache what it learns from the living teacher."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import reference
from tests.cache import caches


def losses():
    return [kd.losses.SoftTargets(3.0), kd.losses.FeatureHint("h", "h")]


def by_both(tmp_path, mode):
    """What was trained by the living teacher, and by its cache."""
    path = caches.written(tmp_path / "cache", taps=["h"])
    living = caches.trained(caches.model(1), caches.dataset(), losses(), mode)
    joined = kd.load_cache(path, caches.dataset())
    return living, caches.trained(kd.teachers.Cached(path), joined, losses(), mode)


def test_a_float32_cache_gives_the_numbers_of_the_living_teacher(tmp_path):
    (living, by_teacher), (cached, by_cache) = by_both(tmp_path, "graph")
    assert cached == living  # to the last bit
    for one, other in zip(by_cache.get_weights(), by_teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_in_other_modes_the_numbers_are_the_same_but_for_rounding(tmp_path, mode):
    # A cache is written in graph mode, where TensorFlow fuses a teacher's operations on some
    # processors; XLA fuses the teacher with the rest of the step.
    (living, _), (cached, _) = by_both(tmp_path, mode)
    for name, values in living.items():
        np.testing.assert_allclose(cached[name], values, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "bound"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_precision_rounds_the_logits_and_no_more(tmp_path, dtype, bound):
    path = caches.written(tmp_path / "cache", dtype=dtype)
    x, outputs, _ = caches.read(kd.load_cache(path, caches.dataset()))
    exact = caches.model(1).predict(x, verbose=0, batch_size=caches.BATCH)
    np.testing.assert_allclose(np.float32(outputs), exact, rtol=bound, atol=1e-7)
    joined = kd.load_cache(path, caches.dataset())
    living, _ = caches.trained(caches.model(1), caches.dataset())
    cached, _ = caches.trained(kd.teachers.Cached(path), joined)
    np.testing.assert_allclose(cached["soft_targets"], living["soft_targets"], rtol=20 * bound)
    assert cached["soft_targets"] != living["soft_targets"]


def test_no_teacher_runs_and_the_student_learns(tmp_path):
    calls, living = [], caches.model(1)

    def teacher(inputs):
        calls.append(1)
        return living(inputs)

    path = caches.written(tmp_path / "cache", teacher=teacher)
    assert len(calls) == 1  # traced once for all batches
    joined = kd.load_cache(path, caches.dataset()).shuffle(4)
    student = caches.model(2)
    distiller = kd.Distiller(kd.teachers.Cached(path), student, alpha=0.0, beta=1.0)
    distiller.compile(keras.optimizers.Adam(0.02), None)
    history = distiller.fit(joined, epochs=60, shuffle=False, verbose=0).history["soft_targets"]
    assert len(calls) == 1
    assert history[-1] < 0.1 * history[0]
    x, _ = caches.arrays()
    truth = living.predict(x, verbose=0)
    agreement = np.mean(student.predict(x, verbose=0).argmax(-1) == truth.argmax(-1))
    assert agreement > 0.8


def test_sample_weights_and_labels_come_through(tmp_path):
    x, y = caches.arrays()
    weights = np.random.default_rng(3).uniform(0, 2, len(x)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(caches.BATCH)
    path = caches.written(tmp_path / "cache", data=data)
    living, _ = caches.trained(caches.model(1), data)
    cached, _ = caches.trained(kd.teachers.Cached(path), kd.load_cache(path, data))
    unweighted, _ = caches.trained(caches.model(1), caches.dataset())
    assert cached == living != unweighted


def test_evaluate_and_predict_take_joined_and_plain_data(tmp_path):
    path = caches.written(tmp_path / "cache")
    joined = kd.load_cache(path, caches.dataset())
    student = caches.model(2)
    distiller = kd.Distiller(kd.teachers.Cached(path), student)
    distiller.compile("sgd", caches.from_logits(), metrics=["accuracy"])
    plain = distiller.evaluate(caches.dataset(), verbose=0)
    assert distiller.evaluate(joined, verbose=0) == plain
    np.testing.assert_array_equal(
        distiller.predict(joined, verbose=0), student.predict(caches.dataset(), verbose=0)
    )
    x, _y = caches.arrays()
    found = distiller.evaluate(joined, verbose=0, with_teacher=True, return_dict=True)
    logits = [np.float64(m.predict(x, verbose=0)) for m in (student, caches.model(1))]
    expected = reference.soft_target_loss(*logits, 4.0, "forward_kl").mean()
    assert found["soft_targets"] == pytest.approx(expected, rel=1e-5)


def test_a_distiller_with_a_cached_teacher_is_saved_and_resumed(tmp_path):
    path = caches.written(tmp_path / "cache")
    joined = kd.load_cache(path, caches.dataset())
    distiller = kd.Distiller(kd.teachers.Cached(path), caches.model(2))
    distiller.compile("adam", caches.from_logits())
    distiller.fit(joined, epochs=1, shuffle=False, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    again = keras.models.load_model(tmp_path / "distiller.keras")
    histories = [
        each.fit(joined, epochs=2, shuffle=False, verbose=0).history for each in (distiller, again)
    ]
    assert histories[0] == histories[1]


def test_several_outputs(tmp_path):
    def two_heads(seed):
        inputs = keras.Input((caches.FEATURES,))
        heads = {n: keras.layers.Dense(3, name=n)(inputs) for n in ("left", "right")}
        built = keras.Model(inputs, heads)
        rng = np.random.default_rng(seed)
        built.set_weights([rng.normal(size=weight.shape) for weight in built.weights])
        return built

    x, _ = caches.arrays()
    y = {name: np.arange(len(x)) % 3 for name in ("left", "right")}
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(caches.BATCH)
    path = caches.written(tmp_path / "cache", teacher=two_heads(1), data=data)
    one, _ = caches.trained(two_heads(1), data, student=two_heads(2))
    other, _ = caches.trained(
        kd.teachers.Cached(path), kd.load_cache(path, data), student=two_heads(2)
    )
    assert one == other


def test_views_are_kept_one_by_one(tmp_path):
    def view(number):
        def noisy(x, y):
            noise = tf.random.stateless_normal(tf.shape(x), (number, 0))
            return x + noise, y

        return caches.dataset().map(noisy)

    path = caches.written(tmp_path / "cache", data=view, epochs=3)
    teacher = caches.model(1)
    for number in range(3):
        x, outputs, _ = caches.read(kd.load_cache(path, view, epoch=number))
        np.testing.assert_allclose(outputs, teacher(x), rtol=1e-5, atol=1e-6)
    joined = kd.load_cache(path, view)
    steps = -(-caches.ROWS // caches.BATCH)
    assert int(joined.cardinality()) == 3 * steps
    living, _ = caches.trained(teacher, view(0).concatenate(view(1)).concatenate(view(2)), epochs=1)
    cached, _ = caches.trained(kd.teachers.Cached(path), joined, epochs=1)
    assert cached == living


def test_a_teacher_of_another_runtime_is_cached(tmp_path):
    class Host(kd.teachers.HostTeacher):
        def predict(self, inputs, layers=()):
            return np.tanh(inputs @ np.ones((caches.FEATURES, caches.CLASSES), "float32")), {}

    path = caches.written(tmp_path / "cache", teacher=Host())
    x, outputs, _ = caches.read(kd.load_cache(path, caches.dataset()))
    np.testing.assert_allclose(outputs, np.tanh(x.sum(1, keepdims=True).repeat(7, 1)), rtol=1e-5)
