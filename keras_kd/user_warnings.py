"""Warnings that point at the user's line, not at Keras' loop over callbacks."""

import inspect
import warnings

_INSIDE = ("contextlib", "keras", "keras_kd", "tensorflow")


def warn(message, category=UserWarning):
    """Warns at the first line up the stack that is neither ours, nor Keras', nor TensorFlow's."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and _package(frame) in _INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level if frame is not None else 2)


def _package(frame):
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
