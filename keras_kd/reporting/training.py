"""Trains the two students of each seed: one from labels only, one from the teacher too."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_kd import models
from keras_kd._utils import formatting
from keras_kd._utils.files import renamed


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The functions that make and train a student.

    Attributes:
        teacher: What teaches.
        make_student: A function of nothing: a new, built, untrained `keras.Model`.
        train: A function of a model, which it compiles and fits: the student alone, or its
            distiller.
        distiller: A function of teacher and student: what trains the student.
    """

    teacher: Any
    make_student: Callable
    train: Callable
    distiller: Callable


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long one model was trained: optimizer steps, and epochs of its last `fit`."""

    steps: int
    epochs: int | None

    def __str__(self):
        steps = formatting.plural(self.steps, "step")
        if self.epochs is None:
            return steps
        return f"{formatting.plural(self.epochs, 'epoch')} ({steps})"


@dataclasses.dataclass(frozen=True)
class Pair:
    """The two students of one seed.

    Attributes:
        seed: The seed, or the number of the pair.
        baseline: The student that learned from labels only, or `None`.
        student: The distilled one.
        baseline_budget: How long it was trained, `None` where it was not trained here.
        student_budget: Likewise.
    """

    seed: int
    baseline: keras.Model | None
    student: keras.Model
    baseline_budget: Budget | None = None
    student_budget: Budget | None = None


def train(recipe, seed, steps):
    """Trains both students of a seed from the same initial weights.

    The random seeds of Python, NumPy and TensorFlow are set before each model is made and trained.

    Args:
        recipe: A `Recipe`.
        seed: A number.
        steps: A `progress.Steps`, of which the two trainings are two.

    Returns:
        A `Pair`.

    Raises:
        ValueError: `make_student` gives a model twice, or one without weights; `train` did not
            train.
    """
    baseline, student = made(recipe.make_student, seed), made(recipe.make_student, seed)
    begin_alike(baseline, student)
    steps.begin(f"seed {seed}: training with labels only")
    of_baseline = _train(recipe, baseline, baseline, seed)
    steps.say(f"seed {seed}: trained for {of_baseline}")
    steps.begin(f"seed {seed}: training with the teacher")
    keras.utils.set_random_seed(seed)
    trainer = recipe.distiller(recipe.teacher, student)
    if not isinstance(trainer, keras.Model):
        raise ValueError(
            "`distiller` must return what trains the student, a keras.Model such as "
            f"kd.Distiller(teacher, student). Received: {trainer!r}"
        )
    of_student = _train(recipe, trainer, student, seed)
    steps.say(f"seed {seed}: trained for {of_student}")
    return Pair(seed, baseline, student, of_baseline, of_student)


def made(make_student, seed):
    """A student of a seed.

    Args:
        make_student: As of `Recipe`.
        seed: A number.

    Raises:
        ValueError: It is no model, or has no weights.
    """
    keras.utils.set_random_seed(seed)
    model = make_student()
    if not isinstance(model, keras.Model):
        raise ValueError(f"`make_student` must return a keras.Model. Received: {model!r}")
    if not model.built:
        raise ValueError(
            f"`make_student` returned {model.name!r}, which has no weights yet: give it an "
            "Input, or call it on a batch."
        )
    return model


def begin_alike(baseline, student):
    """Gives two students the same weights; raises where they are not of one architecture."""
    if baseline is student:
        raise ValueError(
            "`make_student` returned the same model twice. It must make a new one each time."
        )
    models.check_shared_weights(baseline, student, "Two models of `make_student`")
    shapes = [[tuple(weight.shape) for weight in model.weights] for model in (baseline, student)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "`make_student` returned models of different architectures: their weights have the "
            f"shapes {shapes[0]} and {shapes[1]}."
        )
    # With random numbers of its own a function can give others although the seed is the same.
    student.set_weights(baseline.get_weights())


def _train(recipe, trainer, model, seed):
    before = [np.copy(weight) for weight in model.get_weights()]
    keras.utils.set_random_seed(seed)
    recipe.train(trainer)
    if all(map(np.array_equal, before, model.get_weights())):
        raise ValueError(
            f"`train` left all weights of {model.name!r} as they were. It must compile and fit the "
            "model that it is given: the student, and then what `distiller` returned."
        )
    return _budget(trainer)


def _budget(trainer):
    optimizer, history = trainer.optimizer, getattr(trainer, "history", None)
    steps = 0 if optimizer is None else int(optimizer.iterations)
    return Budget(steps, None if history is None else len(history.epoch))


def save(pair, folder):
    """Writes both students of a seed, so that what comes later cannot lose them."""
    for name, model in (("labels-only", pair.baseline), ("distilled", pair.student)):
        with renamed(folder / f"{name}-{pair.seed}.keras") as partial:
            model.save(partial)


def unequal(pairs):
    """A sentence where the two students of a seed were not trained equally long, in a list."""
    found = [pair for pair in pairs if pair.baseline_budget != pair.student_budget]
    if not found:
        return []
    listed = "; ".join(
        f"seed {pair.seed}: {pair.baseline_budget} with labels only, {pair.student_budget} with "
        "the teacher"
        for pair in found
    )
    return [f"The students were not trained equally long ({listed})."]
