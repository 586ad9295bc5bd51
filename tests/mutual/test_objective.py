"""`alpha * hard + beta * sum_j teaching[i][j] * soft`, held against a float64 loop of NumPy."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests import reference
from tests.distiller import counters, linear
from tests.distiller.linear import assert_same_values
from tests.mutual.loop import Loop, assert_same_weights, compiled, peers


def assert_fit_equals_loop(mode, sample_weight=None, loss=None, **numbers):
    models = peers()
    x, y = linear.data()
    loop = Loop(models, **numbers)
    numbers.pop("temperature", None)
    distiller = compiled(models, loss, mode=mode, **numbers)
    options = {"shuffle": False, "verbose": 0, "sample_weight": sample_weight}
    for _ in range(2):
        history = distiller.fit(x, y, batch_size=8, **options).history
        assert_same_values(history, loop.epoch(x, y, sample_weight))
    assert_same_weights(distiller, loop)


@pytest.mark.parametrize("mode", linear.MODES)
def test_fit_equals_the_float64_loop(mode):
    assert_fit_equals_loop(mode, linear.weights_of())


@pytest.mark.parametrize(
    "numbers",
    [
        {"alpha": 0.3, "beta": 0.7, "temperature": 3.0},
        {"alpha": 0.0, "beta": 1.0},
        {"alpha": 1.0, "beta": 0.0},
        {"teaching": [[0, 0], [1, 0]]},
        {"teaching": [[0, 0.4], [1.5, 0]]},
    ],
)
def test_factors_and_who_teaches(numbers):
    loss = kd.losses.SoftTargets(numbers.get("temperature", 1.0))
    assert_fit_equals_loop("eager", loss=loss, **numbers)


def test_the_default_is_the_mean_of_the_others():
    models = peers(3)
    x, y = linear.data()
    distiller = compiled(models, optimizer=keras.optimizers.SGD(0.0))
    logs = distiller.train_on_batch(x, y, return_dict=True)
    logits = [linear.logits_of(model, x) for model in models]
    for i, own in enumerate(logits):
        others = [reference.soft_target_loss(own, logits[j]).mean() for j in range(3) if j != i]
        np.testing.assert_allclose(logs[f"peer_{i}_soft_targets"], np.mean(others), rtol=1e-5)
    np.testing.assert_allclose(distiller.teaching, [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])


def test_one_way_is_the_teacher_by_itself():
    """It becomes what its own `fit` makes of it, while the student learns from it."""
    models, alone = peers(3), peers(1)[0]
    x, y = linear.data()
    distiller = compiled(models, teaching="one_way", optimizer=keras.optimizers.SGD(0.2))
    assert distiller.teaching.tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 0]]
    alone.compile(keras.optimizers.SGD(0.2), linear.from_logits(), run_eagerly=True)
    options = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    history = distiller.fit(x, y, **options).history
    alone.fit(x, y, **options)
    for one, other in zip(models[0].get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
    assert history["peer_0_soft_targets"] == [0.0, 0.0]
    assert history["peer_2_soft_targets"][0] > 0.01


def test_another_loss_and_its_weight():
    models = peers()
    x, y = linear.data()
    loss = kd.losses.LogitsMSE(weight=0.25)
    distiller = compiled(models, loss, optimizer=keras.optimizers.SGD(0.0))
    logs = distiller.train_on_batch(x, y, return_dict=True)
    own, other = (linear.logits_of(model, x) for model in models)
    distance = ((own - other) ** 2).mean()
    expected = reference.hard_loss(own, y).mean() + 0.25 * distance
    assert_same_values(logs, {"peer_0_logits_mse": distance, "peer_0_loss": expected})


def test_rows_of_weight_zero_do_not_count():
    """Whatever they hold."""
    x, y = linear.data()
    weight = linear.weights_of()
    results = []
    for garbage in (0.0, 1000.0):
        models = peers()
        x_with = np.where(weight[:, None] == 0, np.float32(garbage), x)
        distiller = compiled(models)
        distiller.train_on_batch(x_with, y, sample_weight=weight)
        results.append([w for model in models for w in model.get_weights()])
    np.testing.assert_equal(results[0], results[1])


def test_class_weight_is_sample_weight():
    x, y = linear.data()
    of_class = {0: 0.0, 1: 2.0, 2: 1.0, 3: 0.5}
    weight = np.float32([of_class[label] for label in y])
    results = []
    for option in ({"class_weight": of_class}, {"sample_weight": weight}):
        distiller = compiled(peers())
        logs = distiller.train_on_batch(x, y, return_dict=True, **option)
        assert logs.pop("peer_0_soft_targets") > 0
        results.append([w for model in distiller.peers for w in model.get_weights()])
    np.testing.assert_equal(results[0], results[1])


@pytest.mark.parametrize("teaching", [None, "one_way"])
def test_each_peer_runs_once_a_step(teaching):
    models = [counters.model() for _ in range(3)]
    distiller = compiled(models, teaching=teaching, optimizer="sgd")
    for model in models:
        counters.reset(model)
    distiller.train_on_batch(*linear.data())
    assert [counters.calls(model) for model in models] == [1, 1, 1]


def test_without_labels():
    models = peers()
    x, _ = linear.data()
    distiller = kd.MutualDistiller(models, alpha=0.0)
    distiller.compile("sgd", run_eagerly=True)
    history = distiller.fit(x, epochs=5, verbose=0).history
    assert history["peer_0_soft_targets"][-1] < history["peer_0_soft_targets"][0]
    with pytest.raises(ValueError, match="alpha=1.0 needs a hard loss"):
        distiller.alpha = 1.0


def test_a_frozen_peer_only_teaches():
    models = peers()
    models[0].trainable = False
    before = models[0].get_weights()
    distiller = compiled(models, optimizer=keras.optimizers.SGD(0.1))
    distiller.fit(*linear.data(), epochs=2, verbose=0)
    np.testing.assert_equal(models[0].get_weights(), before)


def test_hyperparameters_change_without_retracing():
    models = peers()
    x, y = linear.data()
    loop = Loop(models)
    distiller = compiled(models, mode="graph")
    traces = []
    study = distiller.learners[0].student_forward
    distiller.learners[0].student_forward = lambda *a, **k: traces.append(1) or study(*a, **k)
    for alpha, beta, temperature in ((1.0, 1.0, 1.0), (0.2, 0.5, 4.0), (0.0, 2.0, 2.0)):
        loop.alpha, loop.beta, loop.temperature = alpha, beta, temperature
        distiller.alpha, distiller.beta, distiller.temperature = alpha, beta, temperature
        logs = distiller.train_on_batch(x, y, return_dict=True)
        distiller.reset_metrics()
        assert_same_values(logs, loop.step(x, y))
    assert len(traces) == 1
    assert_same_weights(distiller, loop)


def test_schedules_steer_it():
    distiller = compiled(peers())
    callbacks = [
        kd.callbacks.TemperatureSchedule(4.0, 2.0),
        kd.callbacks.LossWeightSchedule("beta", 1.0, 0.0),
        kd.callbacks.LossWeightSchedule("soft_targets", 0.5, 1.0),
    ]
    history = distiller.fit(*linear.data(), epochs=3, callbacks=callbacks, verbose=0).history
    assert history["temperature"] == [4.0, 3.0, 2.0]
    assert history["beta"] == [1.0, 0.5, 0.0]
    assert history["soft_targets_weight"] == [0.5, 0.75, 1.0]
