"""Arguments of the commands of `python -m keras_kd`: files, models and functions of the user's."""

import argparse
import contextlib
import functools
import importlib
import os
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_kd._utils import files, validation

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
        found = os.path.realpath(validation.path(_option(name), path))
        if found in taken:
            raise ValueError(
                f"{_option(name)}: {path!r} is the file of {taken[found]} too, and would be "
                "written over. Name another file."
            )
        taken[found] = _option(name)
    for name in outputs:
        if getattr(options, name) is not None:
            files.check_writable(getattr(options, name), _option(name))


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


def named(words: str, option: str, form: str, what: str = "") -> Any:
    """What a module holds under a name, `"module:name"`; modules of the current folder count.

    Args:
        words: What the user gave.
        option: The option, such as `"--data"`.
        form: What it must look like, such as `"MODULE:NAME"`.
        what: What is looked for, with a space behind it.

    Raises:
        ValueError: There is no such thing, or the module cannot be imported.
    """
    module, colon, name = words.partition(":")
    if not (module and colon and name):
        raise ValueError(f"{option} must be {form}. Received: {words!r}")
    if module.endswith(".py") or "/" in module or module.startswith("."):
        raise ValueError(
            f"{option} must be {form}, a module as Python imports it and no path: 'own_data:test' "
            f"for the function test in ./own_data.py. Received: {words!r}"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found = _imported(module, f"There is no {what}{words!r} for {option}")
    if not hasattr(found, name):
        raise ValueError(
            f"There is no {what}{words!r} for {option}: module {module!r} has no {name!r}."
        )
    return getattr(found, name)


def _imported(module, missing):
    try:
        with users_code(f"importing {module!r}"):
            return importlib.import_module(module)
    except ValueError as error:
        cause = error.__cause__
        name = cause.name if isinstance(cause, ModuleNotFoundError) else None
        if name is not None and f"{module}.".startswith(f"{name}."):
            raise ValueError(f"{missing}: {cause}") from cause
        raise


@contextlib.contextmanager
def users_code(what: str) -> Iterator[None]:
    """Whatever fails in the user's own code becomes a `ValueError` that shows where.

    Args:
        what: What it does, such as `"--data own_data:test"`.
    """
    try:
        yield
    except SystemExit as error:
        raise ValueError(f"{what} ended the program: SystemExit({error.code!r})") from error
    except Exception as error:
        trace = "".join(traceback.format_exception(error)).rstrip()
        raise ValueError(f"{what} failed:\n{trace}") from error


def called(words: str, option: str) -> Any:
    """What a function of the user's returns, named as `module:function`.

    Raises:
        ValueError: There is no such function, or it fails.
    """
    function = named(words, option, "MODULE:FUNCTION", "function ")
    what = None
    if not callable(function):
        what = f"a {type(function).__name__}"
    elif (signature := validation.unfit_signature(function, ())) is not None:
        what = f"one that takes {signature}"
    if what is not None:
        raise ValueError(
            f"{option} must name a function without arguments; {words!r} is {what}. Write one that "
            "returns what is wanted: def name(): return ..."
        )
    with users_code(f"{option} {words}"):
        return function()


def function_of_users(function: Any, option: str) -> Any:
    """A function of the user's whose failures name the option; other values as they are."""
    if not callable(function):
        return function

    @functools.wraps(function)
    def called_by_us(*args):
        with users_code(option):
            return function(*args)

    return called_by_us


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
