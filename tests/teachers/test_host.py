"""Teachers outside of TensorFlow run in the input pipeline, with any kind of data."""

import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import matrix
from tests.cache import caches

KERNEL = np.random.default_rng(4).normal(size=(caches.FEATURES, caches.CLASSES)).astype("float32")


class Host(kd.teachers.HostTeacher):
    """A linear teacher in NumPy, which remembers what it was asked, and by which thread."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.asked = kd.models.Untracked([])
        self.supports_jit = True

    def predict(self, inputs, layers=()):
        self.asked.value.append((len(inputs), threading.get_ident()))
        return inputs @ KERNEL, dict.fromkeys(layers, inputs * 2.0)

    def resolve(self, layer):
        return layer


def linear():
    model = keras.Sequential(
        [keras.Input((caches.FEATURES,)), keras.layers.Dense(caches.CLASSES, use_bias=False)]
    )
    model.set_weights([KERNEL])
    return model


class Sequence(keras.utils.PyDataset):
    def __init__(self, parts):
        super().__init__(workers=1)
        self.parts = parts

    def __len__(self):
        return -(-caches.ROWS // caches.BATCH)

    def __getitem__(self, index):
        rows = slice(index * caches.BATCH, (index + 1) * caches.BATCH)
        return tuple(part[rows] for part in self.parts)


def generated(parts):
    batches = Sequence(parts)
    for _ in range(3):
        for i in range(len(batches)):
            yield batches[i]


KINDS = {
    "arrays": lambda x, y, w: {"x": x, "y": y, "sample_weight": w, "batch_size": caches.BATCH},
    "dataset": lambda *parts: {"x": tf.data.Dataset.from_tensor_slices(parts).batch(caches.BATCH)},
    "PyDataset": lambda *parts: {"x": Sequence(parts)},
    "generator": lambda *parts: {"x": generated(parts), "steps_per_epoch": 9},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", matrix.modes("graph", "xla"))
def test_it_teaches_as_the_same_model_in_keras(kind, mode):
    x, y = caches.arrays()
    weights = np.random.default_rng(1).uniform(0.5, 2, len(x)).astype("float32")
    histories = []
    for teacher in (linear(), Host()):
        distiller = kd.Distiller(teacher, caches.model(2))
        distiller.compile(
            keras.optimizers.SGD(0.1), caches.from_logits(), jit_compile=mode == "xla"
        )
        data = KINDS[kind](x, y, weights)
        histories.append(distiller.fit(**data, epochs=2, shuffle=False, verbose=0).history)
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=2e-6)


def test_it_runs_once_a_batch_off_the_training_thread():
    teacher = Host()
    distiller = kd.Distiller(teacher, caches.model(2))
    distiller.compile("sgd", caches.from_logits())
    distiller.fit(caches.dataset(), epochs=1, shuffle=False, verbose=0)
    teacher.asked.value.clear()
    distiller.fit(caches.dataset(), epochs=2, shuffle=False, verbose=0)
    steps = [(rows, thread) for rows, thread in teacher.asked.value if rows != 2]  # 2: its shapes
    # In any order: TensorFlow asks for several batches at a time, and hands them on in theirs.
    assert sorted(rows for rows, _ in steps) == 2 * [7] + 16 * [8]
    assert threading.get_ident() not in {thread for _, thread in steps}


def test_it_runs_in_evaluate_only_where_it_must():
    teacher = Host()
    distiller = kd.Distiller(teacher, caches.model(2))
    distiller.compile("sgd", caches.from_logits())
    teacher.asked.value.clear()
    plain = distiller.evaluate(caches.dataset(), verbose=0, return_dict=True)
    assert not teacher.asked.value
    both = distiller.evaluate(caches.dataset(), verbose=0, return_dict=True, with_teacher=True)
    assert sorted(plain) == ["loss"]
    living = kd.Distiller(linear(), caches.model(2))
    living.compile("sgd", caches.from_logits())
    expected = living.evaluate(caches.dataset(), verbose=0, return_dict=True, with_teacher=True)
    assert both["soft_targets"] == pytest.approx(expected["soft_targets"], rel=1e-5)


@pytest.mark.parametrize("how", ["validation_data", "validation_split"])
def test_validation(how):
    x, y = caches.arrays()
    options = {
        "validation_data": {"validation_data": (x[:20], y[:20])},
        "validation_split": {"validation_split": 0.25},
    }[how]
    histories = []
    for teacher in (linear(), Host()):
        distiller = kd.Distiller(teacher, caches.model(2))
        distiller.compile(keras.optimizers.SGD(0.1), caches.from_logits())
        distiller.evaluate_with_teacher = True
        histories.append(distiller.fit(x, y, shuffle=False, verbose=0, **options).history)
    assert "val_soft_targets" in histories[1]
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-5)


def test_shuffled_arrays_are_shuffled_with_their_answers():
    teacher, student = Host(), caches.model(2)
    distiller = kd.Distiller(teacher, student, kd.losses.SoftTargets(1.0), alpha=0.0, beta=1.0)
    distiller.compile(keras.optimizers.Adam(0.02), None)
    x, y = caches.arrays()
    history = distiller.fit(x, y, epochs=60, verbose=0).history["soft_targets"]
    assert history[-1] < 0.3 * history[0]


def test_its_layers_are_tapped():
    hint = kd.losses.FeatureHint("inner", "h", projector=None, name="hint")
    inputs = keras.Input((caches.FEATURES,))
    hidden = keras.layers.Dense(caches.FEATURES, name="h")(inputs)
    student = keras.Model(inputs, keras.layers.Dense(caches.CLASSES)(hidden))
    x, y = caches.arrays()
    before = np.float64(keras.Model(student.input, student.get_layer("h").output)(x))
    distiller = kd.Distiller(Host(), student, [hint])
    distiller.compile(keras.optimizers.SGD(0.0), caches.from_logits())
    found = distiller.fit(x, y, verbose=0).history["hint"][0]
    assert found == pytest.approx(((before - 2 * x) ** 2).mean(), rel=1e-5)


def test_train_on_batch_asks_in_the_step():
    x, y = caches.arrays()
    logs = []
    for teacher in (linear(), Host()):
        distiller = kd.Distiller(teacher, caches.model(2))
        distiller.compile("sgd", caches.from_logits(), jit_compile=False)
        logs.append(distiller.train_on_batch(x, y, return_dict=True))
    assert logs[1] == pytest.approx(logs[0], rel=1e-5)


def test_an_ensemble_may_have_one_as_a_member():
    ensemble = kd.teachers.Ensemble([Host(), caches.model(3)])
    same = kd.teachers.Ensemble([linear(), caches.model(3)])
    one, _ = caches.trained(ensemble, caches.dataset())
    other, _ = caches.trained(same, caches.dataset())
    for name, values in other.items():
        np.testing.assert_allclose(one[name], values, rtol=1e-5)


def test_its_preprocessing_and_the_distillers_come_before_it():
    teacher = Host(preprocess=lambda x: 3.0 * x)
    x, y = caches.arrays()
    logs = []
    for given, before in ((teacher, lambda x: x + 1.0), (linear(), lambda x: 3.0 * (x + 1.0))):
        distiller = kd.Distiller(given, caches.model(2), teacher_preprocess=before)
        distiller.compile("sgd", caches.from_logits(), jit_compile=False)
        logs.append(distiller.fit(x, y, shuffle=False, verbose=0).history)
    for name, values in logs[1].items():
        np.testing.assert_allclose(logs[0][name], values, rtol=1e-5)


def test_it_runs_one_batch_at_a_time():
    inside, overlaps = [], []

    class Slow(Host):
        def predict(self, inputs, layers=()):
            overlaps.append(len(inside))
            inside.append(1)
            time.sleep(0.02)
            inside.pop()
            return super().predict(inputs, layers)

    teacher = Slow()
    x = np.ones((4, caches.FEATURES), "float32")
    threads = [threading.Thread(target=teacher, args=(x,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(overlaps) >= 4
    assert max(overlaps) == 0


class OfTwo(Host):
    """Takes two inputs, which must be of float32 as they are in TensorFlow's steps."""

    def predict(self, inputs, layers=()):
        assert {x.dtype for x in keras.tree.flatten(inputs)} == {np.dtype("float32")}
        return super().predict(sum(keras.tree.flatten(inputs)))


def test_inputs_in_a_list_and_numbers_of_64_bits():
    x, y = caches.arrays()
    one, other = (keras.Input((caches.FEATURES,)) for _ in range(2))
    joined = keras.layers.Add()([one, other])
    student = keras.Model([one, other], keras.layers.Dense(caches.CLASSES)(joined))
    teacher = OfTwo()
    distiller = kd.Distiller(teacher, student)
    distiller.compile("sgd", caches.from_logits())
    distiller.fit([x.astype("float64"), x.astype("float64")], y, verbose=0)
    assert teacher.asked.value


def test_labels_in_a_plain_list():
    x, y = caches.arrays()
    student = linear()
    distiller = kd.Distiller(Host(), student)
    distiller.compile("sgd", caches.from_logits())
    distiller.fit(x, y.tolist(), verbose=0)
    assert np.abs(student.get_weights()[0] - KERNEL).max() > 0


def test_an_answer_is_asked_for_what_is_there_and_not_for_zeros():
    class NoZeros(Host):
        def predict(self, inputs, layers=()):
            if not np.any(inputs):
                raise ValueError("It has nothing to say of zeros.")
            return super().predict(inputs, layers)

    x, _ = caches.arrays()
    np.testing.assert_allclose(NoZeros()(x), x @ KERNEL, rtol=1e-6)
    with pytest.raises(ValueError, match="nothing to say of zeros"):
        tf.function(NoZeros(), autograph=False)(x)


def test_a_scalar_stays_one_when_the_shapes_are_found_out():
    class Scaled(Host):
        def predict(self, inputs, layers=()):
            rows, factor = inputs
            assert np.shape(factor) == ()
            return rows * factor, {}

    x, _ = caches.arrays()
    function = tf.function(Scaled(), autograph=False)
    np.testing.assert_allclose(function((tf.constant(x), tf.constant(2.0))), 2 * x, rtol=1e-6)


def test_an_output_whose_shape_changes_raises():
    class Growing(Host):
        def predict(self, inputs, layers=()):
            return np.zeros((len(inputs), 1 + int(inputs.any()))), {}

    x, _ = caches.arrays()
    with pytest.raises(tf.errors.OpError, match=r"shape \(71, 2\), where it gave \(None, 1\)"):
        tf.function(Growing(), autograph=False)(x)


@pytest.mark.parametrize(
    ("y", "weights", "lengths"),
    [
        (np.zeros(60, int), None, "x: 71, y: 60"),
        (np.zeros(71, int), np.ones(5), "x: 71, y: 71, sample_weight: 5"),
        ([0] * 12, None, "x: 71, y: 12"),
    ],
)
def test_arrays_of_different_lengths_raise(y, weights, lengths):
    distiller = kd.Distiller(Host(), caches.model(2))
    distiller.compile("sgd", caches.from_logits())
    x, _ = caches.arrays()
    with pytest.raises(
        ValueError, match=rf"must have the same number of samples.*numbers of samples: {lengths}\."
    ):
        distiller.fit(x, y, sample_weight=weights, verbose=0)
