"""Models, data and files for wrong calls of measure, report and diagnose."""

import functools
import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

from tests import extras
from tests.measurement import files

ROWS, FEATURES, CLASSES = 12, files.FEATURES, files.CLASSES


@functools.cache
def arrays():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype("float32")
    return x, np.arange(ROWS) % CLASSES


X, Y = arrays()


@functools.cache
def model(seed=1, classes=CLASSES):
    return files.classifier(seed, classes=classes)


@functools.cache
def two_heads():
    inputs = keras.Input((FEATURES,))
    outputs = {name: keras.layers.Dense(CLASSES, name=name)(inputs) for name in "ab"}
    return keras.Model(inputs, outputs, name="two_heads")


def unbuilt():
    return keras.Sequential([keras.layers.Dense(CLASSES)], name="bare")


@functools.cache
def of_other_inputs():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(CLASSES)], name="narrow")


@functools.cache
def deep(layers=3):
    hidden = [keras.layers.Dense(8, activation="relu", name=f"h{i}") for i in range(layers)]
    last = keras.layers.Dense(CLASSES, name="out")
    return keras.Sequential([keras.Input((FEATURES,)), *hidden, last], name="deep")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="own")
        self.head = keras.layers.Dense(CLASSES)

    def call(self, x):
        return self.head(x)


def batches(x=X, y=Y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(4)


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, index):
        return X, Y


def never(*args):
    raise AssertionError("it was called")


@functools.cache
def folder():
    """Files of models, whole and not, in a folder that ends with the process."""
    holder = tempfile.TemporaryDirectory(prefix="keras_kd-calls-")
    path = pathlib.Path(holder.name)
    model().save(path / "whole.keras")
    whole = (path / "whole.keras").read_bytes()
    (path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (path / "empty.keras").write_bytes(b"")
    for name in ("cut.tflite", "cut.onnx"):
        (path / name).write_bytes(whole[:100])
    for name in ("folder.keras", "folder.onnx", "folder.tflite", "folder"):
        (path / name).mkdir()
    (path / "text.txt").write_text("no model", encoding="utf-8")
    return holder, path


def file(name):
    return str(folder()[1] / name)


@functools.cache
def onnx():
    """An ONNX file of two outputs, where the packages are there."""
    extras.require("onnx")
    extras.require("onnxruntime")
    return str(files.onnx(folder()[1] / "two.onnx", model()))
