"""Trains the models of a run, each in a `fit` that goes on at the batch where it was ended."""

import functools
import inspect
from typing import Any

import keras

from keras_kd import teachers
from keras_kd._utils import files
from keras_kd.runs import losses, models
from keras_kd.runs.context import Run
from keras_kd.runs.reading import Configuration
from keras_kd.runs.results import Ended, EndsEarly, WritesRows
from keras_kd.runs.samples import EpochOrder
from keras_kd.teachers import cache
from keras_kd.training.distiller import Distiller
from keras_kd.training.supervised import SupervisedModel

_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": functools.partial(keras.optimizers.SGD, momentum=0.9),
    "rmsprop": keras.optimizers.RMSprop,
    "nadam": keras.optimizers.Nadam,
    "adagrad": keras.optimizers.Adagrad,
    "lion": keras.optimizers.Lion,
}
CACHE = "teacher_cache"


def train_teacher(run: Run) -> list[str]:
    """Trains the teacher where it is trained here; returns the files that were written."""
    plan = run.plan
    if not plan.epochs:
        return []
    _seed(run, 1)
    model = SupervisedModel(plan.teacher, name="teacher_training")
    model.compile(
        keras.optimizers.Adam(plan.learning_rate),
        loss=_hard_loss(plan.teacher),
        metrics=["accuracy"],
    )
    _fit(run, "teacher", model, plan.teacher, plan.epochs, run.data.parts["train"], [])
    take_trained(run)
    return ["teacher.keras"]


def take_trained(run: Run) -> None:
    """The teacher becomes the one of the file, so that a run that goes on has the same."""
    run.teacher = models.load(run.config, "teacher", run.folder.file("teacher.keras"))


def write_cache(run: Run) -> list[str]:
    """Writes what the teacher returns for the training data, where that is wanted."""
    if not run.config.values.training.cache:
        return []
    run.say("teacher: writes its outputs to teacher_cache")
    cache.cache_teacher(
        run.teacher,
        run.data.parts["train"],
        run.folder.file(CACHE),
        taps=losses.taps(run.config),
        dtype="float32",
        # A function has nothing by which it could be recognized; the configuration names it.
        fingerprint="function" if inspect.isfunction(run.teacher) else None,
        verbose=0,
    )
    return []


def train_student(run: Run) -> list[str]:
    """Trains the student with the teacher."""
    values = run.config.values
    student = _new_student(run)
    batches, teacher = run.data.parts["train"], run.teacher
    if values.training.cache:
        teacher = teachers.Cached(run.folder.file(CACHE))
        batches = cache.load_cache(run.folder.file(CACHE), batches)
    distiller = Distiller(
        teacher,
        student,
        losses.build(run.config, models.gives_logits(student)),
        alpha=values.alpha,
        beta=values.beta,
        save_teacher=False,
    )
    compile_model(run, run.config, distiller, student, values.training.epochs)
    _fit(
        run,
        "student",
        distiller,
        student,
        values.training.epochs,
        batches,
        losses.schedules(run.config),
    )
    return ["student.keras"]


def train_baseline(run: Run) -> list[str]:
    """Trains the same student, from the same weights, with labels only, where that is wanted."""
    if not run.config.values.baseline:
        return []
    student = _new_student(run)
    model = SupervisedModel(student, name="baseline_training")
    epochs = run.config.values.training.epochs
    compile_model(run, run.labels_config or run.config, model, student, epochs)
    _fit(run, "baseline", model, student, epochs, run.data.parts["train"], [])
    return ["baseline.keras"]


def _seed(run, stage):
    """Each model starts from numbers of its own, whatever was made before it."""
    keras.utils.set_random_seed((run.config.values.seed * 10 + stage) % 2**32)


def _new_student(run):
    _seed(run, 2)
    return models.student(run.config, run.teacher, run.data)


def _hard_loss(model):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=models.gives_logits(model))


def compile_model(
    run: Run, config: Configuration, trainer: keras.Model, student: keras.Model, epochs: int
) -> None:
    """Compiles what trains a student.

    Args:
        run: The run, whose data tell the number of steps.
        config: The configuration of the training.
        trainer: The distiller, or what trains the student with labels only.
        student: The student.
        epochs: For how many it is trained.
    """
    section = config.values.training
    rate: Any = section.learning_rate
    if section.decay == "cosine":
        steps = -(-run.data.counts["train"] // run.data.batch_size) * epochs
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    optimizer = _OPTIMIZERS[section.optimizer](learning_rate=rate)
    trainer.compile(optimizer, loss=_hard_loss(student), metrics=["accuracy"])


def _fit(run, name, trainer, model, epochs, batches, schedules):
    """Trains, and writes `NAME.keras`."""
    section = run.config.values.training
    order = EpochOrder(
        batches, run.data.counts["train"], run.data.batch_size, run.config.values.seed
    )
    scratch = run.folder.state / name
    callbacks = [order, *schedules, WritesRows(run.results, name, run.say, epochs)]
    best = None
    if name != "teacher" and section.early_stop is not None:
        stop = section.early_stop
        best = run.folder.state / f"{name}-best.weights.h5" if stop.restore_best else None
        callbacks.append(EndsEarly(run.results, name, stop.monitor, stop.patience, best, model))
    callbacks.append(
        keras.callbacks.BackupAndRestore(
            scratch, save_freq=section.backup_every or "epoch", delete_checkpoint=False
        )
    )
    try:
        trainer.fit(
            order.dataset,
            epochs=epochs,
            validation_data=run.data.parts["validation"],
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )
    except Ended:
        run.say(f"{name}: had ended before")
    if best is not None and best.exists():
        model.load_weights(best)
    files.save(model.save, run.folder.file(f"{name}.keras"))
