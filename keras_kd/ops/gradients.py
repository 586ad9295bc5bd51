"""Gradients of our own, of operations that have none that TensorFlow could find."""

import contextlib
import threading

import tensorflow as tf

_LOCAL = threading.local()


@contextlib.contextmanager
def not_needed():
    """While it is open, in this thread, nothing that is computed will be differentiated.

    TensorFlow keeps the graph of each `tf.custom_gradient` for as long as the process lives, and
    with it whatever the graph has seen. What is traced for its shapes alone needs none.
    """
    before = are_needed()
    _LOCAL.are_needed = False
    try:
        yield
    finally:
        _LOCAL.are_needed = before


def are_needed():
    """Whether what is computed may be differentiated, and run."""
    return getattr(_LOCAL, "are_needed", True)


def custom_gradient(function):
    """As `tf.custom_gradient`; where no gradient is needed, the function alone."""

    def call(*args):
        if are_needed():
            return tf.custom_gradient(function)(*args)
        return function(*args)[0]

    return call
