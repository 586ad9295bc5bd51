"""What the commands of `python -m keras_kd` share."""

import contextlib
import importlib
import os
import sys
import traceback
import zipfile

import keras


def add_quiet(parser):
    """Adds `--quiet` to a command whose work can take long."""
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="print no progress (it goes to stderr)"
    )


@contextlib.contextmanager
def printing_to_stderr():
    """While it is open what is printed goes to stderr: stdout is for the command's result alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def named(words, option, form, what=""):
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
        is_missing = isinstance(cause, ModuleNotFoundError) and cause.name is not None
        if is_missing and f"{module}.".startswith(f"{cause.name}."):
            raise ValueError(f"{missing}: {cause}") from cause
        raise


@contextlib.contextmanager
def users_code(what):
    """Whatever fails in the user's own code becomes a `ValueError` that shows where.

    Args:
        what: What it does, such as `"--data own_data:test"`.
    """
    try:
        yield
    except Exception as error:
        told = "".join(traceback.format_exception(error)).rstrip()
        raise ValueError(f"{what} failed:\n{told}") from error


def called(words, option):
    """What a function of the user's returns, named as `module:function`.

    Raises:
        ValueError: There is no such function, or it fails.
    """
    function = named(words, option, "MODULE:FUNCTION", "function ")
    if not callable(function):
        raise ValueError(
            f"{option} must name a function without arguments; {words!r} is a "
            f"{type(function).__name__}."
        )
    with users_code(f"{option} {words}"):
        return function()


def model(path, option):
    """The model in a `.keras` file.

    Raises:
        ValueError: There is no such file, or it is none.
    """
    if not os.path.isfile(path):
        raise ValueError(f"{option}: there is no file {path!r}.")
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
