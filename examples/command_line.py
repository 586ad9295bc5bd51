"""What makes a command line of an example's function: an option for each of its arguments."""

import argparse
import inspect
import re

import tensorflow as tf


def run(function, check, choices=None, shared=None):
    """Reads the command line and calls the function.

    Args:
        function: `--train-samples` becomes its argument `train_samples`. The default is that of the
            argument, and the help what its docstring says.
        check: Is called with all arguments before the function; raises `ValueError` where one is
            wrong, and `ImportError` where a package is missing.
        choices: `{argument: the values that it may have}`.
        shared: A function whose arguments become options as well: those that `function` passes on.
    """
    tf.config.experimental.enable_op_determinism()  # the same table each time, on one machine
    description = function.__globals__["__doc__"].splitlines()[0]
    parser = argparse.ArgumentParser(description=description)
    added = set()
    for each in (function, shared) if shared else (function,):
        words = _help_of(each)
        for name, parameter in inspect.signature(each).parameters.items():
            if parameter.default is parameter.empty or name in added:
                continue
            _add(parser, name, parameter.default, (choices or {}).get(name), words.get(name))
            added.add(name)
    given = vars(parser.parse_args())
    try:
        check(**given)
    except (ValueError, ImportError) as error:
        parser.error(re.sub(r"`(\w+)`", lambda match: _option(match[1]), str(error)))
    function(**given)


def _add(parser, name, default, choices, words):
    several = isinstance(default, (list, tuple)) or (default is None and choices)
    options = {"default": default, "choices": choices, "help": words}
    if several:
        options["nargs"] = "+"
        if default:
            options["type"] = type(default[0])
    elif not choices:
        options["type"] = int if default is None else type(default)
    parser.add_argument(_option(name), **options)


def _option(name):
    return "--" + name.replace("_", "-")


def _help_of(function):
    """`{argument: what the docstring says}`."""
    text = inspect.getdoc(function).partition("Args:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^ {4}(\w+): (.+(?:\n {6,}.+)*)", text, re.MULTILINE)
    return {name: " ".join(words.split()).replace("%", "%%") for name, words in found}
