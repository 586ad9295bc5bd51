"""The files that are compared with the students they were made of."""

import contextlib
import pathlib
import tempfile
import zipfile

from keras_kd import checks
from keras_kd.measurement.subjects.choice import subject_of
from keras_kd.ops.arguments import invalid

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
        return checks.function(f"exports[{name!r}]", value, ["student", "path"])
    paths = list(value) if isinstance(value, (list, tuple)) else [value]
    for path in paths:
        if not isinstance(path, (str, pathlib.Path)):
            raise invalid(
                f"exports[{name!r}]",
                "a file, a list of files (one for each student), or a function of "
                "(student, path) that writes one",
                repr(value),
            )
        path = checks.path(f"exports[{name!r}]", path)
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
