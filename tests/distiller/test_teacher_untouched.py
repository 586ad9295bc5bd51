"""The caller's teacher stays as it was, and runs once a step at the most."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.distiller import counters, linear
from tests.distiller.linear import compiled

ALL_MODES = pytest.mark.parametrize("mode", linear.MODES)


class Hint(kd.losses.DistillationLoss):
    def call(self, teacher_outputs, student_outputs):
        return keras.ops.mean((teacher_outputs - student_outputs) ** 2, axis=-1)


def hints(number):
    return [Hint(teacher_layer="n", student_layer="n", name=f"hint_{i}") for i in range(number)]


def state(model):
    flags = [(layer.name, layer.trainable) for layer in model.layers]
    return flags, model.trainable, [weight.numpy() for weight in model.variables]


def assert_same_state(model, expected):
    flags, trainable, values = state(model)
    assert (flags, trainable) == expected[:2]
    for value, before in zip(values, expected[2], strict=True):
        np.testing.assert_array_equal(value, before)


@ALL_MODES
def test_training_leaves_the_teacher_as_it_was(mode):
    teacher, student = counters.model(), counters.model()
    teacher.get_layer("head").trainable = False
    before = state(teacher)
    losses = [kd.losses.SoftTargets(), *hints(1)]
    distiller = compiled(teacher, student, losses, mode=mode)
    x, y = linear.data()
    distiller.train_on_batch(x, y)
    distiller.evaluate(x, y, verbose=0)
    assert_same_state(teacher, before)
    assert (student.get_layer("n").moving_mean.numpy() != 0).any()


def test_only_the_students_weights_are_trained():
    teacher, student = counters.model(), counters.model()
    distiller = compiled(teacher, student, compile_args={"optimizer": "adam"})
    ids = lambda weights: {id(weight) for weight in weights}  # noqa: E731
    assert ids(distiller.trainable_variables) == ids(student.trainable_variables)
    assert not ids(distiller.variables) & ids(teacher.variables)
    assert teacher not in distiller.layers
    distiller.fit(*linear.data(8), verbose=0)
    moments = [variable for variable in distiller.optimizer.variables if variable.shape != ()]
    assert len(moments) == 2 * len(student.trainable_variables)
    assert len(teacher.trainable_variables) == 4


def test_the_teachers_regularizers_and_metrics_are_its_own():
    class Reporting(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.seen = keras.metrics.Mean(name="seen")

        def call(self, inputs):
            self.seen.update_state(1.0)
            self.add_loss(1e6 + 0 * keras.ops.sum(inputs))
            return inputs

    x, y = linear.data()
    plain = linear.linear(1)
    teacher = keras.Sequential(
        [keras.Input((linear.FEATURES,)), linear.linear(1, kernel_regularizer="l2"), Reporting()]
    )
    logs = [
        compiled(model, linear.linear(2)).train_on_batch(x, y, return_dict=True)
        for model in (teacher, plain)
    ]
    assert logs[0] == pytest.approx(logs[1])


@pytest.mark.parametrize("number", [0, 1, 4])
def test_teacher_and_student_run_once_a_step(number):
    teacher, student = counters.model(), counters.model()
    distiller = compiled(teacher, student, [kd.losses.SoftTargets(), *hints(number)])
    x, y = linear.data()
    counters.reset(teacher), counters.reset(student)
    distiller.fit(x, y, batch_size=8, verbose=0)
    # Both run once more where the first fit looks at its first batch.
    built = 1  # Keras traces the model once before the first step
    assert counters.calls(teacher) == 3 + 1
    assert counters.calls(student) in (3 + 1, 3 + 1 + built)
    counters.reset(teacher), counters.reset(student)
    distiller.fit(x, y, batch_size=8, verbose=0)
    assert (counters.calls(teacher), counters.calls(student)) == (3, 3)


@pytest.mark.parametrize("number", [0, 2])
def test_evaluate_runs_no_teacher_and_the_student_once(number):
    teacher, student = counters.model(), counters.model()
    distiller = compiled(teacher, student, [kd.losses.SoftTargets(), *hints(number)])
    x, y = linear.data()
    distiller.evaluate(x, y, verbose=0)
    counters.reset(teacher), counters.reset(student)
    distiller.evaluate(x, y, batch_size=8, verbose=0)
    assert (counters.calls(teacher), counters.calls(student)) == (0, 3)
    distiller.evaluate(x, y, batch_size=8, verbose=0, with_teacher=True)
    assert (counters.calls(teacher), counters.calls(student)) == (3, 6)
    distiller.evaluate(x, y, batch_size=8, verbose=0)
    assert counters.calls(teacher) == 3


@pytest.mark.parametrize(
    ("mode", "with_teacher"),
    [("eager", False), ("eager", True), ("graph", False), ("xla", True)],
)
def test_evaluate_changes_no_state(mode, with_teacher):
    teacher, student = counters.model(), counters.model()
    distiller = compiled(teacher, student, [kd.losses.SoftTargets(), *hints(1)], mode=mode)
    x, y = linear.data()
    distiller.train_on_batch(x, y)
    before = state(teacher), state(student)
    optimizer = [variable.numpy() for variable in distiller.optimizer.variables]
    distiller.evaluate(x, y, verbose=0, with_teacher=with_teacher)
    assert_same_state(teacher, before[0])
    assert_same_state(student, before[1])
    for variable, value in zip(distiller.optimizer.variables, optimizer, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_the_teacher_does_not_run_while_beta_is_zero(mode):
    ran = []
    teacher, student = linear.pair()

    def watched(inputs):
        keras.ops.shape(inputs)
        return _watch(ran, teacher(inputs))

    distiller = compiled(watched, student, alpha=1.0, beta=0.0, mode=mode)
    x, y = linear.data()
    distiller.train_on_batch(x, y)
    assert not ran
    distiller.beta = 0.5
    distiller.train_on_batch(x, y)
    assert len(ran) == 1
    distiller.beta = 0.0
    distiller.train_on_batch(x, y)
    assert len(ran) == 1


def _watch(ran, outputs):
    """`outputs`, and a mark in `ran` whenever they are computed, in a graph too."""
    import tensorflow as tf

    def mark(value):
        ran.append(1)
        return value

    watched = tf.py_function(mark, [outputs], outputs.dtype)
    watched.set_shape(outputs.shape)
    return watched


def test_taps_leave_the_layers_as_they_were():
    teacher, student = counters.model(), counters.model()
    distiller = compiled(teacher, student, hints(2))
    x, y = linear.data()
    distiller.fit(x, y, verbose=0)
    for model in (teacher, student):
        assert "call" not in vars(model.get_layer("n"))


def test_taps_are_taken_off_when_a_step_fails():
    teacher, student = counters.model(), counters.model()
    distiller = compiled(teacher, student, hints(1))
    x, y = linear.data()
    with pytest.raises(ValueError, match="incompatible|shape"):
        distiller.train_on_batch(x[:, :2], y)
    for model in (teacher, student):
        assert "call" not in vars(model.get_layer("n"))
    distiller.train_on_batch(x, y)


def test_the_callers_teacher_and_student_are_the_distillers():
    teacher, student = linear.pair()
    distiller = kd.Distiller(teacher, student)
    assert distiller.teacher is teacher
    assert distiller.student is student
