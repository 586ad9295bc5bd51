"""The outputs of a model for inputs like those of some data, traced before any work."""

import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd.models import inspect

# A layer's own error within the text that Keras puts around it.
_INNER = re.compile(r"\x1b\[1m(.*?)\x1b\[0m", re.DOTALL)


class _Pass(keras.layers.Layer):
    """A throw-away layer around a model, which Keras traces on symbolic tensors.

    Args:
        model: A built `keras.Model`.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__(autocast=False)
        self._model = inspect.Untracked(model)
        self.outputs = inspect.Untracked(None)
        self.error: Exception | None = None

    def call(self, inputs: Any) -> Any:
        try:
            outputs = self._model.value(inputs, training=False)
        except Exception as error:
            self.error = error  # Keras wraps it into one about a shape
            raise
        self.outputs.value = keras.tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, keras.backend.standardize_dtype(x.dtype)), outputs
        )
        return keras.tree.flatten(outputs)[0]


def check_built(name: str, model: Any) -> None:
    """Raises if a model has no weights yet: the first call would make random ones.

    Args:
        name: Of the argument.
        model: A `keras.Model`; anything else passes.
    """
    if not isinstance(model, keras.Model) or model.built or model.weights:
        return
    makes_weights = model.layers or type(model).build is not keras.Model.build
    if isinstance(model, keras.Sequential) or makes_weights:
        raise ValueError(
            f"`{name}` ({model.name!r}) has no weights yet, and would get random ones. Give it a "
            "keras.Input, or call it on a batch, and load or train its weights."
        )


def specs_of(data: Any) -> Any:
    """`keras.KerasTensor`s like the inputs of checked data; `None` where a shape is not known.

    Args:
        data: A `tf.data.Dataset` of batches `(x, y)`, or a tuple of arrays.
    """
    inputs = data.element_spec[0] if isinstance(data, tf.data.Dataset) else data[0]
    return specs_like(inputs)


def specs_like(inputs: Any) -> Any:
    """`keras.KerasTensor`s like the inputs of a batch; `None` where a shape is not known."""
    found = keras.tree.map_structure(_spec, inputs)
    return None if any(x is _UNKNOWN for x in keras.tree.flatten(found)) else found


_UNKNOWN = keras.KerasTensor((), name="unknown")


def _spec(x: Any) -> keras.KerasTensor | None:
    if x is None or isinstance(x, keras.KerasTensor):
        return x
    if not isinstance(x, tf.TensorSpec):
        x = x if hasattr(x, "shape") and hasattr(x, "dtype") else np.asarray(x)
        x = tf.TensorSpec(x.shape, _dtype(x))
    if x.dtype is tf.variant or x.shape.rank in (None, 0):
        return _UNKNOWN
    # float64, NumPy's default, is cast as `fit` does.
    dtype = keras.config.floatx() if x.dtype == tf.float64 else x.dtype.name
    return keras.KerasTensor((None, *x.shape[1:]), dtype)


def _dtype(x: Any) -> tf.DType:
    if isinstance(x.dtype, tf.DType):
        return x.dtype
    kind = np.dtype(x.dtype).kind
    if kind in "US":
        return tf.string
    if kind == "O":  # texts, unless rows have lengths of their own
        is_text = all(isinstance(each, (str, bytes)) for each in np.ravel(x))
        return tf.string if is_text else tf.variant
    return tf.as_dtype(x.dtype)


def trace_outputs(name: str, inputs: Any, role: str, model: Any, builds: bool = False) -> Any:
    """The symbolic outputs of a model for symbolic inputs.

    Args:
        name: Of the argument that holds the inputs.
        inputs: See `specs_of`.
        role: What the model is, in words, such as `"the teacher"`.
        model: The model.
        builds: Whether a model that has no weights yet runs too, which makes them.

    Returns:
        A structure of `keras.KerasTensor`, or `None` where only running it tells.

    Raises:
        ValueError: The model cannot take such inputs.
    """
    if inputs is None or not isinstance(model, keras.Model) or not (model.built or builds):
        return None
    taken = inspect.input_specs(model)
    given = inspect.own_inputs(model, inputs)
    if taken is not None:
        _check_places(name, given, role, model, taken)
    if model.run_eagerly:
        return None
    traced = _Pass(model)
    try:
        traced(given)
    except Exception as error:
        cause = error if traced.error is None else traced.error
        if not isinstance(cause, (ValueError, TypeError, tf.errors.OpError)):
            if traced.error is None:
                raise
            raise cause from None  # an error of the user's own code
        raise _misfit(name, given, role, model, taken, _inner(cause)) from cause
    return traced.outputs.value


def _check_places(name: str, given: Any, role: str, model: keras.Model, taken: Any) -> None:
    """Raises for inputs that Keras would take silently, or fail on in the first step."""
    flat, wanted = keras.tree.flatten(given), keras.tree.flatten(taken)
    if len(flat) != len(wanted) and not isinstance(given, dict):
        numbers = f"it takes {len(wanted)} input(s), and {len(flat)} are given"
        raise _misfit(name, given, role, model, taken, numbers)
    for one, other in zip(flat, wanted, strict=False):
        if one is not None and one.dtype == "string" and other.dtype != "string":
            texts = "texts where it takes numbers"
            raise _misfit(name, given, role, model, taken, texts)


def _misfit(
    name: str, given: Any, role: str, model: keras.Model, taken: Any, cause: str
) -> ValueError:
    takes = "" if taken is None else f" It takes {described(taken)}."
    return ValueError(
        f"{role[0].upper()}{role[1:]} {model.name!r} cannot take the inputs of `{name}`: {cause}. "
        f"Received: {described(given)}.{takes}"
    )


def described(specs: Any) -> str:
    """Shapes and types in words."""
    if isinstance(specs, dict):
        return "{" + ", ".join(f"{key!r}: {described(x)}" for key, x in specs.items()) + "}"
    if isinstance(specs, (list, tuple)):
        return "[" + ", ".join(map(described, specs)) + "]"
    return "None" if specs is None else f"{tuple(specs.shape)} {specs.dtype}"


def shapes_in(specs: Any) -> str:
    """Shapes in words, without the batch dimension."""
    return str(keras.tree.map_structure(lambda x: None if x is None else list(x.shape[1:]), specs))


def _inner(error: Exception) -> str:
    """A layer's own error, without the text that Keras puts around it."""
    found = _INNER.search(str(error))
    return (found.group(1) if found else str(error)).strip().rstrip(".")
