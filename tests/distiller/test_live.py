"""alpha, beta, temperature and weights change while `fit` runs: the next step uses them."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests import matrix, reference
from tests.distiller import linear
from tests.distiller.linear import Loop, assert_same_values, assert_same_weights, compiled

# What each of the steps of a `fit` runs with; zeros turn a term off and on again.
SCHEDULE = [
    {"alpha": 0.5, "beta": 0.5, "temperature": 4.0, "weight": 1.0},
    {"alpha": 0.2, "beta": 1.5, "temperature": 1.0, "weight": 1.0},
    {"alpha": 0.0, "beta": 1.0, "temperature": 2.0, "weight": 0.3},
    {"alpha": 1.0, "beta": 0.0, "temperature": 2.0, "weight": 0.3},
    {"alpha": 1.0, "beta": 0.7, "temperature": 9.0, "weight": 0.0},
    {"alpha": 0.4, "beta": 0.6, "temperature": 9.0, "weight": 2.0},
]


def assign(distiller, numbers):
    distiller.alpha, distiller.beta = numbers["alpha"], numbers["beta"]
    distiller.temperature = numbers["temperature"]
    distiller.distillation_losses[0].weight = numbers["weight"]


class Schedule(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        assign(self.model, SCHEDULE[batch])


def counting(teacher, calls):
    """A teacher whose Python code runs when a step is traced, not when it is run."""

    def call(inputs):
        calls.append(1)
        return teacher(inputs, training=False)

    return call


@pytest.mark.parametrize("hard_loss", [linear.from_logits, lambda: [linear.from_logits()]])
@pytest.mark.parametrize("mode", linear.MODES)
def test_every_step_of_fit_uses_the_numbers_of_its_callback(mode, hard_loss):
    teacher, student = linear.pair()
    x, y = linear.data(4 * len(SCHEDULE))
    loop = Loop(teacher, student)
    for i, numbers in enumerate(SCHEDULE):
        loop.__dict__.update(numbers)
        loop.step(x[4 * i : 4 * i + 4], y[4 * i : 4 * i + 4])
    distiller = compiled(teacher, student, mode=mode, compile_args={"loss": hard_loss()})
    distiller.fit(x, y, batch_size=4, shuffle=False, callbacks=[Schedule()], verbose=0)
    assert_same_weights(student, loop)


@pytest.mark.parametrize("mode", matrix.modes("graph", "xla"))
def test_no_retracing(mode):
    calls = []
    teacher, student = linear.pair()
    x, y = linear.data(8)
    distiller = compiled(counting(teacher, calls), student, mode=mode)
    traced = []
    for numbers in SCHEDULE:
        assign(distiller, numbers)
        distiller.train_on_batch(x, y)
        traced.append(len(calls))
    assert traced[-1] == traced[0]


def test_changes_between_two_fits():
    teacher, student = linear.pair()
    x, y = linear.data()
    loop = Loop(teacher, student)
    distiller = compiled(teacher, student, mode="graph")
    for numbers in SCHEDULE[:2]:
        assign(distiller, numbers)
        loop.__dict__.update(numbers)
        history = distiller.fit(x, y, batch_size=8, shuffle=False, verbose=0).history
        assert_same_values(history, loop.fit(x, y))
    assert_same_weights(student, loop)


def test_steps_of_one_execution_share_the_numbers():
    teacher, student = linear.pair()
    x, y = linear.data(24)
    loop = Loop(teacher, student, **SCHEDULE[0])
    loop.fit(x[:12], y[:12], batch_size=4)
    loop.__dict__.update(SCHEDULE[3])
    loop.fit(x[12:], y[12:], batch_size=4)
    options = {"steps_per_execution": 3}
    distiller = compiled(teacher, student, mode="graph", compile_args=options)
    distiller.fit(x, y, batch_size=4, shuffle=False, callbacks=[Schedule()], verbose=0)
    assert_same_weights(student, loop)


def test_evaluate_uses_the_numbers_of_now():
    teacher, student = linear.pair()
    x, y = linear.data()
    distiller = compiled(teacher, student, mode="graph")
    distiller.evaluate_with_teacher = True
    for numbers in SCHEDULE:
        assign(distiller, numbers)
        logs = distiller.evaluate(x, y, return_dict=True, verbose=0)
        assert_same_values(logs, Loop(teacher, student, **numbers).gradients(x, y)[0])


def test_numbers_read_as_they_were_set():
    distiller = kd.Distiller(*linear.pair())
    assert (distiller.alpha, distiller.beta, distiller.temperature) == (0.5, 0.5, 4.0)
    distiller.alpha, distiller.beta, distiller.temperature = np.float32(0.25), 3, 1.5
    assert (distiller.alpha, distiller.beta, distiller.temperature) == (0.25, 3.0, 1.5)
    assert distiller.distillation_losses[0].temperature == 1.5


def test_temperature_of_the_distiller_sets_all_losses():
    losses = [kd.losses.SoftTargets(2.0), kd.losses.SoftTargets(5.0)]
    distiller = kd.Distiller(*linear.pair(), losses)
    with pytest.raises((AttributeError, ValueError), match="different temperatures"):
        _ = distiller.temperature
    distiller.temperature = 3.0
    assert [loss.temperature for loss in losses] == [3.0, 3.0]


def test_temperature_of_a_loss_object_of_keras_distillation():
    teacher, student = linear.pair()
    x, y = linear.data()
    loss = keras.distillation.LogitsDistillation(temperature=3.0)
    distiller = compiled(teacher, student, loss, mode="graph", learning_rate=0.0)
    for temperature in (3.0, 1.0):
        distiller.temperature = temperature
        logs = distiller.train_on_batch(x, y, return_dict=True)
        logits = linear.logits_of(student, x), linear.logits_of(teacher, x)
        expected = reference.soft_target_loss(*logits, temperature).mean()
        assert_same_values(logs, {"logits_distillation": expected})
