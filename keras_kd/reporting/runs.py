"""Measures every model and file that a report compares, the teacher among them."""

import contextlib
import dataclasses
import inspect
import os
import pathlib
import platform
import re
import tempfile
import zipfile
from typing import Any

import keras
import tensorflow as tf

from keras_kd import runtimes, version
from keras_kd._utils import progress, validation
from keras_kd._utils.validation import invalid
from keras_kd.measurement import api, reading
from keras_kd.measurement.api import BATCH_SIZE
from keras_kd.measurement.subjects import subject_of
from keras_kd.models import symbolic_pass
from keras_kd.reporting.comparison import BASELINE, EXPORT, STUDENT, TEACHER, Candidate
from keras_kd.teachers import protocol
from keras_kd.teachers.keras_model import adapt

# Measures every model and file that the report compares.


# Arguments of `measure` that the report sets itself.
_OWN = {"model_or_file", "data", "teacher", "latency", "name", "verbose"}
_OPTIONS = [name for name in inspect.signature(api.measure).parameters if name not in _OWN]


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

    def candidate(self, name, role, models, teacher=None):
        """Measures the models or files of all seeds."""
        options = self.options_of_teacher(models[0]) if role == TEACHER else self.options
        found = []
        for seed, model in enumerate(models):
            which = f" ({seed + 1} of {len(models)})" if len(models) > 1 else ""
            self.steps.begin(f"measuring {name}{which}")
            latency, verbose = self.latency and not seed, self.steps.inner
            made = api.measure(
                model, self.data, teacher=teacher, latency=latency, verbose=verbose, **options
            )
            found.append(made)
        return Candidate(name, role, found)

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
        A list of its `Candidate`, empty where it cannot be measured by itself; what the others are to
        be compared with; a list of notes.
    """
    if teacher is None:
        return [], None, []
    model, notes = as_model(teacher)
    if model is None:
        examiner.steps.skip("the teacher is not measured by itself")
        return [], comparable(teacher), notes
    candidate = examiner.candidate("teacher", TEACHER, [model])
    if isinstance(model, Asked) and not model.weights:
        candidate = without_size(candidate)
    options = examiner.options_of_teacher(model)
    answers = teacher_outputs(model, examiner.data, options, examiner.steps.inner)
    return [candidate], answers, notes


def of_students(examiner, said, pairs, files):
    """Measures the students and the files.

    Args:
        examiner: An `Examiner`.
        said: Of `of_teacher`.
        pairs: A list of `pairs.Pair`.
        files: `{name: files by seed}`.

    Returns:
        A list of `Candidate`.
    """
    made = []
    baselines = [pair.baseline for pair in pairs if pair.baseline is not None]
    if baselines:
        made.append(examiner.candidate("labels only", BASELINE, baselines, said))
    students = [pair.student for pair in pairs]
    made.append(examiner.candidate("distilled", STUDENT, students, said))
    return made + [examiner.candidate(name, EXPORT, found, said) for name, found in files.items()]


# The files that are compared with the students they were made of.


RESERVED = ("teacher", "labels only", "distilled")


def check(exports):
    """Raises unless `exports` names files, or functions that write them.

    Returns:
        `{name: function or list of paths}`.
    """
    if exports is None:
        return {}
    if not isinstance(exports, dict):
        raise invalid("exports", "a dict from names to files or functions", repr(exports))
    checked = {_checked_name(name): _checked(name, value) for name, value in exports.items()}
    written = [_file_name(name, 0) for name, value in checked.items() if callable(value)]
    if len(set(written)) < len(written):
        raise invalid(
            "exports", "names whose letters, digits, - and _ are not the same", repr(list(checked))
        )
    return checked


def _checked_name(name):
    if not isinstance(name, str) or not name.strip() or name in RESERVED:
        raise invalid("exports", f"names that are text and none of {RESERVED}", repr(name))
    return name


def _checked(name, value):
    if callable(value):
        return validation.function(f"exports[{name!r}]", value, ["student", "path"])
    paths = list(value) if isinstance(value, (list, tuple)) else [value]
    for path in paths:
        if not isinstance(path, (str, pathlib.Path)):
            raise invalid(
                f"exports[{name!r}]",
                "a file, a list of files (one for each student), or a function of "
                "(student, path) that writes one",
                repr(value),
            )
        path = validation.path(f"exports[{name!r}]", path)
        if not pathlib.Path(path).is_file():
            raise ValueError(f"exports[{name!r}]: there is no file {pathlib.Path(path).name!r}.")
        _check_file(name, pathlib.Path(path))
    return [pathlib.Path(path) for path in paths]


def _check_file(name, path):
    """Raises where a file cannot be measured, before anything is trained."""
    if path.suffix == ".keras" and zipfile.is_zipfile(path):
        return  # opened when it is measured: models may be large
    try:
        subject_of(path)
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(f"exports[{name!r}]: {path.name!r} cannot be read: {error}") from error


def check_counts(exports, seeds):
    """Raises unless there is a file for each student."""
    for name, value in exports.items():
        if not callable(value) and len(value) != seeds:
            raise ValueError(
                f"exports[{name!r}] has {len(value)} file(s) for {seeds} student(s). Each file is "
                "compared with the student it was made of: pass a list with one for each, in the "
                "same order, or a function of (student, path) that writes one."
            )


@contextlib.contextmanager
def folder(directory):
    """The folder for models and files: the user's, or one that is removed afterwards."""
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="keras_kd-") as name:
            yield pathlib.Path(name)
        return
    path = pathlib.Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    yield path


def export(exports, student, number, folder, steps):
    """The files of one student, `{name: path}`; functions write theirs to the folder.

    Args:
        exports: Of `check`.
        student: The student.
        number: Its number among the students.
        folder: Where to write.
        steps: A `progress.Steps`, of which each function is one.

    Raises:
        ValueError: A function has written nothing.
    """
    found = {}
    for name, value in exports.items():
        if callable(value):
            steps.begin(f"writing {name} of student {number}")
            found[name] = _written(name, value, student, number, folder)
        else:
            found[name] = value[number]
    return found


def _written(name, function, student, number, folder):
    """The file that a function says it wrote, or else the one that it was asked for."""
    path = folder / _file_name(name, number)
    path.unlink(missing_ok=True)  # of an earlier run, of another student
    returned = function(student, path)
    returned = getattr(returned, "path", returned)
    if isinstance(returned, (str, pathlib.Path)) and pathlib.Path(returned).is_file():
        return pathlib.Path(returned)
    if not path.is_file():
        raise ValueError(
            f"The function exports[{name!r}] wrote no file. It is called with a student and the "
            f"path to write to, {path.name!r}; where it writes elsewhere it must return that path."
        )
    return path


def _file_name(name, number):
    ending = ".onnx" if "onnx" in name.lower() else ".tflite"
    stem = "".join(char if char.isalnum() or char in "-_" else "-" for char in name)
    return f"{stem}-{number}{ending}"


# The teacher of a report: as one of the models that are measured, and as what they agree with.


_NOT_ALONE = {
    "needs_carried": "its outputs come with the data",
    "needs_student": "it looks at the student",
    "is_sparse": "it keeps the largest logits only",
}


class Asked(keras.Model):
    """A teacher that is no model, asked like one.

    Args:
        teacher: A `keras_kd.teachers.Teacher`.
    """

    def __init__(self, teacher):
        # TensorFlow takes no other characters, and a lambda has them.
        super().__init__(name=re.sub(r"\W+", "_", teacher.name).strip("_"), autocast=False)
        self.teacher = teacher
        self.built = True

    def build(self, input_shape=None):
        del input_shape  # the teacher is whole

    def call(self, inputs, training=None):
        del training
        return self.teacher.predict_batch(protocol.TeacherInputs(inputs))


def as_model(teacher):
    """`(what is measured of a teacher, notes)`; `None` where it cannot stand alone.

    Args:
        teacher: What `Distiller` takes, or a file that `keras_kd.measure` takes.
    """
    files = str, runtimes.TFLiteFile, runtimes.OnnxFile
    if isinstance(teacher, (keras.Model, *files)) or hasattr(teacher, "__fspath__"):
        symbolic_pass.check_built("teacher", teacher)
        return teacher, []
    adapted = adapt(teacher)
    for flag, why in _NOT_ALONE.items():
        if getattr(adapted, flag):
            return None, [f"teacher: not measured by itself; {why}."]
    symbolic_pass.check_built("teacher", teacher)
    return Asked(adapted), []


def comparable(teacher):
    """A teacher that cannot stand alone, where what it says can be compared with, else `None`."""
    adapted = adapt(teacher)
    return None if adapted.needs_student or adapted.is_sparse else teacher


def without_size(candidate):
    """A `Candidate` that says nothing of weights, which lie where Keras does not see them."""
    hidden = ("parameters", "trainable_parameters", "bytes", "gzip_bytes")
    note = "size: left out; Keras does not see the weights of a teacher that is a function."
    made = [
        dataclasses.replace(
            each,
            size={key: value for key, value in each.size.items() if key not in hidden},
            notes=[*each.notes, note],
        )
        for each in candidate.measurements
    ]
    return dataclasses.replace(candidate, measurements=made)


def teacher_outputs(model, data, options, verbose=0):
    """What a teacher says of the test data, so that it runs once and not once for each model.

    Args:
        model: Of `as_model`.
        data: The test data.
        options: Of `keras_kd.measure`.
        verbose: 0, 1 or 2.

    Returns:
        An array of its outputs.
    """
    size = options.get("batch_size") or BATCH_SIZE
    output, rows = options.get("output"), reading.prepared(data)
    found = reading.read(subject_of(model), rows, output, size, None, verbose)
    return found.outputs


# With what the models were measured.


_PROCESSORS = pathlib.Path("/proc/cpuinfo")


def facts():
    """`{name: text}`; no name and no path of the machine."""
    return {
        "Processor": f"{_processor()}, {os.cpu_count()} cores",
        "System": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "Keras": keras.__version__,
        "keras_kd": version.__version__,
    }


def _processor():
    if _PROCESSORS.exists():
        for line in _PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
