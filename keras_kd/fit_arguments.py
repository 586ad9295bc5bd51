"""What was passed to `fit`, by position or by name."""

import inspect

import keras


def bound(args, kwargs):
    """The arguments of a call of `keras.Model.fit` by name, those that were left out left out.

    Raises:
        ValueError: There are sample weights, which Keras would drop for want of labels.
    """
    arguments = named(keras.Model.fit, args, kwargs)
    if arguments.get("sample_weight") is not None and arguments.get("y") is None:
        raise ValueError(
            "`sample_weight` without `y`: Keras would leave the weights out without a word. Pass "
            "labels too (with alpha=0 they do not count), or a dataset of (x, y, weights)."
        )
    return arguments


def named(method, args, kwargs):
    """The arguments of a call of a method of `keras.Model` by name."""
    found = inspect.signature(method).bind(None, *args, **kwargs).arguments
    more = found.pop("kwargs", {})
    return {name: value for name, value in {**found, **more}.items() if name != "self"}


def join(arguments, more):
    """Adds callbacks to those of a `fit`, behind the user's.

    Args:
        arguments: Of `fit` by name; changed.
        more: A list of callbacks.
    """
    given = arguments.get("callbacks")
    if isinstance(given, keras.callbacks.CallbackList):
        given.callbacks.extend(more)
    elif more:
        arguments["callbacks"] = [*callbacks(arguments), *more]


def callbacks(arguments):
    """The callbacks among the arguments of `fit`, a list."""
    given = arguments.get("callbacks") or []
    given = getattr(given, "callbacks", given)  # those of a CallbackList
    return [given] if isinstance(given, keras.callbacks.Callback) else list(given)
