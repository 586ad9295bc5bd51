"""What was passed to `fit`, by position or by name."""

import inspect

import keras


def bound(args, kwargs):
    """The arguments of a call of `keras.Model.fit` by name, those that were left out left out."""
    arguments = inspect.signature(keras.Model.fit).bind(None, *args, **kwargs).arguments
    return {name: value for name, value in arguments.items() if name != "self"}


def callbacks(arguments):
    """The callbacks among the arguments of `fit`, a list."""
    given = arguments.get("callbacks") or []
    given = getattr(given, "callbacks", given)  # those of a CallbackList
    return [given] if isinstance(given, keras.callbacks.Callback) else list(given)
