"""Makes what a report compares: the two students of each seed, and the files of the students.

Of two students with the same initial weights one learns from labels only, the other from the
teacher too.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_kd import models
from keras_kd._utils import formatting, progress, validation
from keras_kd._utils.files import replace_atomically
from keras_kd._utils.validation import invalid
from keras_kd.measurement.subjects import subject_of
from keras_kd.runtimes import registry

# What the tables call the models that are not files.
RESERVED = ("teacher", "labels only", "distilled")
# For files whose name mentions no registered extension.
DEFAULT_EXTENSION = ".tflite"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The functions that make and train a student.

    Attributes:
        teacher: What teaches.
        make_student: A function without arguments: a new, built, untrained `keras.Model`.
        train: A function of a model, which it compiles and fits: the student alone, or its
            distiller.
        distiller: A function of teacher and student: what trains the student.
    """

    teacher: Any
    make_student: Callable
    train: Callable
    distiller: Callable


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long one model was trained: optimizer steps, and epochs of its last `fit`."""

    steps: int
    epochs: int | None

    def __str__(self):
        steps = formatting.plural(self.steps, "step")
        if self.epochs is None:
            return steps
        return f"{formatting.plural(self.epochs, 'epoch')} ({steps})"


@dataclasses.dataclass(frozen=True)
class Pair:
    """The two students of one seed.

    Attributes:
        seed: The seed, or the number of the pair.
        baseline: The student that learned from labels only, or `None`.
        student: The distilled student.
        baseline_budget: How long the baseline was trained; `None` where it was not trained here.
        student_budget: How long the student was trained; `None` where it was not trained here.
    """

    seed: int
    baseline: keras.Model | None
    student: keras.Model
    baseline_budget: Budget | None = None
    student_budget: Budget | None = None


def train(recipe: Recipe, seed: int, steps: progress.Steps) -> Pair:
    """Trains both students of a seed from the same initial weights.

    The random seeds of Python, NumPy and TensorFlow are set before each model is made and trained.

    Args:
        recipe: The user's functions.
        seed: A number.
        steps: Shows the progress; each training is a step.

    Raises:
        ValueError: `make_student` returns a model twice, or one without weights; `train` did not
            train.
    """
    baseline, student = make(recipe.make_student, seed), make(recipe.make_student, seed)
    begin_alike(baseline, student)
    steps.begin(f"seed {seed}: training with labels only")
    baseline_budget = _train(recipe, baseline, baseline, seed)
    steps.say(f"seed {seed}: trained for {baseline_budget}")
    steps.begin(f"seed {seed}: training with the teacher")
    keras.utils.set_random_seed(seed)
    trainer = recipe.distiller(recipe.teacher, student)
    if not isinstance(trainer, keras.Model):
        raise ValueError(
            "`distiller` must return what trains the student, a keras.Model such as "
            f"kd.Distiller(teacher, student). Received: {trainer!r}"
        )
    student_budget = _train(recipe, trainer, student, seed)
    steps.say(f"seed {seed}: trained for {student_budget}")
    return Pair(seed, baseline, student, baseline_budget, student_budget)


def make(make_student: Callable, seed: int) -> keras.Model:
    """Makes a student of a seed.

    Raises:
        ValueError: It is not a model, or has no weights.
    """
    keras.utils.set_random_seed(seed)
    model = make_student()
    if not isinstance(model, keras.Model):
        raise ValueError(f"`make_student` must return a keras.Model. Received: {model!r}")
    if not model.built:
        raise ValueError(
            f"`make_student` returned {model.name!r}, which has no weights yet: give it an "
            "Input, or call it on a batch."
        )
    return model


def begin_alike(baseline: keras.Model, student: keras.Model) -> None:
    """Gives two students the same weights; raises where they are not of one architecture."""
    if baseline is student:
        raise ValueError(
            "`make_student` returned the same model twice. It must make a new one each time."
        )
    models.check_shared_weights(baseline, student, "Two models of `make_student`")
    shapes = [[tuple(weight.shape) for weight in model.weights] for model in (baseline, student)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "`make_student` returned models of different architectures: their weights have the "
            f"shapes {shapes[0]} and {shapes[1]}."
        )
    # A function with random numbers of its own can return others although the seed is the same.
    student.set_weights(baseline.get_weights())


def _train(recipe, trainer, model, seed):
    before = [np.copy(weight) for weight in model.get_weights()]
    keras.utils.set_random_seed(seed)
    recipe.train(trainer)
    if all(map(np.array_equal, before, model.get_weights())):
        raise ValueError(
            f"`train` left all weights of {model.name!r} as they were. It must compile and fit the "
            "model that it is given: the student, and then what `distiller` returned."
        )
    return _budget(trainer)


def _budget(trainer):
    optimizer, history = trainer.optimizer, getattr(trainer, "history", None)
    steps = 0 if optimizer is None else int(optimizer.iterations)
    return Budget(steps, None if history is None else len(history.epoch))


def save(pair: Pair, folder: pathlib.Path) -> None:
    """Saves both students of a seed, so that nothing that fails later can lose them."""
    models_by_name = {"labels-only": pair.baseline, "distilled": pair.student}
    for name, model in models_by_name.items():
        if model is None:
            continue
        with replace_atomically(folder / f"{name}-{pair.seed}.keras") as partial:
            model.save(partial)


def compare_budgets(pairs: list[Pair]) -> list[str]:
    """A list with a sentence on students of one seed that were not trained equally long."""
    found = [pair for pair in pairs if pair.baseline_budget != pair.student_budget]
    if not found:
        return []
    listed = "; ".join(
        f"seed {pair.seed}: {pair.baseline_budget} with labels only, {pair.student_budget} with "
        "the teacher"
        for pair in found
    )
    return [f"The students were not trained equally long ({listed})."]


# The files that are compared with the students that they were made of.


@dataclasses.dataclass(frozen=True)
class Export:
    """A file for each student.

    Attributes:
        name: What the tables call it.
        paths: The files, one for each student; empty where they are written by `write`.
        write: A function of a student and a path, or `None`.
    """

    name: str
    paths: tuple[pathlib.Path, ...] = ()
    write: Callable | None = None

    def require_files(self, students: int) -> None:
        """Raises unless there is a file for each student."""
        if self.write is None and len(self.paths) != students:
            raise ValueError(
                f"exports[{self.name!r}] has {len(self.paths)} file(s) for {students} student(s). "
                "Each file is compared with the student it was made of: pass a list with one for "
                "each, in the same order, or a function of (student, path) that writes one."
            )

    def file_name(self, number: int) -> str:
        """The name of the file that is written for a student."""
        stem = "".join(char if char.isalnum() or char in "-_" else "-" for char in self.name)
        return f"{stem}-{number}{registry.extension_in(self.name, DEFAULT_EXTENSION)}"

    def file_of(
        self, student: keras.Model, number: int, folder: pathlib.Path, steps: progress.Steps
    ) -> pathlib.Path:
        """The file of a student; a function writes it to the folder.

        Args:
            student: The student.
            number: Its number among the students.
            folder: Where to write.
            steps: Shows the progress; each call of a function is a step.

        Raises:
            ValueError: The function wrote no file.
        """
        if self.write is None:
            return self.paths[number]
        steps.begin(f"writing {self.name} of student {number}")
        path = folder / self.file_name(number)
        path.unlink(missing_ok=True)  # of an earlier run, of another student
        returned = self.write(student, path)
        returned = getattr(returned, "path", returned)
        if isinstance(returned, (str, pathlib.Path)) and pathlib.Path(returned).is_file():
            return pathlib.Path(returned)
        if not path.is_file():
            raise ValueError(
                f"The function exports[{self.name!r}] wrote no file. It is called with a student "
                f"and the path to write to, {path.name!r}; where it writes elsewhere it must "
                "return that path."
            )
        return path


def check_exports(exports: Any) -> tuple[Export, ...]:
    """The argument `exports` of `report`.

    Raises:
        ValueError: It does not name files, or functions that write them.
    """
    if exports is None:
        return ()
    if not isinstance(exports, dict):
        raise invalid("exports", "a dict from names to files or functions", repr(exports))
    checked = tuple(_check_export(name, value) for name, value in exports.items())
    written = [each.file_name(0) for each in checked if each.write is not None]
    if len(set(written)) < len(written):
        raise invalid(
            "exports", "names whose letters, digits, - and _ are not the same", repr(list(exports))
        )
    return checked


def _check_export(name, value):
    if not isinstance(name, str) or not name.strip() or name in RESERVED:
        raise invalid("exports", f"names that are text and none of {RESERVED}", repr(name))
    if callable(value):
        called_with = ["student", "path"]
        return Export(name, write=validation.function(f"exports[{name!r}]", value, called_with))
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
    return Export(name, tuple(pathlib.Path(path) for path in paths))


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


@contextlib.contextmanager
def open_folder(directory: pathlib.Path | None) -> Iterator[pathlib.Path]:
    """The folder for models and files: the user's, or one that is removed afterwards."""
    if directory is None:
        with tempfile.TemporaryDirectory(prefix="keras_kd-") as name:
            yield pathlib.Path(name)
        return
    directory.mkdir(parents=True, exist_ok=True)
    yield directory
