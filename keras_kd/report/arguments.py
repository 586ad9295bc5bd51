"""Checks the arguments of `keras_kd.report`, before anything is trained or measured."""

import keras

from keras_kd.diagnosis import batches
from keras_kd.distiller import Distiller
from keras_kd.ops.arguments import invalid
from keras_kd.report import exporting
from keras_kd.report.pairs import Recipe


def check_data(data):
    """Raises unless the test data are a finite batched dataset or arrays, with labels."""
    if data is None:
        raise ValueError("`data` is missing: the test data, (inputs, labels) or a batched dataset.")
    batches.check("data", data)


def recipe(teacher, student, baseline, make_student, train, distiller):
    """A `Recipe` where the call is to train, else `None`.

    Raises:
        ValueError: What is given does not go together.
    """
    if make_student is None and train is None:
        if distiller is not None:
            raise ValueError("`distiller` needs `make_student` and `train` beside it.")
        return None
    for name, function in (("make_student", make_student), ("train", train)):
        if not callable(function) or isinstance(function, keras.Model):
            raise invalid(name, "a function; `make_student` and `train` go together", function)
    for name, given in (("student", student), ("baseline", baseline)):
        if given is not None:
            raise ValueError(
                f"`{name}` is a trained model, and `make_student` is there to train one. Pass "
                "either student= and baseline=, or make_student= and train=."
            )
    if teacher is None:
        raise ValueError("`teacher` is missing: the students cannot be distilled without one.")
    if distiller is None:
        distiller = Distiller
    elif not callable(distiller) or isinstance(distiller, keras.Model):
        raise invalid("distiller", "a function of (teacher, student)", repr(distiller))
    return Recipe(teacher, make_student, train, distiller)


def seeds(given):
    """The seeds as a list of different integers."""
    listed = list(range(given)) if isinstance(given, int) else list(given)
    valid = all(isinstance(each, int) and each >= 0 for each in listed)
    if not listed or not valid or len(set(listed)) != len(listed):
        raise invalid("seeds", "different integers of at least 0, one or more", repr(given))
    return listed


def given(student, baseline, files):
    """The trained models of the call as lists by seed: students, and baselines or `None`.

    Raises:
        ValueError: They cannot be compared pair by pair; there is not a file for each.
    """
    if student is None:
        raise ValueError(
            "There is no student to report on. Pass student= (a trained model, or a list by seed), "
            "or make_student= and train= to have them trained."
        )
    students = _models("student", student)
    exporting.check_counts(files, len(students))
    if baseline is None:
        return students, None
    baselines = _models("baseline", baseline)
    if len(baselines) != len(students):
        raise ValueError(
            f"`student` has {len(students)} model(s) and `baseline` {len(baselines)}. They are "
            "compared in pairs: pass one baseline for each student, in the same order of seeds."
        )
    if {id(each) for each in baselines} & {id(each) for each in students}:
        raise ValueError("A model of `baseline` is one of `student` too.")
    return students, baselines


def _models(name, given):
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    if not listed or not all(isinstance(each, keras.Model) for each in listed):
        raise invalid(name, "a trained keras.Model, or a list with one for each seed", repr(given))
    if len({id(each) for each in listed}) != len(listed):
        raise ValueError(f"`{name}` has the same model twice: seeds must be trained apart.")
    return listed
