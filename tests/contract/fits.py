"""Tiny fits that show what a callback does."""

import contextlib
import functools
import io
import os

import keras
import numpy as np

import keras_kd as kd
from tests.seeds import seed_weights

ROWS, FEATURES, CLASSES = 8, 3, 5


def network(seed, width=4):
    seed_weights(seed)
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(width, activation="tanh", name="deep"),
            keras.layers.Dense(width, activation="tanh", name="other"),
            keras.layers.Dense(CLASSES, name="logits"),
        ]
    )


def heads(seed):
    """A model with outputs `a` and `b`."""
    seed_weights(seed)
    x = keras.Input((FEATURES,))
    outputs = {name: keras.layers.Dense(CLASSES, name=name)(x) for name in "ab"}
    return keras.Model(x, outputs)


def has_heads(model):
    return isinstance(getattr(model, "output", None), dict)


def softmax(seed):
    return keras.Sequential([*network(seed).layers, keras.layers.Softmax()])


@functools.cache
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype("float32")
    return x, np.eye(CLASSES, dtype="float32")[rng.integers(CLASSES, size=ROWS)]


def distiller(teacher, student, losses=None, from_logits=True, run_eagerly=False):
    made = kd.Distiller(teacher, student, losses)
    loss = keras.losses.CategoricalCrossentropy(from_logits=from_logits)
    metrics = None if has_heads(student) else ["accuracy"]
    made.compile(keras.optimizers.SGD(0.5), loss, metrics=metrics, run_eagerly=run_eagerly)
    return made


@functools.cache
def of_models():
    return distiller(network(1), network(2))


@functools.cache
def of_heads():
    return distiller(heads(1), heads(2))


@functools.cache
def of_probabilities():
    loss = kd.losses.SoftTargets(from_logits=False)
    return distiller(softmax(1), softmax(2), loss, from_logits=False)


@functools.cache
def of_average():
    student = network(2)
    return distiller(kd.teachers.EMA(student, warm_up=False), student)


def of_snapshot():
    student = network(2)
    return distiller(kd.teachers.Snapshot(student), student, run_eagerly=True)


def with_hint():
    return distiller(network(1), network(2), run_eagerly=True)


def history(callback, make=of_models, epochs=4, steps=2):
    """What a fit of some steps an epoch gives: its history and what the callback printed.

    The distiller is as it was afterwards, so that one serves many.
    """
    made = make()
    before, numbers = made.get_weights(), (made.alpha, made.beta)
    x, y = data()
    labels = {"a": y, "b": y} if has_heads(made.student) else y
    options = {"epochs": epochs, "batch_size": ROWS // steps, "shuffle": False, "verbose": 0}
    printed = io.StringIO()
    keras.utils.set_random_seed(5)
    try:
        with contextlib.redirect_stdout(printed):
            found = made.fit(x, labels, callbacks=[callback], **options).history
        found = {name: list(map(float, values)) for name, values in found.items()}
        weights = made.student.get_weights()
    finally:
        made.alpha, made.beta = numbers
        if len(before) == len(made.get_weights()):
            made.set_weights(before)
    return {**found, "printed": len(printed.getvalue()), "weights": weights}


def drawn(callback):
    """As `history`, and whether the callback drew its plot."""
    found = history(callback, epochs=1)
    is_there = callback.plot is not None and os.path.exists(callback.plot)
    return {**found, "drawn": float(is_there)}


def heads_of_one():
    x = keras.Input((FEATURES,))
    return keras.Model(x, keras.layers.Dense(CLASSES)(x))
