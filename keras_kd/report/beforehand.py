"""What of models, data and options does not fit, told before anything is trained or measured."""

import keras

from keras_kd import symbolic_pass
from keras_kd.measurement import arguments, beforehand, comparison
from keras_kd.measurement.run import BATCH_SIZE
from keras_kd.measurement.subjects import subject_of
from keras_kd.report import pairs
from keras_kd.report.arguments import seeds

_DEFAULTS = {
    "task": "auto",
    "from_logits": True,
    "teacher_from_logits": None,
    "class_names": None,
    "top_k": arguments.DEFAULT_TOP_K,
    "runs": 1,
    "warmup": 0,
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
    _asked(options, request.latency)
    asked = _asked(of_teacher, request.latency)
    if isinstance(request.teacher, keras.Model):
        symbolic_pass.check_built("teacher", request.teacher)
        taught = beforehand.check(
            _subject(request.teacher, of_teacher), data, of_teacher.get("output"), asked, None
        )
    for model in _students(request):
        subject = _subject(model, options)
        asked = _asked(options, request.latency)
        task, shape = beforehand.check(subject, data, options.get("output"), asked, None)
        if None not in (task, shape, taught[1]) and task != "text":
            comparison.check_width(taught[1][-1] if taught[1] else None, task, shape)


def _students(request):
    """The students and baselines that there are, or one that is made to be looked at."""
    for given in (request.student, request.baseline):
        yield from given if isinstance(given, (list, tuple)) else [given] * (given is not None)
    if request.make_student is not None:
        yield pairs.made(request.make_student, seeds(request.seeds)[0])


def _subject(model, options):
    return subject_of(model, options.get("threads", 1), decode=options.get("decode"))


def _asked(options, latency):
    """The options for `keras_kd.measure`, checked as it checks them."""
    given = {**_DEFAULTS, **{key: options[key] for key in _DEFAULTS if key in options}}
    size = options.get("batch_size")
    arguments.positive("batch_size", BATCH_SIZE if size is None else size)
    return arguments.Arguments(**given, latency=bool(latency))
