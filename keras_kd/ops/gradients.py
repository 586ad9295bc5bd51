"""Gradients of our own, of operations that have none that TensorFlow could find."""

import contextlib
import functools
import threading

import tensorflow as tf

from keras_kd.ops import kernel_choice

_LOCAL = threading.local()
# Functions by what they were traced with.
_FUNCTIONS: dict = {}


@contextlib.contextmanager
def not_needed():
    """While it is open, in this thread, nothing that is computed will be differentiated.

    What is traced for its shapes alone needs no gradient, and leaves nothing behind without.
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


def once_traced(function, tensors, **settings):
    """`function(tensors, **settings)`, in a graph of its own where a graph is being built.

    TensorFlow keeps the graph of each `tf.custom_gradient` for as long as the process lives, and
    with it whatever that graph has seen: a model's training step, with the model (6 MB of a tiny
    one). In a function that knows nothing but its arguments it is traced, and kept, once for a
    signature.

    Args:
        function: Of a module: it closes over nothing.
        tensors: Dict of tensors; `None` stays `None`.
        **settings: What can be hashed, and is no tensor.
    """
    if tf.executing_eagerly() or not are_needed():
        return function(tensors, **settings)
    given = {name: value for name, value in tensors.items() if value is not None}
    absent = tuple(name for name in tensors if name not in given)
    # With the shapes, lest a function of more general ones is taken, which tells less of its own.
    shapes = tuple((value.dtype, repr(value.shape)) for value in given.values())
    key = function, absent, shapes, tuple(sorted(settings.items())), kernel_choice.settings()
    if key not in _FUNCTIONS:
        whole = functools.partial(_with_absent, function, absent, settings)
        _FUNCTIONS[key] = tf.function(whole, autograph=False)
    return _FUNCTIONS[key](given)


def _with_absent(function, absent, settings, given):
    return function({**given, **dict.fromkeys(absent)}, **settings)
