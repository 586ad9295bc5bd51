"""Tiny models and a batch for each kind of features, and what a step of distillation shows."""

import dataclasses
import functools
from typing import Any

import keras
import numpy as np

import keras_kd as kd
from tests.seeds import seed_weights

WIDTH, ROWS = 5, 6
_SHAPES = {"vectors": (3,), "tokens": (4, 3), "images": (4, 4, 3), "attention": (4, 3)}


def model(world, seed):
    """Outputs `a`, `b` and layers `first`, `deep`, `other`, all of width 5; inputs `x`, `keep`."""
    seed_weights(seed)
    x = keras.Input(_SHAPES[world], name="x")
    keep = keras.Input(_SHAPES[world][:1], name="keep")
    first = _layer(world, "first")(x)
    deep = _inner(world, "deep", first)
    other = _inner(world, "other", deep)
    outputs = {name: _layer(world, name)(other) for name in ("a", "b")}
    return keras.Model({"x": x, "keep": keep}, outputs)


def _layer(world, name):
    made = keras.layers.Conv2D(WIDTH, 1) if world == "images" else keras.layers.Dense(WIDTH)
    return type(made).from_config({**made.get_config(), "name": name})


def _inner(world, name, x):
    if world == "attention":
        return x + keras.layers.MultiHeadAttention(2, 3, name=name)(x, x)
    return keras.ops.tanh(_layer(world, name)(x))


@functools.cache
def batch(world):
    """`(x, labels)`; labels are probabilities, of another class for each output."""
    rng = np.random.default_rng(0)
    shape = _SHAPES[world]
    keep = np.ones((ROWS, shape[0]), "float32")
    keep[1:, -1] = 0
    x = {"x": rng.normal(size=(ROWS, *shape)).astype("float32"), "keep": keep}
    classes = rng.integers(WIDTH, size=(2, ROWS, *shape[:-1]))
    return x, dict(zip("ab", np.eye(WIDTH, dtype="float32")[classes], strict=True))


@dataclasses.dataclass
class Step:
    """A distiller, the logs of two steps that change nothing, and those after save and load."""

    distiller: Any
    logs: dict
    again: Any
    logs_again: dict


def step(world, path, losses=None, teacher=None, student=None, weighted=False, **arguments):
    """Builds a distiller, steps, saves and loads it, and steps again.

    Args:
        world: One of the kinds of features.
        path: A file to save to.
        losses: See `keras_kd.Distiller`.
        teacher: Default: a model.
        student: Default: another one.
        weighted: Whether the batch has sample weights, others for each output.
        **arguments: Of `Distiller`.
    """
    teacher = model(world, 1) if teacher is None else teacher
    student = model(world, 2) if student is None else student
    distiller = kd.Distiller(teacher, student, losses, **arguments)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
    settle(distiller.distillation_losses)
    logs = two_steps(distiller, world, weighted)
    distiller.save(path)
    again = keras.models.load_model(path)
    return Step(distiller, logs, again, two_steps(again, world, weighted))


def two_steps(distiller, world, weighted=False):
    """The logs of the second of two steps: a memory is filled then."""
    x, y = batch(world)
    of_rows = {"a": np.arange(1.0, ROWS + 1), "b": np.arange(float(ROWS), 0, -1)}
    weights = {  # one for each position, as Keras' own loss takes them
        name: np.broadcast_to(
            of_rows[name].reshape(-1, *[1] * (y[name].ndim - 2)), y[name].shape[:-1]
        )
        for name in y
    }
    for _ in range(2):
        distiller.reset_metrics()
        data = (x, y, weights) if weighted else (x, y)
        logs = distiller.train_on_batch(*data, return_dict=True)
    return {name: float(value) for name, value in logs.items()}


def settle(losses):
    """Gives kernels values that only their shapes decide, so that losses differ by arguments."""
    for loss in losses:
        for variable in loss.trainable_variables:
            if len(variable.shape) > 1:
                values = np.random.default_rng(1).normal(size=tuple(variable.shape))
                variable.assign(0.4 * values)
