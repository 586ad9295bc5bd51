"""Models that train in a second, on scikit-learn's digits."""

import functools

import keras
import numpy as np
from sklearn.datasets import load_digits

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# Labels that the students get; the teacher gets all of `train`.
FEW = 300


@functools.cache
def digits():
    """`(inputs, labels)` to train on, and to test on."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    return (x[:900], y[:900]), (x[900:], y[900:])


def test_set():
    """The rows to test on."""
    return digits()[1]


def network(width):
    layers = [keras.layers.Dense(width, "relu"), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input((64,)), *layers], name=f"width_{width}")


def fit(model, rows=FEW, epochs=15, **options):
    (x, y), _ = digits()
    model.compile(keras.optimizers.Adam(0.01), loss=LOSS, **options)
    model.fit(x[:rows], y[:rows], batch_size=50, epochs=epochs, verbose=0)


def fit_briefly(model, epochs=1):
    """Two steps an epoch; to trace them would take longer."""
    fit(model, rows=100, epochs=epochs, run_eagerly=True)


@functools.cache
def teacher():
    keras.utils.set_random_seed(100)
    model = network(64)
    fit(model, rows=900)
    return model


def student():
    return network(8)
