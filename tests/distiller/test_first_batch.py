"""The first `fit` looks at its first batch, and warns of what would spoil distillation."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.distiller import counters, linear

ROWS = 64
PREFIX = "keras_kd, first batch: "


def data():
    """Inputs whose first features say the class."""
    x, _ = linear.data(ROWS)
    return x, x[:, : linear.CLASSES].argmax(-1)


def knowing():
    teacher = linear.linear(1)
    teacher.set_weights([8.0 * np.eye(linear.FEATURES, linear.CLASSES), np.zeros(linear.CLASSES)])
    return teacher


def told(teacher, losses=None, kind="arrays", mode="graph", **options):
    """The warnings of a `fit`."""
    distiller = linear.compiled(teacher, linear.linear(2), losses, mode=mode, **options)
    x, y = data()
    given = {
        "arrays": {"x": x, "y": y, "batch_size": 32},
        "dataset": {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(32)},
        "columns": {"x": x, "y": y[:, None], "batch_size": 32},
    }[kind]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(2):
            distiller.fit(**given, epochs=2, shuffle=False, verbose=0)
    return [str(w.message) for w in found if issubclass(w.category, kd.diagnosis.DiagnosisWarning)]


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("kind", ["arrays", "dataset", "columns"])
def test_a_teacher_that_guesses_is_told_once(kind, mode):
    worst = knowing()
    kernel, bias = worst.get_weights()
    worst.set_weights([-kernel, bias])  # the label's class last
    (message,) = told(worst, kind=kind, mode=mode)
    assert message.startswith(PREFIX)
    assert "guessing" in message


def test_a_good_teacher_is_not_complained_of():
    assert told(knowing()) == []
    assert told(knowing(), kind="dataset") == []


def test_probabilities_of_a_function_are_told():
    teacher = knowing()
    (message,) = told(lambda x: keras.ops.softmax(teacher(x)))
    assert "softmax" in message


def test_it_can_be_left_out_and_is_where_it_cannot_tell():
    guessing = linear.linear(1)
    distiller = linear.compiled(guessing, linear.linear(2))
    distiller.checks_first_batch = False
    x, y = data()
    with warnings.catch_warnings():
        warnings.simplefilter("error", kd.diagnosis.DiagnosisWarning)
        distiller.fit(x, (y + 1) % linear.CLASSES, verbose=0)
    assert told(guessing, [kd.losses.LogitsMSE()]) == []
    assert told(guessing, alpha=1.0, beta=0.0) == []


def test_a_shuffled_dataset_keeps_its_order_and_no_state_moves():
    x, y = data()

    def run(checks):
        keras.utils.set_random_seed(3)
        teacher, student = counters.model(), counters.model()
        for model in (teacher, student):
            rng = np.random.default_rng(0)
            model.set_weights([rng.normal(size=w.shape) ** 2 for w in model.weights])
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(ROWS, seed=5).batch(16)
        distiller = linear.compiled(teacher, student, mode="graph")
        distiller.checks_first_batch = checks
        distiller.fit(dataset, epochs=2, shuffle=False, verbose=0)
        return student.get_weights()

    for one, other in zip(run(True), run(False), strict=True):
        np.testing.assert_array_equal(one, other)
