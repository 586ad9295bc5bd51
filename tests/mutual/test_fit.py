"""What users of `compile` and `fit` meet: metrics, optimizers, precision, learning."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from tests import extras, matrix
from tests.distiller import linear
from tests.mutual.loop import RATES, compiled, peers


@pytest.fixture(scope="module")
def digits():
    """`(x, y), (x_test, y_test)` of 8 x 8 pixels between 0 and 1."""
    datasets = extras.require("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x, order = x.astype("float32") / 16.0, np.random.default_rng(0).permutation(len(y))
    return (x[order[:1000]], y[order[:1000]]), (x[order[1000:]], y[order[1000:]])


def network(width, name):
    hidden = layers.Dense(width, activation="relu")
    return keras.Sequential([keras.Input((64,)), hidden, layers.Dense(10)], name=name)


@pytest.mark.parametrize("teaching", [None, "one_way"])
def test_peers_learn_the_digits(digits, teaching):
    models = [network(32, "wide"), network(12, "small")]
    distiller = kd.MutualDistiller(models, teaching=teaching)
    optimizer = keras.optimizers.Adam(0.01)
    distiller.compile(optimizer, loss=linear.from_logits(), metrics=["accuracy"])
    options = {"epochs": 8, "batch_size": 50, "verbose": 0}
    history = distiller.fit(*digits[0], validation_data=digits[1], **options).history
    x, y = digits[1]
    for model, outputs in zip(models, distiller.predict(x, verbose=0), strict=True):
        accuracy = np.mean(outputs.argmax(-1) == y)
        assert accuracy > 0.85
        np.testing.assert_allclose(history[f"val_{model.name}_accuracy"][-1], accuracy, rtol=1e-6)
        np.testing.assert_array_equal(outputs, model.predict(x, verbose=0))
    assert history["small_soft_targets"][-1] < 0.3 * max(history["small_soft_targets"])


def test_history_and_evaluation():
    x, y = linear.data()
    distiller = compiled(peers(), optimizer=keras.optimizers.SGD(0.0), metrics=["accuracy"])
    history = distiller.fit(x, y, batch_size=10, validation_data=(x, y), verbose=0).history
    of_peer = ["loss", "hard_loss", "soft_targets", "accuracy"]
    trained = {"loss", *(f"peer_{i}_{key}" for i in range(2) for key in of_peer)}
    evaluated = {"loss", *(f"peer_{i}_{key}" for i in range(2) for key in ("loss", "accuracy"))}
    assert set(history) == trained | {f"val_{key}" for key in evaluated}
    results = distiller.evaluate(x, y, verbose=0, return_dict=True)
    assert set(results) == evaluated
    for i, peer in enumerate(distiller.peers):
        peer.compile("sgd", linear.from_logits(), metrics=["accuracy"])
        own = peer.evaluate(x, y, verbose=0, return_dict=True)
        np.testing.assert_allclose(results[f"peer_{i}_loss"], own["loss"], rtol=1e-6)
        assert results[f"peer_{i}_accuracy"] == own["accuracy"]
    total = results["peer_0_loss"] + results["peer_1_loss"]
    np.testing.assert_allclose(results["loss"], total, rtol=1e-6)
    values = distiller.evaluate(x, y, verbose=0)
    assert values == [results["loss"], *(results[key] for key in sorted(evaluated - {"loss"}))]


def test_each_peer_has_its_own_optimizer_loss_and_metrics():
    models = [keras.models.clone_model(model) for model in peers()]
    models[0].name, models[1].name = "one", "two"
    adam = keras.optimizers.Adam(0.03)
    distiller = kd.MutualDistiller(models)
    losses = [linear.from_logits(), keras.losses.SparseCategoricalCrossentropy(from_logits=True)]
    metric = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top_2")
    arguments = {"weighted_metrics": [metric], "run_eagerly": True}
    distiller.compile(adam, losses, metrics=[["accuracy"], []], **arguments)
    first, second = distiller.optimizers
    assert first is not second
    assert first is not adam
    history = distiller.fit(*linear.data(), verbose=0).history
    assert {"one_accuracy", "one_top_2", "two_top_2"} < set(history)
    assert "two_accuracy" not in history
    assert history["one_top_2"] != history["two_top_2"]
    assert not adam.built
    assert float(metric.result()) == 0.0
    np.testing.assert_allclose(first.learning_rate, 0.03, rtol=1e-6)
    made = compiled(peers()).optimizers
    np.testing.assert_allclose([float(each.learning_rate) for each in made], RATES, rtol=1e-6)


def test_the_models_are_compiled_as_before():
    models = peers()
    models[0].compile("sgd", "mse")
    optimizer = models[0].optimizer
    compiled(models).fit(*linear.data(), verbose=0)
    assert models[0].optimizer is optimizer
    assert optimizer.iterations == 0
    assert not models[1].compiled


def test_averaged_weights_are_those_of_each_optimizer():
    """`use_ema` overwrites the weights when fit ends, as Keras does it."""
    x, y = linear.data()
    models, alone = peers(), peers(1)[0]
    optimizer = keras.optimizers.SGD(0.3, use_ema=True, ema_momentum=0.5)
    compiled(models, beta=0.0, optimizer=optimizer).fit(x, y, verbose=0, shuffle=False)
    alone.compile(optimizer, linear.from_logits(), run_eagerly=True)
    alone.fit(x, y, verbose=0, shuffle=False)
    np.testing.assert_allclose(models[0].get_weights()[0], alone.get_weights()[0], rtol=1e-5)


def test_a_float16_peer_beside_a_float32_one(digits):
    keras.config.set_dtype_policy("mixed_float16")
    half = network(16, "half")
    keras.config.set_dtype_policy("float32")
    distiller = kd.MutualDistiller([half, network(16, "single")])
    optimizer = keras.optimizers.Adam(0.01)
    distiller.compile(optimizer, loss=linear.from_logits(), metrics=["accuracy"])
    names = [type(each).__name__ for each in distiller.optimizers]
    assert names == ["LossScaleOptimizer", "Adam"]
    distiller.fit(*digits[0], epochs=6, batch_size=50, verbose=0)
    results = distiller.evaluate(*digits[1], return_dict=True, verbose=0)
    assert min(results["half_accuracy"], results["single_accuracy"]) > 0.8


@pytest.mark.parametrize("mode", matrix.modes("graph", "xla"))
def test_several_steps_at_once(mode):
    x, y = linear.data(24)
    weights = []
    for steps in (1, 3):
        distiller = kd.MutualDistiller(peers())
        arguments = {**linear.MODES[mode], "steps_per_execution": steps}
        distiller.compile(keras.optimizers.SGD(0.1), linear.from_logits(), **arguments)
        distiller.fit(x, y, batch_size=8, shuffle=False, verbose=0)
        weights.append([w for model in distiller.peers for w in model.get_weights()])
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_several_outputs():
    def model(seed):
        inputs = keras.Input((linear.FEATURES,))
        heads = {name: layers.Dense(3, name=name)(inputs) for name in ("a", "b")}
        return keras.Model(inputs, heads)

    x, y = linear.data(classes=3)
    distiller = kd.MutualDistiller([model(1), model(2)])
    losses = {name: linear.from_logits() for name in ("a", "b")}
    distiller.compile("sgd", losses, metrics={"a": ["accuracy"]}, run_eagerly=True)
    history = distiller.fit(x, {"a": y, "b": y}, verbose=0).history
    assert {"peer_0_a_loss", "peer_1_b_loss", "peer_1_a_accuracy"} < set(history)
    assert history["peer_0_soft_targets"][0] > 0
