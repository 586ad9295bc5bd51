"""A small task for searches: a teacher that knows it, students, and data."""

import keras
import numpy as np
import tensorflow as tf

ROWS = 64


def data(part):
    """`(x, y)` of 64 rows of one of three parts: three classes by the largest of three sums."""
    x = np.random.default_rng(part).normal(size=(ROWS, 6)).astype("float32")
    return x, np.argmax(x[:, :3] + x[:, 3:], axis=-1).astype("int32")


TRAIN, VALIDATION, TEST = (data(part) for part in range(3))


def network(width=4, name=None):
    layers = [keras.layers.Dense(width, "relu", name="hidden"), keras.layers.Dense(3, name="out")]
    return keras.Sequential([keras.Input((6,)), *layers], name=name)


def perfect_teacher():
    """Logits that are right for every row: no training is needed."""
    x = keras.Input((6,))
    hidden = keras.layers.Dense(3, use_bias=False, name="hidden")
    model = keras.Model(x, keras.layers.Activation("linear", name="out")(hidden(x)))
    model.set_weights([5 * np.concatenate([np.eye(3), np.eye(3)]).astype("float32")])
    return model


class Counting(keras.layers.Layer):
    """Passes on what it gets, and counts the rows that ran through."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.rows = []

    def call(self, x):
        rows = tf.numpy_function(self._count, [tf.shape(x)[0]], tf.int32)
        with tf.control_dependencies([rows]):
            return tf.identity(x)

    def _count(self, rows):
        self.rows.append(int(rows))
        return rows
