"""Measures every model and file that a report compares, the teacher among them."""

import dataclasses
import os
import pathlib
import platform
import re
from typing import Any

import keras
import numpy as np

from keras_kd import version
from keras_kd._utils import progress
from keras_kd.measurement import api, tasks
from keras_kd.measurement import request as measurement_request
from keras_kd.measurement.reading import ModelOutputs
from keras_kd.measurement.result import Measurement
from keras_kd.models import symbolic_pass
from keras_kd.reporting.comparison import BASELINE, EXPORT, STUDENT, TEACHER, Candidate
from keras_kd.reporting.request import Request
from keras_kd.reporting.training import Pair
from keras_kd.runtimes import ModelFile
from keras_kd.teachers import protocol
from keras_kd.teachers.keras_model import adapt

_PROCESSORS = pathlib.Path("/proc/cpuinfo")
# Teachers that cannot be measured by themselves, and why.
_NOT_ALONE = {
    "needs_attached": "its outputs come with the data",
    "needs_student": "it looks at the student",
    "is_sparse": "it keeps the largest logits only",
}
_NO_SIZE = "size: left out; Keras does not see the weights of a teacher that is a function."


@dataclasses.dataclass(frozen=True)
class MeasuredTeacher:
    """The teacher of a report.

    Attributes:
        candidates: A list with its `Candidate`, empty where it cannot be measured by itself.
        reference: What the others are compared with: its outputs, a teacher, or `None`.
        notes: Why it was not measured.
    """

    candidates: list[Candidate]
    reference: Any
    notes: list[str]


def measure_teacher(request: Request, steps: progress.Steps) -> MeasuredTeacher:
    """Measures the teacher, in one pass over the data that gives its outputs for the others too.

    Args:
        request: The call of `report`.
        steps: Shows the progress; the teacher is a step.
    """
    if request.teacher is None:
        return MeasuredTeacher([], None, [])
    model, notes = as_model(request.teacher)
    if model is None:
        steps.skip("the teacher is not measured by itself")
        return MeasuredTeacher([], _comparable(request.teacher), notes)
    steps.begin("measuring teacher")
    bound = measurement_request.Request.bind(model, request.data, None, request.teacher_options)
    outputs = api.run(bound)
    measurement = api.evaluate(bound, outputs)
    if isinstance(model, TeacherModel) and not model.weights:
        measurement = _without_size(measurement)
    candidate = Candidate("teacher", TEACHER, [measurement])
    if measurement.task == tasks.LANGUAGE_MODEL:
        return _measured_language_model(candidate, model, notes)
    return MeasuredTeacher([candidate], _reference(outputs), notes)


def _measured_language_model(candidate, model, notes):
    # Its logits were not kept: it runs once more for each student.
    if isinstance(model, keras.Model):
        return MeasuredTeacher([candidate], model, notes)
    left_out = "teacher: others are not compared with it; a file's logits are not kept."
    return MeasuredTeacher([candidate], None, [*notes, left_out])


def _reference(outputs: ModelOutputs):
    is_numbers = np.asarray(outputs.outputs).dtype.kind in "biuf"
    return outputs.outputs if is_numbers else None


def measure_students(
    request: Request,
    pairs: list[Pair],
    files: dict[str, list[pathlib.Path]],
    reference: Any,
    steps: progress.Steps,
) -> list[Candidate]:
    """Measures the students and their files.

    Args:
        request: The call of `report`.
        pairs: The students by seed.
        files: `{name: files by seed}`.
        reference: What they are compared with, of `MeasuredTeacher`.
        steps: Shows the progress; each measurement is a step.
    """
    baselines = [pair.baseline for pair in pairs if pair.baseline is not None]
    students = [pair.student for pair in pairs]
    roles = [("labels only", BASELINE, baselines)] if baselines else []
    roles += [("distilled", STUDENT, students)]
    roles += [(name, EXPORT, paths) for name, paths in files.items()]
    return [
        Candidate(name, role, _measure_seeds(request, name, models, reference, steps))
        for name, role, models in roles
    ]


def _measure_seeds(request, name, models, reference, steps):
    found = []
    for seed, model in enumerate(models):
        which = f" ({seed + 1} of {len(models)})" if len(models) > 1 else ""
        steps.begin(f"measuring {name}{which}")
        # Of the first seed alone: the models of the others compute the same.
        latency = request.options.latency and seed == 0
        options = dataclasses.replace(request.options, latency=latency)
        bound = measurement_request.Request.bind(model, request.data, reference, options)
        found.append(api.evaluate(bound, api.run(bound)))
    return found


class TeacherModel(keras.Model):
    """Wraps a teacher that is not a model, so that it is called like one.

    Args:
        teacher: A `keras_kd.teachers.Teacher`.
    """

    def __init__(self, teacher: Any):
        # TensorFlow takes no other characters, and a lambda has them.
        super().__init__(name=re.sub(r"\W+", "_", teacher.name).strip("_"), autocast=False)
        self.teacher = teacher
        self.built = True

    def build(self, input_shape=None):
        del input_shape  # the teacher is complete

    def call(self, inputs, training=None):
        del training
        return self.teacher.predict_batch(protocol.TeacherInputs(inputs))


def as_model(teacher: Any) -> tuple[Any, list[str]]:
    """`(what is measured of a teacher, notes)`; `None` where it cannot stand alone.

    Args:
        teacher: What `Distiller` takes, or a file that `keras_kd.measure` takes.
    """
    if isinstance(teacher, (keras.Model, str, os.PathLike, ModelFile)):
        symbolic_pass.check_built("teacher", teacher)
        return teacher, []
    adapted = adapt(teacher)
    for flag, why in _NOT_ALONE.items():
        if getattr(adapted, flag):
            return None, [f"teacher: not measured by itself; {why}."]
    symbolic_pass.check_built("teacher", teacher)
    return TeacherModel(adapted), []


def _comparable(teacher):
    """A teacher that cannot stand alone, where others can be compared with it, else `None`."""
    adapted = adapt(teacher)
    return None if adapted.needs_student or adapted.is_sparse else teacher


def _without_size(measurement: Measurement) -> Measurement:
    """A measurement without the figures of weights that lie where Keras does not see them."""
    hidden = ("parameters", "trainable_parameters", "bytes", "gzip_bytes")
    size = {key: value for key, value in measurement.size.items() if key not in hidden}
    return dataclasses.replace(measurement, size=size, notes=[*measurement.notes, _NO_SIZE])


def describe_environment() -> dict[str, str]:
    """`{name: text}` of what the models were measured with; no name and no path of the machine."""
    versions = version.installed()
    return {
        "Processor": f"{_processor()}, {os.cpu_count()} cores",
        "System": f"{platform.system()} {platform.machine()}",
        "Python": versions["python"],
        "TensorFlow": versions["tensorflow"],
        "Keras": versions["keras"],
        "keras_kd": versions["keras_kd"],
    }


def _processor():
    if _PROCESSORS.exists():
        for line in _PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
