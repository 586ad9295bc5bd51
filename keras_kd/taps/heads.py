"""`DeferredHead`: a forward pass up to the hidden states, without the logits over a vocabulary.

The layer that makes the logits is not run; its input and its weights are returned instead, as
`DeferredLogits`. The model is not changed, and no second one is built.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import models
from keras_kd.models import paths
from keras_kd.ops import LinearHead
from keras_kd.ops.arguments import as_tensor
from keras_kd.taps import recorder, tap


@dataclasses.dataclass
class DeferredLogits:
    """Logits that are computed only where someone asks: a tensor for TensorFlow and Keras.

    Attributes:
        hidden: Hidden states, `[batch, ..., width]`, with the Keras mask of the logits.
        head: The `LinearHead` that makes logits of them.
    """

    hidden: Any
    head: LinearHead

    @property
    def shape(self) -> tf.TensorShape:
        """The shape of the logits."""
        return self.hidden.shape[:-1].concatenate(self.head.vocabulary)

    @property
    def dtype(self) -> Any:
        """The dtype of the logits."""
        return tf.as_dtype(self.head.dtype or self.hidden.dtype)

    @property
    def _keras_mask(self) -> Any:
        return recorder.mask_of(self.hidden)

    def detached(self) -> "DeferredLogits":
        """The same without a gradient."""
        bias = None if self.head.bias is None else tf.stop_gradient(self.head.bias)
        head = dataclasses.replace(self.head, kernel=tf.stop_gradient(self.head.kernel), bias=bias)
        hidden = recorder.with_mask(tf.stop_gradient(self.hidden), recorder.mask_of(self.hidden))
        return DeferredLogits(hidden, head)

    def with_mask(self, mask: Any) -> "DeferredLogits":
        """The same with a mask of the positions."""
        return DeferredLogits(recorder.with_mask(self.hidden, mask), self.head)

    def logits(self) -> tf.Tensor:
        """All logits, `[batch, ..., vocabulary]`, with their mask."""
        return recorder.with_mask(self.head.logits(self.hidden), recorder.mask_of(self.hidden))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy  # there is nothing to share
        return np.asarray(self.logits(), dtype)

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> tf.Tensor:
        logits = self.logits()
        return logits if dtype is None else tf.cast(logits, dtype, name)


class DeferredHead:
    """The layer of a model that makes its logits, which forward passes leave out.

    Args:
        model: A `keras.Model` with one output.
        role: `"student"` or `"teacher"`, for messages.
        layer: Its name or path; `None`: the one that makes the output.

    Raises:
        ValueError: No such layer is found, or it makes something else; the message lists those
            that might be meant.
    """

    def __init__(self, model: keras.Model, role: str, layer: Any = None) -> None:
        self._model, self._role = model, role
        self.path: Any
        self.path, self._layer = self._found() if layer is None else tap.resolve(model, layer)
        self._check_layer()

    def _found(self) -> tuple[Any, Any]:
        outputs = getattr(self._model, "outputs", None) or []
        if len(outputs) > 1:
            raise self._no_head(f"it has {len(outputs)} outputs")
        layer = _last_layer(self._model)
        if layer is None:
            raise self._no_head("what makes its output is not known")
        if not _is_head(layer):
            raise self._no_head(f"its output is made by {layer.name!r}, a {type(layer).__name__}")
        return paths.path_of(self._model, layer), layer

    def _check_layer(self) -> None:
        layer, problem = self._layer, None
        if not _is_head(layer):
            problem = f"it is a {type(layer).__name__}"
        elif not getattr(layer, "built", False):
            problem = "it has no weights yet; call the model once"
        elif _activation(layer) != "linear":
            problem = f"it ends in {_activation(layer)}, and logits are needed (activation=None)"
        elif getattr(layer, "quantization_mode", None) is not None:
            problem = "it is quantized"
        elif layer.activity_regularizer is not None:
            problem = "its activity regularizer needs the logits"
        elif isinstance(layer, keras.layers.EinsumDense) and not _is_matrix(layer):
            problem = f"its equation {layer.equation!r} is not that of a matrix"
        if problem is not None:
            raise self._no_head(
                f"layer {self.path!r} makes no logits from hidden states: {problem}"
            )

    def _no_head(self, why: str) -> ValueError:
        able = [path for path, _, layer in paths.walk(self._model) if _is_head(layer)]
        name = f"{self._role}_head"
        return ValueError(
            f"The logits of {self._role} {self._model.name!r} cannot be left out: {why}. Expected "
            "a Dense, EinsumDense or ReversibleEmbedding that makes the one output. Name it by "
            f"TokenKD({name}=...), one of {able[-5:]}, or use keras_kd.losses.SoftTargets, which "
            "takes logits of any model."
        )

    def run(self, forward: Callable[[], Any]) -> DeferredLogits:
        """Runs `forward()` without the head, and returns its result.

        Raises:
            ValueError: The model does more with the logits, or makes none.
        """
        made: list[tuple[tf.Tensor, DeferredLogits]] = []

        def defer(call: Callable) -> Callable:
            def deferred(inputs: Any, *args: Any, **kwargs: Any) -> Any:
                reverse = kwargs.get("reverse", args[0] if args else False)
                if isinstance(self._layer, keras.layers.Embedding) and not reverse:
                    return call(inputs, *args, **kwargs)
                # Read here, where Keras casts weights to the layer's compute dtype.
                head = _head_of(self._layer)
                stand_in = tf.identity(inputs)
                made.append((stand_in, DeferredLogits(stand_in, head)))
                return stand_in

            return deferred

        with contextlib.ExitStack() as stack:
            stack.enter_context(recorder.wrapped(self._layer, defer))
            result = forward()
        for stand_in, logits in made:
            if result is stand_in:
                return logits
        done = "does more with its logits" if made else "did not call it"
        raise ValueError(
            f"The logits of {self._role} {self._model.name!r} cannot be left out: layer "
            f"{self.path!r} should make its output, and the model {done}. Use "
            "keras_kd.losses.SoftTargets, which takes logits of any model, or a head of "
            f"dtype='float32' in place of a cast after it. Received: {type(result).__name__}"
        )


def _last_layer(model: Any) -> Any:
    """The layer that makes a model's one output, in nested models too."""
    if isinstance(model, keras.Sequential):
        layer = model.layers[-1] if model.layers else None
    else:
        outputs = getattr(model, "outputs", None)
        layer = models.producer(outputs[0]) if outputs else None
    return _last_layer(layer) if isinstance(layer, keras.Model) else layer


def _is_head(layer: Any) -> bool:
    dense = isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense))
    if not dense and not isinstance(layer, keras.layers.ReversibleEmbedding):
        return False
    # A subclass with a `call` of its own may compute anything.
    return type(layer).call.__module__.partition(".")[0] == "keras"


def _activation(layer: Any) -> str | None:
    activation = getattr(layer, "activation", None)
    return "linear" if activation is None else getattr(activation, "__name__", str(activation))


def _is_matrix(layer: Any) -> bool:
    inputs, output = layer.equation.replace(" ", "").split("->")
    rows, kernel = inputs.split(",")
    return len(kernel) == 2 and rows[-1] == kernel[0] and output == rows[:-1] + kernel[1]


def _head_of(layer: Any) -> LinearHead:
    """The weights of a head, as its `call` uses them."""
    if isinstance(layer, keras.layers.ReversibleEmbedding):
        tied = layer.tie_weights
        kernel = layer.embeddings if tied else layer.reverse_embeddings
        dtype = layer.reverse_dtype
        return LinearHead(
            as_tensor(kernel),
            is_tied=tied,
            soft_cap=layer.logit_soft_cap,
            dtype=None if dtype is None else keras.backend.standardize_dtype(dtype),
        )
    bias = None if layer.bias is None else as_tensor(layer.bias)
    return LinearHead(as_tensor(layer.kernel), bias)
