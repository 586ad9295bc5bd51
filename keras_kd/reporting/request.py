"""`Request`: what `report` was called with, checked and bound once, before any work.

Whatever shapes, and labels in arrays, show about models, data and options raises here.
"""

import dataclasses
import inspect
import pathlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import batches, progress, validation
from keras_kd._utils.validation import invalid
from keras_kd.measurement import (
    api,
    embeddings,
    predictions,
    reading,
    tasks,
    teacher_agreement,
)
from keras_kd.measurement import request as measurement_request
from keras_kd.measurement.reading import EvaluationData
from keras_kd.measurement.request import Options
from keras_kd.models import symbolic_pass
from keras_kd.reporting import breakdowns, training
from keras_kd.reporting.training import Export, Pair, Recipe
from keras_kd.teachers import protocol
from keras_kd.training.distiller import Distiller

DEFAULT_SEEDS = (0, 1, 2)
# A larger number is an accident: one seed in its place.
MOST_SEEDS = 1000

# Arguments of `measure` that the report sets itself.
_OWN = {"model_or_file", "data", "teacher", "latency", "name", "verbose"}
_OPTIONS = [name for name in inspect.signature(api.measure).parameters if name not in _OWN]
_OF_CLASSES = ("accuracy", "f1_macro", "f1_micro", "roc_auc", "log_loss", "ece")
_METRICS = {
    "multiclass": _OF_CLASSES,
    "binary": _OF_CLASSES,
    "multilabel": _OF_CLASSES,
    "regression": ("mae", "rmse", "r2"),
    "text": ("bleu", "rouge_1", "rouge_2", "rouge_l"),
    "translation": ("bleu", "chrf"),
    "summarization": ("rouge_1", "rouge_2", "rouge_l", "rouge_lsum"),
    "question_answering": ("exact_match", "f1"),
    "speech_recognition": ("wer", "cer"),
    "retrieval": ("mrr",),
    "similarity": ("spearman", "kendall", "pearson"),
    "language_model": ("perplexity", "log_loss", "accuracy"),
}


@dataclasses.dataclass(frozen=True)
class Request:
    """One call of `keras_kd.report`.

    Attributes:
        teacher: The teacher, or `None`.
        pairs: The trained models by seed; empty where the call trains them.
        recipe: How they are trained; `None` where they are given.
        seeds: The seeds of the trainings; empty where the models are given.
        exports: The files to compare.
        data: The test data.
        slices: `{name: a value for each sample}`.
        metric: The metric that was chosen, or `None` for the usual one of the task.
        options: How students and files are measured.
        teacher_options: How the teacher is measured.
        directory: The folder for models and files, or `None`.
        title: The heading.
        verbose: 0, 1 or 2.
    """

    teacher: Any
    pairs: tuple[Pair, ...]
    recipe: Recipe | None
    seeds: tuple[int, ...]
    exports: tuple[Export, ...]
    data: EvaluationData
    slices: dict[str, list]
    metric: str | None
    options: Options
    teacher_options: Options
    directory: pathlib.Path | None
    title: str
    verbose: int

    @property
    def count(self) -> int:
        """How many students there are, or will be."""
        return len(self.pairs or self.seeds)

    @property
    def has_baseline(self) -> bool:
        """Whether there are students trained with labels only."""
        return self.recipe is not None or self.pairs[0].baseline is not None

    def count_steps(self) -> int:
        """How many trainings, exports and measurements the call has."""
        trained = 0 if self.recipe is None else 2
        written = sum(export.write is not None for export in self.exports)
        measured = 1 + self.has_baseline + len(self.exports)
        return (self.teacher is not None) + self.count * (trained + written + measured)


def bind(
    *,
    teacher: Any,
    student: Any,
    baseline: Any,
    exports: Any,
    data: Any,
    make_student: Any,
    train: Any,
    distiller: Any,
    seeds: Any,
    slices: Any,
    metric: Any,
    latency: Any,
    directory: Any,
    title: Any,
    verbose: Any,
    options: dict[str, Any],
) -> Request:
    """Checks the arguments of `report`, each by itself and all together.

    Raises:
        ImportError: A package is missing.
        TypeError: `measure` has no argument of a name in `options`.
        ValueError: An argument is wrong, or does not fit the others.
    """
    if not isinstance(title, str):
        raise invalid("title", "text", repr(title))
    validation.text("metric", metric, "a key of Measurement.quality", optional=True)
    directory = validation.folder("directory", directory)
    if latency not in (0, 1):  # False and True are these
        raise invalid("latency", "True or False", repr(latency))
    verbose = progress.check_verbose(verbose)
    checked_exports = training.check_exports(exports)
    recipe = _bind_recipe(teacher, student, baseline, make_student, train, distiller)
    if recipe is None:
        pairs, numbers = _bind_pairs(student, baseline, seeds), []
    else:
        pairs, numbers = [], _check_seeds(seeds)
    for export in checked_exports:
        export.require_files(len(pairs or numbers))
    read = _read_data(data)
    _check_option_names(options)
    common = Options(**options, latency=bool(latency), verbose=int(verbose == 1))
    request = Request(
        teacher=teacher,
        pairs=tuple(pairs),
        recipe=recipe,
        seeds=tuple(numbers),
        exports=checked_exports,
        data=read,
        slices={},
        metric=metric,
        options=common,
        teacher_options=_teacher_options(common, teacher),
        directory=None if directory is None else pathlib.Path(directory),
        title=title,
        verbose=verbose,
    )
    _check_models(request)
    return dataclasses.replace(request, slices=breakdowns.read_slices(slices, read.source))


def _check_option_names(options):
    """Raises `TypeError`, as Python itself does, unless `measure` has arguments of these names."""
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise TypeError(
            f"report() got unexpected arguments {unknown}. Beside its own it takes those of "
            f"keras_kd.measure: {_OPTIONS}."
        )


def _teacher_options(options, teacher):
    """The options for a teacher, which may end in softmax or have a single output."""
    single = len(getattr(teacher, "outputs", None) or ()) == 1
    return dataclasses.replace(
        options,
        from_logits=options.teacher_gives_logits,
        output=None if single else options.output,
    )


def _bind_recipe(teacher, student, baseline, make_student, train, distiller):
    """A `Recipe` where the call is to train, else `None`."""
    if make_student is None and train is None:
        if distiller is not None:
            raise ValueError("`distiller` needs `make_student` and `train` beside it.")
        return None
    functions = {"make_student": (make_student, []), "train": (train, ["model"])}
    for name, (function, called_with) in functions.items():
        if not _is_function(function):
            what = "a function; `make_student` and `train` go together"
            raise invalid(name, what, repr(function))
        validation.function(name, function, called_with)
    for name, given in (("student", student), ("baseline", baseline)):
        if given is not None:
            raise ValueError(
                f"`{name}` is a trained model, and `make_student` is there to train one. Pass "
                "either student= and baseline=, or make_student= and train=."
            )
    if teacher is None:
        raise ValueError("`teacher` is missing: the students cannot be distilled without one.")
    distiller = Distiller if distiller is None else distiller
    if not _is_function(distiller):
        raise invalid("distiller", "a function of (teacher, student)", repr(distiller))
    validation.function("distiller", distiller, ["teacher", "student"])
    return Recipe(teacher, make_student, train, distiller)


def _is_function(value):
    return callable(value) and not isinstance(value, keras.Model)


def _check_seeds(given):
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


def _bind_pairs(student, baseline, seeds):
    """The trained models of the call, a list of `Pair`."""
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
    students = _check_trained("student", student)
    if baseline is None:
        return [Pair(number, None, each) for number, each in enumerate(students)]
    baselines = _check_trained("baseline", baseline)
    if len(baselines) != len(students):
        raise ValueError(
            f"`student` has {len(students)} model(s) and `baseline` {len(baselines)}. They are "
            "compared in pairs: pass one baseline for each student, in the same order of seeds."
        )
    if {id(each) for each in baselines} & {id(each) for each in students}:
        raise ValueError("A model of `baseline` is one of `student` too.")
    return [Pair(i, *pair) for i, pair in enumerate(zip(baselines, students, strict=True))]


def _check_trained(name, given):
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    if not listed or not all(isinstance(each, keras.Model) for each in listed):
        raise invalid(name, "a trained keras.Model, or a list with one for each seed", repr(given))
    for each in listed:
        symbolic_pass.check_built(name, each)
    if len({id(each) for each in listed}) != len(listed):
        raise ValueError(f"`{name}` has the same model twice: seeds must be trained apart.")
    return listed


def _read_data(data):
    if data is None:
        raise ValueError("`data` is missing: the test data, (inputs, labels) or a batched dataset.")
    return EvaluationData.read(data)


def require_same_order(data: Any, whole: bool = True) -> None:
    """Raises if a dataset gives other labels when it is read again.

    Every model is measured on a reading of its own, most of them after training.

    Args:
        data: The test data.
        whole: Whether all of it is read, twice; else the first batch.
    """
    if not isinstance(data, tf.data.Dataset):
        return
    data = data if whole else data.take(1)
    labels = data.map(lambda *element: keras.utils.unpack_x_y_sample_weight(element)[1])
    readings = zip(labels.as_numpy_iterator(), labels.as_numpy_iterator(), strict=False)
    for once, again in readings:
        pairs = zip(keras.tree.flatten(once), keras.tree.flatten(again), strict=True)
        if not all(_are_equal(*pair) for pair in pairs):
            raise ValueError(
                "`data` gives other samples when it is read again, and it is read once for each "
                "model. Leave out shuffle, pass shuffle(..., reshuffle_each_iteration=False), or "
                "pass arrays."
            )


def _are_equal(one, other):
    kind = np.asarray(one).dtype.kind
    if kind == "O":  # texts, or samples of lengths of their own
        return _as_lists(one) == _as_lists(other)
    return np.array_equal(one, other, equal_nan=kind == "f")


def _as_lists(values):
    values = np.asarray(values)
    has_parts = values.dtype.kind == "O" and values.ndim > 0
    return [_as_lists(each) for each in values] if has_parts else values.tolist()


# What shapes, and labels in arrays, show about the models.


def _check_models(request):
    teacher_shape = None
    if isinstance(request.teacher, keras.Model):
        symbolic_pass.check_built("teacher", request.teacher)
        teacher_shape = _bind_model(request, request.teacher, request.teacher_options).output_shape
    for model in _students(request):
        student = _bind_model(request, model, request.options)
        task, shape = student.task, student.output_shape
        if task in tasks.NUMBERS and None not in (shape, teacher_shape):
            width = teacher_shape[-1] if teacher_shape else None
            teacher_agreement.check_width(width, task, shape)
        _check_metric(request.metric, task, request.options.top_k)
    trains = request.recipe is not None
    require_same_order(request.data.source, whole=trains)
    if trains and task in tasks.NUMBERS:
        _check_outputs(student)


def _bind_model(request, model, options) -> measurement_request.Request:
    return measurement_request.Request.bind(model, request.data, None, options)


def _students(request: Request) -> Iterator[keras.Model]:
    """The students and baselines that there are, or one that is made to be looked at."""
    yield from (pair.student for pair in request.pairs)
    yield from (pair.baseline for pair in request.pairs if pair.baseline is not None)
    if request.recipe is not None:
        make, seed = request.recipe.make_student, request.seeds[0]
        one, other = training.make(make, seed), training.make(make, seed)
        training.begin_alike(one, other)
        yield one


def _check_metric(metric, task, top_k):
    """Raises for a metric that no model of a task has."""
    known = _METRICS if task is None else {task: _METRICS[task]}
    names = {name for each in known.values() for name in each}
    if "roc_auc" in names:
        names |= {f"top_{k}_accuracy" for k in top_k if k > 1}
    if "mrr" in names:
        names |= {f"recall_at_{k}" for k in embeddings.DEFAULT_TOP_K + tuple(top_k)}
    if metric is not None and metric not in names:
        raise invalid("metric", f"one of {sorted(names)}", repr(metric))


def _check_outputs(student):
    """Raises where a new student gives logits for probabilities, or the reverse.

    Training does not change which of them it gives; measured afterwards, it would be too late.
    """
    subject, options, task = student.subject, student.options, student.task
    inputs = keras.tree.map_structure(
        np.asarray, next(iter(batches.iterate(student.data.source)))[0]
    )
    outputs = subject.predict(protocol.detach_outputs(inputs)[0])
    chosen = reading.choose_output(outputs, options.output, subject.name)[1]
    values = predictions.flatten_outputs(task, subject.name, chosen)
    values = values[np.isfinite(values).reshape(len(values), -1).all(axis=-1)]
    if len(values) and task != "regression":
        sums_to_one = task == "multiclass"
        predictions.check_from_logits(subject.name, values, options.from_logits, sums_to_one)
