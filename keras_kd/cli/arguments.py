"""Arguments of the commands of `python -m keras_kd`: files and models of the user's."""

import argparse
import contextlib
import os
import sys
import zipfile
from collections.abc import Callable, Iterator

import keras

from keras_kd._utils import files, storage, validation

# Options of the command line for arguments of Python.
_OPTIONS = {
    "teacher_from_logits=False": "--teacher-probabilities",
    "teacher_from_logits=True": "without --teacher-probabilities",
    " from_logits=False": "--probabilities",
    " from_logits=True": "without --probabilities",
    "`output`": "--output",
    "`task`": "--task",
    "`class_names`": "--class-names",
    "`metric`": "--metric",
    "teacher=None": "without --teacher",
}


def fail(error: Exception) -> int:
    """Prints an error with its remedies in the words of the command line; returns the status."""
    text = str(error)
    known = [f"{name.strip()} is {option}" for name, option in _OPTIONS.items() if name in text]
    hint = f" (On the command line {'; '.join(known)}.)" if known else ""
    print(f"error: {text}{hint}", file=sys.stderr)
    return 2


def whole(least: int) -> Callable[[str], int]:
    """A type for `argparse`: a whole number of at least `least`."""

    def parsed(words):
        if not words.lstrip("-").isdigit() or int(words) < least:
            raise argparse.ArgumentTypeError(
                f"expected a whole number of at least {least}, received {words!r}"
            )
        return int(words)

    return parsed


def check_files(options: argparse.Namespace, inputs: list[str], outputs: list[str]) -> None:
    """Raises for files that are not there, and for results that would go over others.

    Args:
        options: What was parsed.
        inputs: Names of options whose files are read.
        outputs: Names of options whose files are written.
    """
    taken: dict = {}
    for name in inputs:
        given = getattr(options, name)
        for path in given if isinstance(given, list) else [given]:
            if path is None:
                continue
            path = path.partition("=")[2] if name == "export" else path
            if path or name != "export":  # NAME=FILE without a file has a message of its own
                existing(path, _option(name))
                taken[os.path.realpath(path)] = _option(name)
    for name in outputs:
        path = getattr(options, name)
        if path is None:
            continue
        place = storage.place(path, _option(name), "the path of a file, or of an object in a store")
        found = str(place) if storage.is_remote(place) else os.path.realpath(place)
        if found in taken:
            raise ValueError(
                f"{_option(name)}: {path!r} is the file of {taken[found]} too, and would be "
                "written over. Name another file."
            )
        taken[found] = _option(name)
    for name in outputs:
        if getattr(options, name) is not None:
            files.check_writable(storage.place(getattr(options, name)), _option(name))


def _option(name):
    return "FILE" if name == "file" else f"--{name.replace('_', '-')}"


def existing(path: str, option: str) -> str:
    """The path of a file; raises unless there is one."""
    if not os.path.isfile(validation.path(option, path)):
        raise ValueError(f"{option}: there is no file {path!r}.")
    return path


def check_teacher(options: argparse.Namespace) -> None:
    """Raises where an option describes a teacher that is not given."""
    if options.teacher_probabilities and options.teacher is None:
        raise ValueError(
            "--teacher-probabilities describes what a teacher returns, and there is none. Name it "
            "with --teacher, or leave this out; --probabilities is for the other models."
        )


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Adds `--quiet` to a command whose work can take long."""
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="print no progress (it goes to stderr)"
    )


@contextlib.contextmanager
def printing_to_stderr() -> Iterator[None]:
    """While it is open what is printed goes to stderr: stdout is for the command's result alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def model(path: str, option: str) -> keras.Model:
    """The model in a `.keras` file.

    Raises:
        ValueError: There is no such file, or it is none.
    """
    existing(path, option)
    if not path.endswith((".keras", ".h5", ".hdf5")):
        raise ValueError(f"{option} must be a .keras file. Received: {path!r}")
    if path.endswith(".keras") and not zipfile.is_zipfile(path):
        raise ValueError(f"{option}: {path!r} is no .keras file, or only a part of one.")
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        raise ValueError(
            f"{option}: {path!r} cannot be loaded: {error}\nLayers of your own must be registered "
            "(keras.saving.register_keras_serializable) by the module that --data names."
        ) from error
