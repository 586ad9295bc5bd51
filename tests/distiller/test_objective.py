"""`alpha * hard + beta * weight * soft`, held against a float64 loop of NumPy."""

import numpy as np
import pytest

import keras_kd as kd
from tests import matrix
from tests.distiller import linear
from tests.distiller.linear import Loop, assert_same_values, assert_same_weights, compiled

MIXTURES = [(0.0, 1.0), (0.3, 0.7), (1.0, 2.0), (0.5, 0.0)]


def assert_fit_equals_loop(mode, divergence="forward_kl", sample_weight=None, **mix):
    teacher, student = linear.pair()
    x, y = linear.data()
    loop = Loop(teacher, student, temperature=3.0, weight=0.8, divergence=divergence, **mix)
    loss = kd.losses.SoftTargets(3.0, divergence, weight=0.8)
    distiller = compiled(teacher, student, loss, mode=mode, **mix)
    options = {"batch_size": 8, "epochs": 3, "sample_weight": sample_weight}
    history = distiller.fit(x, y, shuffle=False, verbose=0, **options).history
    keys = ["loss", "hard_loss", "soft_targets"] if mix["beta"] > 0 else ["loss", "hard_loss"]
    assert_same_values(history, loop.fit(x, y, **options), keys)
    assert_same_weights(student, loop)


@pytest.mark.parametrize(("alpha", "beta"), MIXTURES)
def test_fit_equals_the_float64_loop(alpha, beta):
    assert_fit_equals_loop("eager", alpha=alpha, beta=beta)


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 1.0), (0.3, 0.7)])
@pytest.mark.parametrize("mode", matrix.modes("graph", "xla"))
def test_compiled_fit_equals_the_float64_loop(mode, alpha, beta):
    assert_fit_equals_loop(mode, alpha=alpha, beta=beta)


@pytest.mark.parametrize("divergence", ["reverse_kl", "jsd"])
def test_other_divergences_equal_the_float64_loop(divergence):
    assert_fit_equals_loop("eager", divergence, alpha=0.4, beta=0.6)


@pytest.mark.parametrize("mode", linear.MODES)
def test_fit_with_sample_weight_equals_the_float64_loop(mode):
    assert_fit_equals_loop(mode, sample_weight=linear.weights_of(), alpha=0.3, beta=0.7)


def test_history_keeps_apart_epochs_and_weights_batches_by_their_rows():
    # Learning rate 0: every epoch shows the mean over all 23 rows, in batches of 10, 10 and 3.
    teacher, student = linear.pair()
    x, y = linear.data()
    distiller = compiled(teacher, student, learning_rate=0.0)
    history = distiller.fit(x, y, batch_size=10, epochs=2, verbose=0).history
    expected, _ = Loop(teacher, student).gradients(x, y)
    for key, value in expected.items():
        np.testing.assert_allclose(history[key], [value, value], rtol=1e-5, err_msg=key)


def test_several_losses_add_up_each_with_its_weight():
    teacher, student = linear.pair()
    x, y = linear.data()
    losses = [kd.losses.SoftTargets(t, name=f"at_{t}") for t in (1, 5)]
    distiller = compiled(teacher, student, losses, [0.2, 0.9], alpha=0.0, beta=0.5)
    logs = distiller.train_on_batch(x, y, return_dict=True)
    at = [Loop(teacher, linear.linear(2), temperature=t).gradients(x, y)[0] for t in (1, 5)]
    expected = [losses["soft_targets"] for losses in at]
    assert_same_values(logs, {"at_1": expected[0], "at_5": expected[1]})
    assert_same_values(logs, {"loss": 0.5 * (0.2 * expected[0] + 0.9 * expected[1])})
