"""`Tap`: which tensor of a model's forward pass is read, and how layers are named in a loss."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import keras

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.models import paths
from keras_kd.taps.softmax import calling_softmax

KINDS = ("output", "input", "attention_scores", "attention_logits")


@keras.saving.register_keras_serializable(package="keras_kd")
@dataclasses.dataclass(frozen=True)
class Tap:
    """What a distillation loss reads of a model, where the name of a layer is not enough.

    Wherever a layer is named (`teacher_layer`, `student_layer`) a `Tap`, a layer object, or a
    function from the model to one of them may stand too. They are turned into paths when the
    distiller is built, so they are saved.

    Args:
        layer: Name or path of a layer, a layer of the model, or a function that gets the model and
            returns either. Each step of a path is the layer's name or the attribute that holds it:
            `"backbone/transformer_layer_3"`, `"backbone/transformer_layers/3"`.
        kind: `"output"`; `"input"`: the layer's input (of several arguments, the first);
            `"attention_scores"`: how much each query attends to each key, after softmax and before
            dropout, as `return_attention_scores` of Keras' attention layers returns it, `[batch,
            heads, queries, keys]`; `"attention_logits"`: the same before softmax and mask.
        call: Which call, where the layer is shared and called several times in a forward pass:
            0 is the first, -1 the last. `None`: it must be called once.
        index: Which tensor, where the layer returns (or takes) several: the position in a list or
            tuple, such as 0 for the sequence of `LSTM(return_state=True)` and -1 for its last
            state, or the key of a dict. `None`: it must be one tensor.

    Raises:
        ValueError: An argument is wrong. When the distiller is built: there is no such layer, or
            it computes no attention scores. In the first pass: the layer is not called, or several
            times and `call` is `None`, or it returns several tensors and `index` is `None`.

    Example:

    ```python
    import keras
    import keras_kd as kd

    shared = keras.layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    student = keras.Model(inputs, shared(keras.layers.ReLU()(shared(inputs))))
    teacher = keras.models.clone_model(student)
    tap = kd.taps.Tap("shared", call=0)
    losses = kd.losses.FeatureHint(tap, tap)
    distiller = kd.Distiller(teacher, student, losses)
    ```
    """

    layer: Any
    kind: str = "output"
    call: int | None = None
    index: int | str | None = None

    def __post_init__(self) -> None:
        if not _names_a_layer(self.layer):
            raise _not_a_layer("layer", self.layer)
        validation.one_of("kind", self.kind, KINDS)
        if not (self.call is None or validation.is_integer(self.call)):
            raise invalid("call", "an integer or None", repr(self.call))
        is_key = isinstance(self.index, str) or validation.is_integer(self.index)
        if not (self.index is None or is_key):
            raise invalid("index", "an integer, the key of a dict, or None", repr(self.index))
        if self.index is not None and self.kind.startswith("attention"):
            raise ValueError(
                f"Attention is one tensor: kind={self.kind!r} takes no `index`. "
                f"Received: index={self.index!r}"
            )

    def __str__(self) -> str:
        words = "" if self.kind == "output" else f" ({self.kind})"
        words += "" if self.call is None else f" (call {self.call})"
        return f"{self.layer!r}{words}" + ("" if self.index is None else f" (index {self.index!r})")

    def get_config(self) -> dict[str, Any]:
        """The configuration; layers and functions are saved as the path they were resolved to."""
        if not isinstance(self.layer, str):
            raise ValueError(
                f"A tap of {self.layer!r} cannot be saved before a Distiller is built with it; "
                "name the layer by its path."
            )
        return {"layer": self.layer, "kind": self.kind, "call": self.call, "index": self.index}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Tap":
        return cls(**config)


def check_layer(role: str, layer: Any) -> str | Tap:
    """Returns what names a layer as a string, where that is enough, or as a `Tap`.

    Args:
        role: Name of the argument, for the message.
        layer: A name or path, a `Tap`, a layer, or a function of the model.
    """
    if isinstance(layer, (str, Tap)):
        return layer
    if not _names_a_layer(layer):
        raise _not_a_layer(role, layer)
    return Tap(layer)


def check_each(role: str, layers: Any) -> list[str | Tap]:
    """Returns a list of what `check` returns for each layer.

    Raises:
        ValueError: It is not a list of layers, such as a single name, whose letters would be taken
            for names.
    """
    if layers is None:
        return []
    if isinstance(layers, (list, tuple, set, frozenset)):
        return [check_layer(role, layer) for layer in layers]
    remedy = f" Pass {role}=[{layers!r}]." if isinstance(layers, (str, Tap)) else ""
    raise ValueError(
        f"Invalid value for argument `{role}`. Expected a list of layers. "
        f"Received: {role}={layers!r}.{remedy}"
    )


def remedy(tap: Tap, **changes: Any) -> str:
    """How a tap with `changes` is written, for messages."""
    tap = dataclasses.replace(tap, **changes)
    given = [repr(tap.layer)] + ([] if tap.kind == "output" else [repr(tap.kind)])
    for name in ("call", "index"):
        if getattr(tap, name) is not None:
            given.append(f"{name}={getattr(tap, name)!r}")
    return f"keras_kd.taps.Tap({', '.join(given)})"


def _names_a_layer(layer: Any) -> bool:
    named = isinstance(layer, (str, keras.layers.Layer)) or callable(layer)
    return named and not isinstance(layer, type)


def _not_a_layer(role: str, layer: Any) -> ValueError:
    return invalid(
        role,
        "the name of a layer, a path such as 'backbone/block3', a layer or a function of the model",
        repr(layer),
    )


# From what names a layer to the layer.


def resolve(model: keras.layers.Layer, layer: Any) -> tuple[str | Tap, Any]:
    """Returns `(layer by its path, the layer itself)`: a string or a `Tap`, and an object.

    Raises:
        ValueError: The model has no such layer.
    """
    tap = layer if isinstance(layer, Tap) else Tap(layer)
    target = tap.layer
    if callable(target) and not isinstance(target, keras.layers.Layer):
        target = _chosen(target, model)
        if isinstance(target, Tap):
            tap, target = target, target.layer
    if isinstance(target, str):
        return _named(tap, target), paths.find_layer(model, target)
    return _named(tap, paths.path_of(model, target)), target


def resolve_all(model: keras.layers.Layer, layers: Any) -> Any:
    """The path by `resolve` of a layer, or of each layer of a tuple."""
    return resolve_each(lambda layer: resolve(model, layer)[0], layers)


def resolve_each(function: Callable[[Any], Any], layers: Any) -> Any:
    """`function` of a layer, or of each layer of a tuple."""
    if isinstance(layers, tuple):
        return tuple(function(layer) for layer in layers)
    return function(layers)


def each(layers: Iterable) -> list:
    """A flat list of layers and tuples of layers."""
    parts = [layer if isinstance(layer, tuple) else (layer,) for layer in layers]
    return [layer for part in parts for layer in part]


def plain_name(layer: str | Tap) -> str:
    """A layer's path, as a part of a name."""
    if isinstance(layer, str):
        return layer.replace("/", "_")
    index = "" if layer.index is None else f"_{layer.index}"
    return f"{layer.layer}_{layer.kind}{index}".replace("/", "_")


def _chosen(function: Callable, model: keras.layers.Layer) -> Any:
    chosen = function(model)
    inner = chosen.layer if isinstance(chosen, Tap) else chosen
    if not isinstance(inner, (str, keras.layers.Layer, keras.Operation)):
        raise ValueError(
            f"The function {function!r} that chooses a layer of model {model.name!r} must return "
            f"a layer, its path or a keras_kd.taps.Tap of one. Received: {chosen!r}"
        )
    return chosen


def _named(tap: Tap, path: str) -> str | Tap:
    return path if tap == Tap(tap.layer) else dataclasses.replace(tap, layer=path)


# Where an attention layer's scores can be read.


def returns_scores(layer: Any) -> bool:
    """Whether a layer can return its scores, as Keras' attention layers do."""
    return "return_attention_scores" in inspect.signature(type(layer).call).parameters


def softmax_of(layer: Any) -> keras.layers.Softmax | None:
    """The softmax layer inside an attention layer, or `None` where there is not exactly one."""
    inner = [child for _, _, child in paths.walk(layer)]
    found = [child for child in inner if isinstance(child, keras.layers.Softmax)]
    return found[0] if len(found) == 1 else None


def computes(layer: Any, kind: str) -> bool:
    """Whether a kind of attention can be read of a layer."""
    if not isinstance(layer, keras.layers.Layer):
        return False
    if softmax_of(layer) is not None or calling_softmax(layer) is not None:
        return True
    return kind == "attention_scores" and returns_scores(layer)


def gives_scores(layer: Any) -> bool:
    """Whether it computes scores itself; a layer around it may only pass them on."""
    if isinstance(layer, keras.Model) or not computes(layer, "attention_scores"):
        return False
    return not any(gives_scores(inner) for _, _, inner in paths.walk(layer))


def check_attention(model: keras.layers.Layer, path: str, layer: Any, kind: str) -> None:
    """Raises where a layer does not compute this kind of attention."""
    if computes(layer, kind):
        return
    able = [name for name, _, found in paths.walk(model) if computes(found, kind)]
    raise ValueError(
        f"Layer {path!r} of model {model.name!r}, a {type(layer).__name__}, computes no "
        f"{kind}. Layers that do: {able}. Scores are read of layers whose call takes "
        "`return_attention_scores`, scores and logits of layers with one keras.layers.Softmax "
        "inside, such as keras.layers.MultiHeadAttention, and of KerasHub's T5."
    )
