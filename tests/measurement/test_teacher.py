"""How near a model is to its teacher, against float64 NumPy."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.cache import caches
from tests.measurement import files

X, Y = files.arrays()
WEIGHTS = np.random.default_rng(5).uniform(0.5, 2.0, size=37).astype("float32")


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def shares(seed):
    return softmax(np.asarray(files.classifier(seed)(X), "float64"))


def against(teacher, data=(X, Y), **options):
    options = {"latency": False, **options}
    return kd.measure(files.classifier(1), data, teacher=teacher, **options).teacher


def expected(weights):
    p, q = shares(2), shares(1)
    mean = lambda values: np.average(values, weights=weights)  # noqa: E731
    return {
        "agreement": mean(p.argmax(axis=1) == q.argmax(axis=1)),
        "kl": mean((p * np.log(p / q)).sum(axis=1)),
        "mean_abs_difference": mean(abs(p - q).mean(axis=1)),
    }


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_of_teachers_of_any_kind(weights):
    data = (X, Y) if weights is None else (X, Y, weights)
    teacher = files.classifier(2)
    for given in (
        teacher,
        kd.teachers.KerasTeacher(teacher),
        lambda x: teacher(x),
        np.asarray(teacher(X)),
    ):
        found = against(given, data, batch_size=8)
        assert found == pytest.approx(expected(weights), rel=1e-4)
    assert 0 < found["agreement"] < 1


def test_of_itself():
    found = against(files.classifier(1))
    assert found["agreement"] == 1
    assert abs(found["kl"]) < 1e-9
    assert found["mean_abs_difference"] < 1e-9


def test_of_probabilities_against_logits():
    teacher = keras.Sequential([keras.Input((5,)), files.classifier(2), keras.layers.Softmax()])
    found = against(teacher, teacher_from_logits=False)
    assert found == pytest.approx(expected(None), rel=1e-3)
    with pytest.raises(ValueError, match="teacher_from_logits=False"):
        against(teacher)


def test_a_probability_of_0_is_a_large_but_finite_divergence():
    q, p = np.float32([[1, 0, 0]]), np.float32([[0.5, 0.5, 0]])
    model = keras.Sequential([keras.Input((3,)), keras.layers.Identity()])
    data = (q, np.array([0]))
    found = kd.measure(
        model, data, teacher=p, from_logits=False, task="multiclass", latency=False
    ).teacher
    assert found["kl"] == pytest.approx(0.5 * np.log(0.5) + 0.5 * (np.log(0.5) + 104), rel=1e-6)


def test_of_yes_or_no_and_of_several_labels():
    yes = [1 / (1 + np.exp(-np.asarray(files.classifier(seed)(X), "float64"))) for seed in (2, 1)]
    p, q = yes
    each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    labels = np.random.default_rng(0).integers(2, size=p.shape)
    found = against(files.classifier(2), (X, labels))
    assert found["agreement"] == pytest.approx(((p > 0.5) == (q > 0.5)).mean())
    assert found["kl"] == pytest.approx(each.sum(axis=1).mean(), rel=1e-5)
    assert found["mean_abs_difference"] == pytest.approx(abs(p - q).mean(), rel=1e-5)

    models = [files.classifier(seed, classes=1) for seed in (2, 1)]
    p, q = (1 / (1 + np.exp(-np.asarray(each(X), "float64")[:, 0])) for each in models)
    found = kd.measure(models[1], (X, Y > 1), teacher=models[0], latency=False).teacher
    each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert found["kl"] == pytest.approx(each.mean(), rel=1e-4)
    assert found["mean_abs_difference"] == pytest.approx(abs(p - q).mean(), rel=1e-4)


def test_of_regression():
    models = [files.classifier(seed, classes=1) for seed in (2, 1)]
    values = [np.asarray(each(X), "float64") for each in models]
    data = (X, np.linspace(0, 1, len(X)), WEIGHTS)
    found = kd.measure(models[1], data, teacher=models[0], latency=False).teacher
    difference = np.average(abs(values[0] - values[1])[:, 0], weights=WEIGHTS)
    assert found == pytest.approx({"mean_abs_difference": difference}, rel=1e-5)


def test_outputs_of_a_file_belong_to_those_of_their_names(tmp_path):
    inputs = keras.Input((5,))
    heads = lambda names: [keras.layers.Dense(2, name=name)(inputs) for name in names]  # noqa: E731
    teacher = files.filled(keras.Model(inputs, dict(zip("ab", heads("ab"), strict=True))), 1)
    student = files.filled(keras.Model(inputs, heads("ba")), 2)
    path = files.tflite(teacher, tmp_path / "t.tflite")
    labels = {name: np.random.default_rng(0).normal(size=(len(X), 2)) for name in "ab"}
    given = {"teacher": kd.teachers.TFLiteTeacher(path), "task": "regression", "latency": False}
    for index, name in enumerate("ba"):
        found = kd.measure(student, (X, labels), output=name, **given).teacher
        difference = abs(np.float64(student(X)[index]) - np.float64(teacher(X)[name])).mean()
        assert found["mean_abs_difference"] == pytest.approx(difference, rel=1e-4)


def test_of_a_cache(tmp_path):
    path = caches.written(tmp_path / "c")
    data = kd.load_cache(path, caches.dataset())
    student = caches.model(2)
    found = kd.measure(student, data, teacher=kd.teachers.Cached(path), latency=False)
    living = kd.measure(student, caches.dataset(), teacher=caches.model(1), latency=False)
    assert found.teacher == pytest.approx(living.teacher, rel=1e-5)


def test_teachers_that_do_not_fit():
    with pytest.raises(ValueError, match="`teacher` has 36 samples where the data has 37"):
        against(np.zeros((36, 4)))
    with pytest.raises(ValueError, match="`teacher` has 38 samples where the data has 37"):
        against(np.zeros((38, 4)))
    with pytest.raises(ValueError, match="has 7 outputs per sample where the model has 4"):
        against(files.classifier(2, classes=7))
    with pytest.raises(ValueError, match="The teacher gives NaN or infinities in 37 of 37 samples"):
        against(np.full((37, 4), np.nan))
    with pytest.raises(ValueError, match="`teacher` must be a keras.Model"):
        against("teacher.keras")
    with pytest.raises(ValueError, match="cannot be compared with: it looks at the student"):
        against(kd.teachers.VirtualTeacher(0.9))
