"""What of its teacher a distiller saves, and how it comes by it again."""

import contextlib
import os
import pathlib
import threading
import warnings

import keras

from keras_kd import models
from keras_kd.cache import fingerprints
from keras_kd.cache.format import CacheError
from keras_kd.ops.arguments import invalid
from keras_kd.serializing import deserialized, serialized, without_training
from keras_kd.taps import paths
from keras_kd.teachers import absent, base, keras_model

# Of those that save at the same time each would take the other's `None` for the optimizer.
_ALONE = threading.RLock()


def check(save_teacher, source):
    """Returns `save_teacher`, a path as a text, or raises where the teacher cannot be left out.

    Args:
        save_teacher: As of `Distiller`.
        source: The `Teacher`.
    """
    if isinstance(save_teacher, bool):
        if not save_teacher:
            _check_needs_no_saving(source)
        return save_teacher
    if not isinstance(save_teacher, (str, os.PathLike)):
        raise invalid("save_teacher", "True, False or the path of a .keras file", save_teacher)
    path = os.fspath(save_teacher)
    if not path.endswith(".keras"):
        raise invalid("save_teacher", "True, False or the path of a .keras file", repr(path))
    _check_needs_no_saving(source)
    if type(source) is not keras_model.KerasTeacher:
        raise ValueError(
            "`save_teacher` names a .keras file, which holds a keras.Model; the teacher is a "
            f"{type(source).__name__}. Pass save_teacher=False, or True."
        )
    if not pathlib.Path(path).is_file():
        raise ValueError(
            f"`save_teacher`: there is no file {path!r}. Write it before: teacher.save({path!r})."
        )
    return path


def _check_needs_no_saving(source):
    for each in (source, *(layer for _, _, layer in paths.walk(source))):
        if isinstance(each, base.Teacher) and each.is_of_student:
            raise ValueError(
                f"The weights of the teacher, {type(each).__name__}, come from the training itself "
                "and would be lost with a file that does not hold them. Pass save_teacher=True."
            )


def config(distiller):
    """What of its teacher goes into a distiller's configuration."""
    saves, source = distiller.save_teacher, distiller._source.model
    found = {"save_teacher": saves, "teacher": None}
    if saves is True:
        found["teacher"] = without_training(serialized("teacher", distiller.teacher))
        told = {}
    elif isinstance(source, absent.AbsentTeacher):
        return {**found, "teacher_told": source.told}
    else:
        told = {"fingerprint": fingerprints.of_teacher(source)}
    return {**found, "teacher_told": {**distiller._told.model, **told}}


def teacher_of(config):
    """The teacher of a configuration; what belongs to it alone is taken out."""
    saves, told = config.get("save_teacher", True), config.pop("teacher_told", None) or {}
    if saves is False:
        return absent.AbsentTeacher(told, "The distiller was saved without its teacher.")
    if saves is not True:
        return _loaded(saves, told)
    try:
        return _untrained(deserialized(without_training(config["teacher"])))
    except CacheError as error:
        # It cannot be read any more; the student can.
        why = f"The distiller's teacher cannot be read: {error}"
        warnings.warn(
            f"keras_kd: {why} Where the cache lies elsewhere now: "
            "distiller.set_teacher(keras_kd.teachers.Cached(path)).",
            stacklevel=2,
        )
        return absent.AbsentTeacher(told, why)


def _loaded(path, told):
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(
            f"The distiller was saved with save_teacher={path!r}, and there is no such file. Put "
            "the teacher's file there."
        )
    teacher = keras.models.load_model(path, compile=False)
    found = fingerprints.of_teacher(keras_model.adapt(teacher))
    if found != told.get("fingerprint"):
        raise ValueError(
            f"The distiller was saved with save_teacher={path!r}, and that file holds another "
            f"teacher by now: its fingerprint is {found!r}, that of the distiller's teacher was "
            f"{told.get('fingerprint')!r}. Put the teacher's own file there."
        )
    return teacher


def given_back(distiller, teacher, check):
    """The `Teacher` that stands for one that a distiller gets back; raises if it may not."""
    gone = distiller._source.model
    if not isinstance(gone, absent.AbsentTeacher):
        raise ValueError(
            "The distiller has its teacher. For another one make a new distiller: "
            "keras_kd.Distiller(teacher, distiller.student)."
        )
    models.check(teacher, distiller.student)
    source = keras_model.adapt(teacher)
    source.meet(distiller.student)
    expected = gone.fingerprint_of_teacher
    found = fingerprints.of_teacher(source) if check and expected is not None else expected
    if found != expected:
        raise ValueError(
            f"This is another teacher than the distiller had: its fingerprint is {found!r}, that "
            f"of the distiller's teacher was {expected!r}. If it shall teach all the same: "
            "distiller.set_teacher(teacher, check=False)."
        )
    if distiller.save_teacher is not True:
        _check_needs_no_saving(source)
    return source


@contextlib.contextmanager
def without_optimizers(teacher):
    """While it is open Keras finds no optimizer in a teacher: it would save that too."""
    with _ALONE:
        held = [(model, model.optimizer) for model in _with_optimizers(teacher)]
        try:
            for model, _ in held:
                model.optimizer = None
            yield
        finally:
            for model, optimizer in held:
                model.optimizer = optimizer


def _with_optimizers(teacher):
    """The models of a teacher, itself among them, that have been compiled."""
    if not isinstance(teacher, keras.layers.Layer):
        return []
    found = [teacher, *(layer for _, _, layer in paths.walk(teacher))]
    distinct = {id(each): each for each in found if isinstance(each, keras.Model)}
    return [each for each in distinct.values() if getattr(each, "optimizer", None) is not None]


def _untrained(teacher):
    """A teacher that was just loaded, without the optimizers that it made itself.

    KerasHub's tasks compile themselves; of such an optimizer the file has no variables.
    """
    for model in _with_optimizers(teacher):
        model.optimizer = None
    return teacher
