"""What the commands of `python -m keras_kd` share."""

import importlib
import os
import sys


def named(words, option, form, what=""):
    """What a module holds under a name, `"module:name"`; modules of the current folder count.

    Args:
        words: What the user gave.
        option: The option, such as `"--data"`.
        form: What it must look like, such as `"MODULE:NAME"`.
        what: What is looked for, with a space behind it.

    Raises:
        ValueError: There is no such thing.
    """
    module, colon, name = words.partition(":")
    if not (module and colon and name):
        raise ValueError(f"{option} must be {form}. Received: {words!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"There is no {what}{words!r} for {option}: {error}") from error
