"""Teachers without a second model: the student's deepest exit, and a virtual one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import matrix, reference
from tests.cache import caches


def exits(seed=1):
    """Two dense layers, `a` and `b`, with an exit after each."""
    inputs = keras.Input((caches.FEATURES,))
    a = keras.layers.Dense(6, activation="tanh", name="a")(inputs)
    b = keras.layers.Dense(6, activation="tanh", name="b")(a)
    heads = {
        "early": keras.layers.Dense(caches.CLASSES, name="early")(a),
        "final": keras.layers.Dense(caches.CLASSES, name="final")(b),
    }
    built = keras.Model(inputs, heads)
    rng = np.random.default_rng(seed)
    built.set_weights([rng.normal(size=weight.shape) for weight in built.weights])
    return built


def batch():
    x, y = caches.arrays(12)
    return x, {"early": y, "final": y}


@pytest.mark.parametrize("mode", matrix.MODES)
def test_the_deepest_exit_teaches_the_others(mode):
    student, (x, y) = exits(), batch()
    losses = [kd.losses.SoftTargets(2.0), kd.losses.FeatureHint("b", "a", name="hint")]
    distiller = kd.Distiller(kd.teachers.DeepestExit(), student, losses, alpha=0.0, beta=1.0)
    options = {"eager": {"run_eagerly": True}, "graph": {"jit_compile": False}}
    options["xla"] = {"jit_compile": True}
    distiller.compile(keras.optimizers.SGD(0.0), caches.from_logits(), **options[mode])
    found = distiller.train_on_batch(x, y, return_dict=True)
    outputs = {name: np.float64(value) for name, value in student(x).items()}
    soft = reference.soft_target_loss(outputs["early"], outputs["final"], 2.0, "forward_kl").mean()
    inner = keras.Model(student.input, [student.get_layer(n).output for n in "ab"])
    a, b = (np.float64(value) for value in inner(x))
    assert found["soft_targets"] == pytest.approx(soft, rel=1e-5)
    assert found["hint"] == pytest.approx(((a - b) ** 2).mean(), rel=1e-5)


def test_no_gradient_flows_into_what_teaches():
    student, (x, y) = exits(), batch()
    distiller = kd.Distiller(kd.teachers.DeepestExit("final"), student, alpha=0.0, beta=1.0)
    distiller.compile(keras.optimizers.SGD(1.0), caches.from_logits())
    before = {w.path: w.numpy() for w in student.weights}
    distiller.train_on_batch(x, y)
    moved = {w.path for w in student.weights if np.abs(w.numpy() - before[w.path]).max() > 1e-6}
    assert {path.split("/")[-2] for path in moved} == {"a", "early"}


def test_the_student_runs_once():
    calls = []

    class Counting(keras.layers.Layer):
        def call(self, inputs):
            calls.append(1)
            return inputs

    inputs = keras.Input((caches.FEATURES,))
    counted = Counting()(inputs)
    heads = {n: keras.layers.Dense(3, name=n)(counted) for n in ("early", "final")}
    distiller = kd.Distiller(kd.teachers.DeepestExit(), keras.Model(inputs, heads))
    distiller.compile("sgd", caches.from_logits(), run_eagerly=True)
    x, y = batch()
    y = {name: value % 3 for name, value in y.items()}
    distiller.train_on_batch(x, y)
    calls.clear()
    distiller.train_on_batch(x, y)
    assert len(calls) == 1


def test_exits_are_saved(tmp_path):
    student, (x, y) = exits(), batch()
    distiller = kd.Distiller(kd.teachers.DeepestExit("final"), student)
    distiller.compile("sgd", caches.from_logits())
    distiller.fit(x, y, verbose=0, shuffle=False)
    distiller.save(tmp_path / "d.keras")
    again = keras.models.load_model(tmp_path / "d.keras")
    histories = [d.fit(x, y, verbose=0, shuffle=False).history for d in (distiller, again)]
    assert histories[0] == histories[1]


def test_a_student_with_one_output_has_no_exits():
    with pytest.raises(ValueError, match="which has only one. Give it exits"):
        kd.Distiller(kd.teachers.DeepestExit(), caches.model(1))
    with pytest.raises(ValueError, match="output 'middle'"):
        kd.Distiller(kd.teachers.DeepestExit("middle"), exits())


@pytest.mark.parametrize("mode", matrix.MODES)
@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_a_virtual_teacher_says_what_the_labels_say(mode, temperature):
    student, (x, y) = caches.model(1), caches.arrays(12)
    y = y.copy()
    y[3] = -1  # without a label: all classes alike
    losses = kd.losses.SoftTargets(temperature)
    teacher = kd.teachers.VirtualTeacher(0.8)
    distiller = kd.Distiller(teacher, student, losses, alpha=0.0, beta=1.0)
    options = {"eager": {"run_eagerly": True}, "graph": {"jit_compile": False}}
    options["xla"] = {"jit_compile": True}
    distiller.compile("sgd", None, **options[mode])
    found = distiller.train_on_batch(x, y, return_dict=True)["soft_targets"]
    fresh = np.float64(caches.model(1)(x))
    probabilities = np.full(fresh.shape, 0.2 / (caches.CLASSES - 1))
    probabilities[np.arange(12), y] = 0.8
    probabilities[3] = 1 / caches.CLASSES
    truth = reference.soft_target_loss(fresh, np.log(probabilities), temperature, "forward_kl")
    assert found == pytest.approx(truth.mean(), rel=1e-4)


def test_with_temperature_one_it_is_label_smoothing():
    x, y = caches.arrays()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(caches.BATCH)
    smoothing = 0.3  # Keras spreads it over all classes, the label's own included
    confidence = 1 - smoothing + smoothing / caches.CLASSES
    _, student = caches.trained(
        kd.teachers.VirtualTeacher(confidence), data, [kd.losses.SoftTargets(1.0, weight=1.0)]
    )
    plain = caches.model(2)
    hot = tf.data.Dataset.from_tensor_slices((x, np.eye(caches.CLASSES)[y])).batch(caches.BATCH)
    smooth = keras.losses.CategoricalCrossentropy(True, label_smoothing=smoothing)
    exact = keras.losses.CategoricalCrossentropy(True)
    plain.compile(keras.optimizers.SGD(0.1), lambda y, z: 0.5 * exact(y, z) + 0.5 * smooth(y, z))
    plain.fit(hot, epochs=2, shuffle=False, verbose=0)
    for one, other in zip(student.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_bad_arguments():
    for confidence in (0.0, 1.0):
        with pytest.raises(ValueError, match="`confidence`. Expected a number between 0 and 1"):
            kd.teachers.VirtualTeacher(confidence)
    distiller = kd.Distiller(kd.teachers.VirtualTeacher(), caches.model(1), alpha=0.0, beta=1.0)
    distiller.compile("sgd", None)
    with pytest.raises(ValueError, match="made of the labels, and the data has none"):
        distiller.fit(caches.arrays()[0], verbose=0)
    with pytest.raises(ValueError, match="VirtualTeacher has no layers"):
        kd.Distiller(kd.teachers.VirtualTeacher(), caches.model(1), kd.losses.FeatureHint("h", "h"))
