"""What a user names as `MODULE:FUNCTION`: imported, called, and its failures shown."""

import contextlib
import functools
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from keras_kd._utils import validation


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
