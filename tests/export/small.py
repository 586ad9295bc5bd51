"""A small student of rows of eight numbers, and its export."""

import keras
import numpy as np
from keras import layers

import keras_kd as kd


def dense(classes=3, activation=None):
    keras.utils.set_random_seed(1)
    stack = [keras.Input((8,), name="x"), layers.Dense(16, activation="relu")]
    return keras.Sequential([*stack, layers.Dense(classes, activation=activation, name="y")])


def rows(count=64, scale=1.0):
    return (scale * np.random.default_rng(2).normal(size=(count, 8))).astype("float32")


def export(tmp_path, *args, student=None, **kwargs):
    return kd.export.to_tflite(student or dense(), tmp_path / "s.tflite", *args, **kwargs)
