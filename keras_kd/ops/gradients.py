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
    """As `tf.custom_gradient`; where no gradient is needed it is zeros, of the first argument."""

    def call(*args):
        if are_needed():
            return tf.custom_gradient(function)(*args)
        # A loss of a user's own may take gradients inside of itself, even of shapes alone.
        zero = 0.0 * tf.reduce_sum(tf.cast(args[0], tf.float32))
        return tf.nest.map_structure(
            lambda value: tf.stop_gradient(value) + tf.cast(zero, value.dtype), function(*args)[0]
        )

    return call
