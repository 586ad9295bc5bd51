"""Checks the arguments of `keras_kd.report`, before anything is trained or measured."""

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import batches, progress, validation
from keras_kd._utils.validation import invalid
from keras_kd.measurement import api, predictions, reading, teacher_agreement
from keras_kd.measurement.api import BATCH_SIZE
from keras_kd.measurement.subjects import subject_of
from keras_kd.models import symbolic_pass
from keras_kd.reporting import training
from keras_kd.reporting.training import Pair, Recipe
from keras_kd.runtimes import tensors
from keras_kd.teachers import protocol
from keras_kd.training.distiller import Distiller

# Of `keras_kd.report`.
DEFAULT_SEEDS = (0, 1, 2)
# A number above it is an accident: one seed in its place.
MOST_SEEDS = 1000


def data(given):
    """The test data with labels as arrays.

    Raises:
        ValueError: They are no finite batched dataset, and no arrays of one length with labels.
    """
    if given is None:
        raise ValueError("`data` is missing: the test data, (inputs, labels) or a batched dataset.")
    return reading.prepared(given)


def check_order(data, whole=True):
    """Raises if a dataset gives other labels when it is read again.

    Every model is measured on a reading of its own; told only then, it is told after training.

    Args:
        data: The test data.
        whole: Whether all of it is read, twice; else the first batch.
    """
    if not isinstance(data, tf.data.Dataset):
        return
    data = data if whole else data.take(1)
    labels = data.map(lambda *row: keras.utils.unpack_x_y_sample_weight(row)[1])
    readings = zip(labels.as_numpy_iterator(), labels.as_numpy_iterator(), strict=False)
    for once, again in readings:
        pairs = zip(keras.tree.flatten(once), keras.tree.flatten(again), strict=True)
        if not all(_same(*pair) for pair in pairs):
            raise ValueError(
                "`data` gives other rows when it is read again, and each model reads it anew. "
                "Leave out shuffle, or pass shuffle(..., reshuffle_each_iteration=False), or pass "
                "arrays."
            )


def _same(one, other):
    kind = np.asarray(one).dtype.kind
    if kind == "O":  # texts, or rows of lengths of their own
        return _listed(one) == _listed(other)
    return np.array_equal(one, other, equal_nan=kind == "f")


def _listed(values):
    values = np.asarray(values)
    has_parts = values.dtype.kind == "O" and values.ndim > 0
    return [_listed(each) for each in values] if has_parts else values.tolist()


def check_plain(request):
    """Raises unless the arguments that are no models, data or functions are what they should be."""
    if not isinstance(request.title, str):
        raise invalid("title", "text", repr(request.title))
    validation.text("metric", request.metric, "a key of Measurement.quality", optional=True)
    validation.folder("directory", request.directory)
    if request.latency not in (0, 1):  # False and True are these
        raise invalid("latency", "True or False", repr(request.latency))
    progress.checked(request.verbose)


def recipe(request):
    """A `Recipe` where the call is to train, else `None`.

    Raises:
        ValueError: What is given does not go together.
    """
    if request.make_student is None and request.train is None:
        if request.distiller is not None:
            raise ValueError("`distiller` needs `make_student` and `train` beside it.")
        return None
    for name, called_with in (("make_student", []), ("train", ["model"])):
        if not _is_function(getattr(request, name)):
            received = repr(getattr(request, name))
            raise invalid(name, "a function; `make_student` and `train` go together", received)
        validation.function(name, getattr(request, name), called_with)
    for name in ("student", "baseline"):
        if getattr(request, name) is not None:
            raise ValueError(
                f"`{name}` is a trained model, and `make_student` is there to train one. Pass "
                "either student= and baseline=, or make_student= and train=."
            )
    if request.teacher is None:
        raise ValueError("`teacher` is missing: the students cannot be distilled without one.")
    distiller = Distiller if request.distiller is None else request.distiller
    if not _is_function(distiller):
        raise invalid("distiller", "a function of (teacher, student)", repr(distiller))
    validation.function("distiller", distiller, ["teacher", "student"])
    return Recipe(request.teacher, request.make_student, request.train, distiller)


def _is_function(value):
    return callable(value) and not isinstance(value, keras.Model)


def seeds(given):
    """The seeds as a list of different integers."""
    is_number = isinstance(given, (int, np.integer)) and not isinstance(given, bool)
    if is_number and 0 < given <= MOST_SEEDS:
        return list(range(given))
    is_list = isinstance(given, (list, tuple, range, np.ndarray))
    listed = np.asarray(given).tolist() if is_list else []
    valid = all(type(each) is int and 0 <= each < 2**32 for each in listed)
    if not listed or not valid or len(set(listed)) != len(listed):
        raise invalid(
            "seeds",
            "different integers of at least 0 and below 2**32, one or more, or their number, at "
            f"most {MOST_SEEDS}",
            repr(given),
        )
    return listed


def given(student, baseline, seeds=DEFAULT_SEEDS):
    """The trained models of the call, a list of `Pair`.

    Raises:
        ValueError: They cannot be compared pair by pair.
    """
    if tuple(np.atleast_1d(seeds).tolist()) != DEFAULT_SEEDS:
        raise ValueError(
            "`seeds` are those of trainings, and `student` is trained. Leave them out, or pass "
            f"make_student= and train=. Received: seeds={seeds!r}"
        )
    if student is None:
        raise ValueError(
            "There is no student to report on. Pass student= (a trained model, or a list by seed), "
            "or make_student= and train= to have them trained."
        )
    students = _models("student", student)
    if baseline is None:
        return [Pair(number, None, each) for number, each in enumerate(students)]
    baselines = _models("baseline", baseline)
    if len(baselines) != len(students):
        raise ValueError(
            f"`student` has {len(students)} model(s) and `baseline` {len(baselines)}. They are "
            "compared in pairs: pass one baseline for each student, in the same order of seeds."
        )
    if {id(each) for each in baselines} & {id(each) for each in students}:
        raise ValueError("A model of `baseline` is one of `student` too.")
    return [Pair(i, *pair) for i, pair in enumerate(zip(baselines, students, strict=True))]


def _models(name, given):
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    if not listed or not all(isinstance(each, keras.Model) for each in listed):
        raise invalid(name, "a trained keras.Model, or a list with one for each seed", repr(given))
    for each in listed:
        symbolic_pass.check_built(name, each)
    if len({id(each) for each in listed}) != len(listed):
        raise ValueError(f"`{name}` has the same model twice: seeds must be trained apart.")
    return listed


# What of models, data and options does not fit, told before anything is trained or measured.


_DEFAULTS = {
    "task": "auto",
    "from_logits": True,
    "teacher_from_logits": None,
    "class_names": None,
    "top_k": api.DEFAULT_TOP_K,
    "runs": 1,
    "warmup": 0,
}
_OF_CLASSES = ("accuracy", "f1_macro", "f1_micro", "roc_auc", "log_loss", "ece")
_METRICS = {
    "multiclass": _OF_CLASSES,
    "binary": _OF_CLASSES,
    "multilabel": _OF_CLASSES,
    "regression": ("mae", "rmse", "r2"),
    "text": ("bleu", "rouge_1", "rouge_2", "rouge_l"),
}


def check(request, data, options_of_teacher):
    """Raises for what shapes, and labels in arrays, tell of the models of a report.

    Args:
        request: A `running.Request`.
        data: The test data, checked.
        options_of_teacher: From a teacher to the options for `keras_kd.measure` of it.
    """
    options, taught = request.options, (None, None)
    of_teacher = options_of_teacher(request.teacher)
    asked = _asked(options, request.latency)
    asked_of_teacher = _asked(of_teacher, request.latency)
    if isinstance(request.teacher, keras.Model):
        symbolic_pass.check_built("teacher", request.teacher)
        teacher = _subject(request.teacher, of_teacher)
        taught = api.check(teacher, data, of_teacher.get("output"), asked_of_teacher, None)
    for model in _students(request):
        subject = _subject(model, options)
        task, shape = api.check(subject, data, options.get("output"), asked, None)
        if None not in (task, shape, taught[1]) and task != "text":
            teacher_agreement.check_width(taught[1][-1] if taught[1] else None, task, shape)
        _check_metric(request.metric, task, asked.top_k)
    trains = request.make_student is not None
    check_order(data, whole=trains)
    if trains and task is not None and task != "text":
        _check_outputs(subject, data, options, task)


def _check_metric(metric, task, top_k):
    """Raises for a metric that no model of a task has."""
    known = _METRICS if task is None else {task: _METRICS[task]}
    names = {name for each in known.values() for name in each}
    names |= {f"top_{k}_accuracy" for k in top_k if k > 1} if "accuracy" in names else set()
    if metric is not None and metric not in names:
        raise invalid("metric", f"one of {sorted(names)}", repr(metric))


def _check_outputs(subject, data, options, task):
    """Raises where a new student gives logits for probabilities, or the reverse.

    Training does not change which of them; told only then, all students have been trained.
    """
    from_logits = options.get("from_logits", True)
    inputs = keras.tree.map_structure(np.asarray, next(iter(batches.of(data)))[0])
    made = reading.chosen(
        subject.predict(protocol.split(inputs)[0]), options.get("output"), subject.name
    )[1]
    values = predictions.flat(task, subject.name, made)
    values = values[np.isfinite(values).reshape(len(values), -1).all(axis=-1)]
    if len(values) and task != "regression":
        predictions.check(subject.name, values, from_logits, task == "multiclass")


def _students(request):
    """The students and baselines that there are, or one that is made to be looked at."""
    for given in (request.student, request.baseline):
        yield from given if isinstance(given, (list, tuple)) else [given] * (given is not None)
    if request.make_student is not None:
        one, other = (training.made(request.make_student, seeds(request.seeds)[0]) for _ in "ab")
        training.begin_alike(one, other)
        yield one


def _subject(model, options):
    return subject_of(model, options.get("threads", 1), decode=options.get("decode"))


def _asked(options, latency):
    """The options for `keras_kd.measure`, checked as it checks them."""
    given = {**_DEFAULTS, **{key: options[key] for key in _DEFAULTS if key in options}}
    size = options.get("batch_size")
    tensors.positive("batch_size", BATCH_SIZE if size is None else size)
    return api.Arguments(**given, latency=bool(latency))
