"""A model that counts its forward passes, while it runs eagerly."""

import keras

from tests.distiller import linear


class Counter(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.count = [0]

    def call(self, inputs):
        self.count[0] += 1
        return inputs


def model():
    """Functional: a counter, BatchNormalization `"n"`, dropout, and a head of `linear.CLASSES`."""
    inputs = keras.Input((linear.FEATURES,))
    outputs = Counter(name="counter")(inputs)
    outputs = keras.layers.BatchNormalization(name="n")(outputs)
    outputs = keras.layers.Dropout(0.2)(outputs)
    outputs = keras.layers.Dense(linear.CLASSES, name="head")(outputs)
    return keras.Model(inputs, outputs)


def calls(counted):
    """Forward passes since the last `reset`."""
    return counted.get_layer("counter").count[0]


def reset(counted):
    counted.get_layer("counter").count[0] = 0
