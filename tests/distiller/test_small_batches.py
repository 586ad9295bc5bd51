"""Batches that are too small for losses between rows raise, and are not trained on as 0."""

import pytest
import tensorflow as tf

import keras_kd as kd
from tests.distiller import linear

X, Y = linear.data(8)


def made():
    losses = [kd.losses.SoftTargets(), kd.losses.RelationalAngle()]
    return linear.compiled(*linear.pair(), losses)


def batches(size, **options):
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(size, **options)


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ((X, Y), {"batch_size": 2}),
        ((X[:2], Y[:2]), {}),
        ((X[:2], Y[:2]), {"batch_size": 8}),
        ((batches(2, drop_remainder=True),), {}),
    ],
)
def test_sizes_that_are_known_are_refused_before_training(data, options):
    distiller = made()
    with pytest.raises(ValueError, match="'relational_angle'.*at least 3.*batches of 2"):
        distiller.fit(*data, verbose=0, **options)
    assert distiller.optimizer is None or distiller.optimizer.iterations == 0


def test_others_are_refused_after_the_first_epoch():
    distiller = made()
    with pytest.raises(ValueError, match="an epoch whose largest batch has 2.*larger batch_size"):
        distiller.fit(batches(2), validation_data=(X, Y), epochs=3, shuffle=False, verbose=0)
    assert distiller.optimizer.iterations == 4


def test_a_rest_of_two_rows_is_none():
    history = made().fit(batches(3), epochs=2, shuffle=False, verbose=0).history
    assert min(history["relational_angle"]) > 0
    (history,) = made().fit(X, Y, batch_size=3, verbose=0).history["relational_angle"]
    assert history > 0
