"""Names of the layers of a model: paths through nested models and layers."""

import difflib
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras


def find_layer(model: keras.layers.Layer, path: str) -> Any:
    """Finds a layer by name, or by a path of names through nested layers and models.

    Args:
        model: A Keras model.
        path: `"dense_1"`, or `"backbone/block3"`. A layer that is held in an attribute can also be
            named by it (`"encoder"`, `"blocks/0"`), so each step of a path is a name or an
            attribute. The path that `walk` yields for a layer is always that layer's. A path that
            does not begin in the model itself is searched in what is nested in it.

    Returns:
        The layer, or the operation of a functional model (such as an addition).

    Raises:
        ValueError: There is no such layer, or several; close names are listed.
    """
    everything: dict[int, tuple[str, Any]] = {}
    for own, _, layer in walk(model):
        if own == path:
            return layer
        everything.setdefault(id(layer), (own, layer))
    found = _follow(model, path)
    if not found:
        for _, around in everything.values():
            found.update(_follow(around, path))
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise ValueError(
            f"Several layers of model {model.name!r} are named {path!r}: "
            f"{sorted(everything[key][0] for key in found)}. Pass the path of one."
        )
    known = {own: None for own, _ in everything.values()}
    raise no_layer(model, path, [*known, *(names for _, names, _ in walk(model))])


def _follow(layer: Any, path: str, above: tuple[int, ...] = ()) -> dict[int, Any]:
    """`{id: layer}` of those that a path from `layer` leads to, by names or attributes."""
    found: dict[int, Any] = {}
    above = (*above, id(layer))
    for keys, child in _children(layer):
        if id(child) in above:
            continue
        for key in keys:
            if path == key:
                found[id(child)] = child
            elif path.startswith(key + "/"):
                found.update(_follow(child, path[len(key) + 1 :], above))
    return found


def no_layer(model: keras.layers.Layer, path: Any, known: Iterable[str]) -> ValueError:
    """The error for a path that a model does not have; `known` are those that it has."""
    known = list(dict.fromkeys(known))
    close = difflib.get_close_matches(str(path), known, n=5, cutoff=0.4) or known[:20]
    return ValueError(
        f"Model {model.name!r} has no layer {path!r}. Close to it: {close}. Layers of nested "
        "models are named by their path, such as 'backbone/block3'; keras_kd.taps.summary(model) "
        "lists them."
    )


def path_of(model: keras.layers.Layer, layer: Any) -> str:
    """The path of a layer in a model, which is the same when the model is made again.

    Raises:
        ValueError: The model does not have the layer.
    """
    for path, _, found in walk(model):
        if found is layer:
            return path
    raise ValueError(
        f"Layer {getattr(layer, 'name', layer)!r} does not belong to model {model.name!r}. Pass a "
        "layer of that model itself, not of a copy."
    )


def walk(
    layer: Any, prefixes: tuple[str, str] = ("", ""), above: tuple[int, ...] = ()
) -> Iterator[tuple[str, str, Any]]:
    """Yields `(path, names, layer)` of every layer and operation below `layer`.

    `path` is the same in every process: where Keras has made up a layer's name, counted from model
    to model, the path has the attribute that holds the layer. `names` has the names of all.
    """
    above = (*above, id(layer))
    for attribute, child in children(layer):
        if id(child) in above:  # a layer that refers to the one around it
            continue
        path, names = prefixes[0] + attribute, prefixes[1] + child.name
        yield path, names, child
        yield from walk(child, (path + "/", names + "/"), above)


def children(layer: Any) -> Iterator[tuple[str, Any]]:
    """Yields `(key, child)` of the layers directly below one."""
    for keys, child in _children(layer):
        yield keys[0], child


def _children(layer: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields `(keys, child)`: the names and attributes of a child, first the one of `walk`."""
    operations = _operations(layer)
    if operations is not None:
        names, held = {child.name for child in operations}, _attributes_of(layer)
        for child in operations:
            # An attribute that is another layer's name does not count.
            attributes = [key for key in held.get(id(child), ()) if key not in names]
            yield _in_order(child, attributes), child
        return
    held = _attributes_of(layer)
    by_id = {id(child): child for _, child in _attributes(layer)}
    for key, child in by_id.items():
        yield (*held[key], child.name), child
    if isinstance(layer, keras.Model):
        # Where a model keeps them in another way than in attributes, lists and dicts.
        yield from (((child.name,), child) for child in layer.layers if id(child) not in by_id)


def _in_order(child: Any, attributes: list[str]) -> tuple[str, ...]:
    """The name before the attributes, unless Keras made it up."""
    if attributes and is_counted(child):
        return (*attributes, child.name)
    return (child.name, *attributes)


def is_counted(layer: Any) -> bool:
    """Whether Keras made its name, from its class and a number."""
    stem = re.sub(r"_\d+$", "", layer.name)
    return stem.replace("_", "") == type(layer).__name__.replace("_", "").lower()


def _operations(layer: Any) -> list | None:
    """The layers and operations of a functional or sequential model; of others `None`."""
    if isinstance(layer, keras.Sequential):
        found = layer.layers
    else:
        found = getattr(layer, "operations", None) if isinstance(layer, keras.Model) else None
    return None if found is None else [child for child in found if _can_be_tapped(child)]


def _attributes_of(layer: Any) -> dict[int, list[str]]:
    """`{id of a layer: the attributes that hold it}`."""
    held: dict[int, list[str]] = {}
    if type(layer) not in plain_models():
        for key, child in _attributes(layer):
            held.setdefault(id(child), []).append(key)
    return held


def own_weights(layer: keras.layers.Layer) -> list:
    """The weights of a layer that belong to no layer in it."""
    of_others = {
        id(weight)
        for _, child in children(layer)
        if isinstance(child, keras.layers.Layer)
        for weight in child.weights
    }
    return [weight for weight in layer.weights if id(weight) not in of_others]


def _can_be_tapped(operation: Any) -> bool:
    return not isinstance(operation, keras.layers.InputLayer)


# Not part of the forward pass.
_OTHER = (keras.losses.Loss, keras.metrics.Metric, keras.optimizers.Optimizer)


class _Probe(keras.Model):
    """Has a layer, a list and a dict, so that Keras adds all attributes that it adds to a model."""

    def __init__(self) -> None:
        # Named, like all below: unnamed ones would change Keras' counters, and so the user's names.
        super().__init__(name="probe")
        self.layer = keras.layers.Identity(name="identity")
        self.list: Any = []
        self.dict: Any = {}


def _functional() -> keras.Model:
    inputs = keras.Input((1,), name="inputs")
    return keras.Model(inputs, keras.layers.Identity(name="identity")(inputs), name="probe")


@functools.cache
def plain_models() -> tuple[type, ...]:
    """Classes whose attributes do not count: a copy or a file of such a model lacks them."""
    return type(_functional()), keras.Sequential


def _sequential() -> keras.Sequential:
    layers = [keras.Input((1,), name="inputs"), keras.layers.Identity(name="identity")]
    return keras.Sequential(layers, name="probe")


@functools.cache
def _added_by_keras(make: Callable[[], keras.Model]) -> frozenset[str]:
    """Attributes that Keras and TensorFlow add to such a model: lists of what the others hold."""
    return frozenset(vars(make())) - {"layer", "list", "dict"}


def _of_every_layer(layer: Any) -> frozenset[str]:
    if isinstance(layer, keras.Sequential):
        return _added_by_keras(_Probe) | _added_by_keras(_sequential)
    if _operations(layer) is not None:
        return _added_by_keras(_Probe) | _added_by_keras(_functional)
    return _added_by_keras(_Probe)


def _attributes(layer: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(layer, keras.layers.Layer):
        others = _of_every_layer(layer)
        for key, value in vars(layer).items():
            if key not in others:
                yield from _layers_in(key.lstrip("_"), value)


def _layers_in(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, keras.layers.Layer) and not isinstance(value, _OTHER):
        yield key, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _layers_in(f"{key}/{i}", item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _layers_in(f"{key}/{name}", item)
