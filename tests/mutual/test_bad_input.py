"""What cannot be trained raises before any training."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from tests.distiller import linear
from tests.mutual.loop import compiled, peers


def shared():
    model = peers(1)[0]
    return [model, keras.Model(model.inputs, model.outputs)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kd.MutualDistiller(peers(1)), "`peers`. Expected a list of at least two"),
        (lambda: kd.MutualDistiller(peers(1)[0]), "`peers`. Expected a list of at least two"),
        (lambda: kd.MutualDistiller([*peers(1), "x"]), r"`peers\[1\]`. Expected a keras.Model"),
        (lambda: kd.MutualDistiller(peers(1) * 2), "Peers 0 and 1 are the same model"),
        (lambda: kd.MutualDistiller(shared()), "Peers 0 and 1 share weights"),
        (
            lambda: kd.MutualDistiller([*peers(2), linear.linear(1, classes=7)]),
            r"Peers 0 and 2 have outputs of different shapes: \[\(None, 4\)\] and \[\(None, 7\)\]",
        ),
        (
            lambda: kd.MutualDistiller([*peers(1), keras.Sequential([layers.Dense(4)])]),
            "Peer 1 .* has no weights yet",
        ),
        (
            lambda: kd.MutualDistiller(peers(), teaching=[[0, 1, 1], [1, 0, 1]]),
            r"a matrix of shape \(2, 2\)",
        ),
        (lambda: kd.MutualDistiller(peers(), teaching="both"), "None, 'one_way' or a matrix"),
        (lambda: kd.MutualDistiller(peers(), teaching=[[1, 0], [1, 0]]), "0 on the diagonal"),
        (lambda: kd.MutualDistiller(peers(), teaching=[[0, -1], [1, 0]]), "at least 0"),
        (lambda: kd.MutualDistiller(peers(), teaching=[[0, np.nan], [1, 0]]), "finite numbers"),
        (lambda: kd.MutualDistiller(peers(), alpha=-1), "`alpha`"),
        (lambda: kd.MutualDistiller(peers(), beta=np.inf), "`beta`"),
        (lambda: kd.MutualDistiller(peers(), "mse"), "one keras_kd.losses.DistillationLoss"),
        (
            lambda: kd.MutualDistiller(peers(), kd.losses.FeatureHint("dense", "dense")),
            "reads inner layers",
        ),
        (
            lambda: kd.MutualDistiller(peers(), kd.losses.CurriculumTemperature()),
            "has weights of its own",
        ),
        (
            lambda: kd.MutualDistiller([*peers(1), linear.linear(1, activation="softmax")]),
            "ends in softmax",
        ),
        (lambda: compiled(peers(), optimizer=["sgd"]), "`optimizer` must be one .* list of 1"),
        (
            lambda: compiled(peers(), optimizer=[keras.optimizers.SGD(0.1)] * 2),
            "the same object for two peers",
        ),
        (
            lambda: compiled(peers(), metrics=[["accuracy"]]),
            "`metrics` must be one .* list of 1",
        ),
        (lambda: kd.MutualDistiller(peers()).compile("sgd"), "`loss` is None, but alpha=1"),
        (
            lambda: kd.MutualDistiller(peers()).compile("sgd", [linear.from_logits()] * 3),
            "`loss` must be one .* list of 3",
        ),
        (
            lambda: kd.MutualDistiller(peers()).compile("sgd", [linear.from_logits(), None]),
            "None for some of the peers only",
        ),
        (
            lambda: kd.MutualDistiller(peers(), alpha=0.0, teaching="one_way").compile("sgd"),
            r"\['peer_0'\] would learn from nothing",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def rate(epoch):
    return 0.1


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (keras.callbacks.LearningRateScheduler(rate), "each peer has its own"),
        (kd.callbacks.DistillationMonitor(np.zeros((2, 5))), "works on a keras_kd.Distiller"),
        (kd.callbacks.EarlyStopDistillation(), "works on a keras_kd.Distiller"),
    ],
)
def test_callbacks_that_need_something_else(callback, message):
    distiller = compiled(peers())
    before = distiller.peers[0].get_weights()
    with pytest.raises(ValueError, match=message):
        distiller.fit(*linear.data(), callbacks=[callback], verbose=0)
    np.testing.assert_equal(distiller.peers[0].get_weights(), before)


def test_missing_labels():
    distiller = compiled(peers())
    with pytest.raises(ValueError, match="The training data has no labels, but alpha=1"):
        distiller.fit(linear.data()[0], verbose=0)
    with pytest.raises(ValueError, match="An evaluation needs labels"):
        distiller.evaluate(linear.data()[0], verbose=0)


def test_a_bound_for_several_numbers():
    """Its labels have the shape of the outputs, also where shapes are looked at."""
    loss = kd.losses.RegressionKD(bounded=True)
    peers = kd.MutualDistiller(list(linear.pair()), loss)
    peers.compile("sgd", "mse", metrics=[])
    x, y = linear.data(8)
    numbers = np.eye(linear.CLASSES, dtype="float32")[y]
    assert np.isfinite(peers.fit(x, numbers, verbose=0).history["loss"][0])
