"""What of models, data and options does not fit, told before anything is trained or measured."""

import keras
import numpy as np

from keras_kd import symbolic_pass
from keras_kd.diagnosis import batches
from keras_kd.measurement import (
    arguments,
    beforehand,
    comparison,
    probabilities,
    rows,
    selection,
)
from keras_kd.measurement.run import BATCH_SIZE
from keras_kd.measurement.subjects import subject_of
from keras_kd.ops.arguments import invalid
from keras_kd.report import pairs
from keras_kd.report.arguments import check_order, seeds
from keras_kd.teachers import carried

_DEFAULTS = {
    "task": "auto",
    "from_logits": True,
    "teacher_from_logits": None,
    "class_names": None,
    "top_k": arguments.DEFAULT_TOP_K,
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
        taught = beforehand.check(teacher, data, of_teacher.get("output"), asked_of_teacher, None)
    for model in _students(request):
        subject = _subject(model, options)
        task, shape = beforehand.check(subject, data, options.get("output"), asked, None)
        if None not in (task, shape, taught[1]) and task != "text":
            comparison.check_width(taught[1][-1] if taught[1] else None, task, shape)
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
    made = selection.chosen(
        subject.predict(carried.split(inputs)[0]), options.get("output"), subject.name
    )[1]
    values = rows.flat(task, subject.name, made)
    values = values[np.isfinite(values).reshape(len(values), -1).all(axis=-1)]
    if len(values) and task != "regression":
        probabilities.check(subject.name, values, from_logits, task == "multiclass")


def _students(request):
    """The students and baselines that there are, or one that is made to be looked at."""
    for given in (request.student, request.baseline):
        yield from given if isinstance(given, (list, tuple)) else [given] * (given is not None)
    if request.make_student is not None:
        one, other = (pairs.made(request.make_student, seeds(request.seeds)[0]) for _ in "ab")
        pairs.begin_alike(one, other)
        yield one


def _subject(model, options):
    return subject_of(model, options.get("threads", 1), decode=options.get("decode"))


def _asked(options, latency):
    """The options for `keras_kd.measure`, checked as it checks them."""
    given = {**_DEFAULTS, **{key: options[key] for key in _DEFAULTS if key in options}}
    size = options.get("batch_size")
    arguments.positive("batch_size", BATCH_SIZE if size is None else size)
    return arguments.Arguments(**given, latency=bool(latency))
