"""Saved, loaded, interrupted and resumed, it trains as one that was not."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.distiller import linear
from tests.saving.test_resume import Interrupt, InterruptedFit, network


def distiller():
    peers = [network(9, 1), network(6, 2)]
    made = kd.MutualDistiller(peers, kd.losses.SoftTargets(2.0, weight=0.7), alpha=0.8, beta=0.6)
    optimizers = [keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.05, momentum=0.9)]
    made.compile(optimizers, linear.from_logits(), metrics=["accuracy"], run_eagerly=True)
    return made


def fit(model, epochs, *callbacks, **kwargs):
    options = {"batch_size": 15, "shuffle": False, "verbose": 0, **kwargs}
    callbacks = [kd.callbacks.TemperatureSchedule(4.0, 1.0, length=4), *callbacks]
    return model.fit(*linear.data(45), epochs=epochs, callbacks=callbacks, **options).history


@pytest.fixture(scope="module")
def uninterrupted():
    model = distiller()
    return model, fit(model, 4)


def assert_same(model, history, expected):
    for one, other in zip(model.peers, expected[0].peers, strict=True):
        np.testing.assert_equal(one.get_weights(), other.get_weights())
    for one, other in zip(model.optimizers, expected[0].optimizers, strict=True):
        assert len(one.variables) == len(other.variables) > 2
        for a, b in zip(one.variables, other.variables, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    for key, values in history.items():
        assert values == expected[1][key][-len(values) :], key


def test_saved_loaded_and_continued(tmp_path, uninterrupted):
    first = distiller()
    fit(first, 2)
    first.save(tmp_path / "mutual.keras")
    loaded = keras.models.load_model(tmp_path / "mutual.keras")
    assert (loaded.alpha, loaded.beta) == (np.float32(0.8), np.float32(0.6))
    assert loaded.distillation_loss.weight == np.float32(0.7)
    np.testing.assert_array_equal(loaded.teaching, first.teaching)
    x = linear.data(45)[0]
    for one, other in zip(loaded.predict(x, verbose=0), first.predict(x, verbose=0), strict=True):
        np.testing.assert_array_equal(one, other)
    loaded.run_eagerly = True
    assert_same(loaded, fit(loaded, 4, initial_epoch=2), uninterrupted)


def test_backup_and_restore(tmp_path, uninterrupted):
    with pytest.raises(InterruptedFit):
        fit(distiller(), 4, keras.callbacks.BackupAndRestore(tmp_path / "b"), Interrupt(2))
    resumed = distiller()
    history = fit(resumed, 4, keras.callbacks.BackupAndRestore(tmp_path / "b"))
    assert len(history["loss"]) == 2
    assert_same(resumed, history, uninterrupted)


def test_not_compiled(tmp_path):
    first = kd.MutualDistiller([network(9, 1), network(6, 2)], teaching="one_way")
    first.save(tmp_path / "mutual.keras")
    loaded = keras.models.load_model(tmp_path / "mutual.keras")
    assert not loaded.compiled
    assert loaded.optimizers == [None, None]
    assert loaded.teaching.tolist() == [[0, 0], [1, 0]]
    np.testing.assert_equal(loaded.peers[1].get_weights(), first.peers[1].get_weights())


def test_the_peers_are_plain_models(tmp_path, uninterrupted):
    peer = uninterrupted[0].peers[1]
    peer.save(tmp_path / "peer.keras")
    loaded = keras.models.load_model(tmp_path / "peer.keras")
    assert not loaded.compiled
    np.testing.assert_equal(loaded.get_weights(), peer.get_weights())
