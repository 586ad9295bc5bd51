"""Measures every model and file that the report compares."""

import dataclasses
import inspect
from typing import Any

from keras_kd import progress
from keras_kd.measurement import measure
from keras_kd.report import teaching
from keras_kd.report.entrants import BASELINE, EXPORT, STUDENT, TEACHER, Entrant

# Arguments of `measure` that the report sets itself.
_OWN = {"model_or_file", "data", "teacher", "latency", "name", "verbose"}
_OPTIONS = [name for name in inspect.signature(measure).parameters if name not in _OWN]


def check_options(options):
    """Raises unless `measure` has arguments of these names.

    Raises:
        TypeError: It has not, as Python itself would say.
    """
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise TypeError(
            f"report() got unexpected arguments {unknown}. Beside its own it takes those of "
            f"keras_kd.measure: {_OPTIONS}."
        )


@dataclasses.dataclass(frozen=True)
class Examiner:
    """Calls `keras_kd.measure` with the same options for every model.

    Attributes:
        data: The test data.
        options: Of `keras_kd.measure`, by name.
        latency: Whether latencies are measured: of the first seed's models, because those of the
            other seeds compute the same.
        steps: Told of each measurement.
    """

    data: Any
    options: dict
    latency: bool
    steps: progress.Steps

    def entrant(self, name, role, models, teacher=None):
        """Measures the models or files of all seeds."""
        options = self.options_of_teacher(models[0]) if role == TEACHER else self.options
        found = []
        for seed, model in enumerate(models):
            which = f" ({seed + 1} of {len(models)})" if len(models) > 1 else ""
            self.steps.begin(f"measuring {name}{which}")
            latency, verbose = self.latency and not seed, self.steps.inner
            made = measure(
                model, self.data, teacher=teacher, latency=latency, verbose=verbose, **options
            )
            found.append(made)
        return Entrant(name, role, found)

    def options_of_teacher(self, model):
        """The options for a teacher, which may end in softmax or have one output only."""
        options = dict(self.options)
        if options.get("teacher_from_logits") is not None:
            options["from_logits"] = options["teacher_from_logits"]
        if len(getattr(model, "outputs", None) or ()) == 1:
            options["output"] = None
        return options


def of_teacher(examiner, teacher):
    """Measures the teacher: before any training, so that what is wrong with the data is told first.

    Args:
        examiner: An `Examiner`.
        teacher: The teacher, or `None`.

    Returns:
        A list of its `Entrant`, empty where it cannot be measured by itself; what the others are to
        be compared with; a list of notes.
    """
    if teacher is None:
        return [], None, []
    model, notes = teaching.as_model(teacher)
    if model is None:
        examiner.steps.skip("the teacher is not measured by itself")
        return [], teaching.comparable(teacher), notes
    entrant = examiner.entrant("teacher", TEACHER, [model])
    if isinstance(model, teaching.Asked) and not model.weights:
        entrant = teaching.without_size(entrant)
    options = examiner.options_of_teacher(model)
    answers = teaching.answers(model, examiner.data, options, examiner.steps.inner)
    return [entrant], answers, notes


def of_students(examiner, said, pairs, files):
    """Measures the students and the files.

    Args:
        examiner: An `Examiner`.
        said: Of `of_teacher`.
        pairs: A list of `pairs.Pair`.
        files: `{name: files by seed}`.

    Returns:
        A list of `Entrant`.
    """
    made = []
    baselines = [pair.baseline for pair in pairs if pair.baseline is not None]
    if baselines:
        made.append(examiner.entrant("labels only", BASELINE, baselines, said))
    students = [pair.student for pair in pairs]
    made.append(examiner.entrant("distilled", STUDENT, students, said))
    return made + [examiner.entrant(name, EXPORT, found, said) for name, found in files.items()]
