"""The distiller of `data/earlier.*`, which commit 05a0fff has saved: its teacher was compiled."""

import keras
import numpy as np

import keras_kd as kd


def data():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(16, 4)).astype("float32")
    return x, generator.integers(0, 3, 16)


def _network(width):
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(width, "relu"), keras.layers.Dense(3)]
    )


def distiller():
    keras.utils.set_random_seed(1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher = _network(3)
    teacher.compile("adam", loss, metrics=["accuracy"], run_eagerly=True)
    teacher.fit(*data(), verbose=0)
    made = kd.Distiller(teacher, _network(2))
    made.compile("adam", loss, run_eagerly=True)
    return made
