"""Small networks on real digits, trained for a few epochs."""

import functools

import keras
import numpy as np
from keras import layers

import keras_kd as kd
from tests.distiller import linear

EPOCHS = 2


@functools.cache
def digits():
    """`(x, y), (x_test, y_test)` of 8 x 8 pixels between 0 and 1."""
    import sklearn.datasets

    x, y = sklearn.datasets.load_digits(return_X_y=True)
    x, order = x.astype("float32") / 16.0, np.random.default_rng(0).permutation(len(y))
    train, test = order[:480], order[480:800]
    return (x[train], y[train]), (x[test], y[test])


def network(width, seed=None, **kwargs):
    start = keras.initializers.GlorotUniform(seed=seed)
    return keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(width, activation="relu", kernel_initializer=start, name="hidden"),
            layers.Dropout(0.1),
            layers.Dense(10, name="logits"),
        ],
        **kwargs,
    )


def compile_arguments(**kwargs):
    optimizer = keras.optimizers.Adam(0.02)
    loss = linear.from_logits()
    return {"optimizer": optimizer, "loss": loss, "metrics": ["accuracy"], **kwargs}


def fit_arguments(**kwargs):
    return {"batch_size": 32, "epochs": EPOCHS, "verbose": 0, **kwargs}


def by_hand(student, teacher, alpha=0.5, beta=0.5):
    """Trains as a user of `Distiller` would, or of Keras without a teacher."""
    arguments = compile_arguments()
    trainer = student if teacher is None else kd.Distiller(teacher, student, alpha=alpha, beta=beta)
    trainer.compile(**arguments)
    return trainer.fit(*digits()[0], **fit_arguments(validation_data=digits()[1])).history


class InterruptedFit(Exception):  # noqa: N818
    pass


class Interrupt(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise InterruptedFit


def assert_same_weights(actual, expected):
    np.testing.assert_equal(actual.get_weights(), expected.get_weights())
