"""Names of the layers of a model: paths through nested models and layers."""

import difflib
import functools
import re

import keras


def find_layer(model, path):
    """Finds a layer by name, or by a path of names through nested layers and models.

    Args:
        model: A Keras model.
        path: `"dense_1"`, or `"backbone/block3"`. A layer that is held in an attribute is also
            called by it (`"encoder"`, `"blocks/0"`), so each step of a path is a name or an
            attribute. The path that `walk` gives a layer is always that layer's. A path that does
            not begin in the model itself is looked for in what is nested in it.

    Returns:
        The layer, or the operation of a functional model (such as an addition).

    Raises:
        ValueError: There is no such layer, or several; close names are given.
    """
    everything = {}
    for own, _, layer in walk(model):
        if own == path:
            return layer
        everything.setdefault(id(layer), (own, layer))
    found = _called(model, path)
    if not found:
        for _, around in everything.values():
            found.update(_called(around, path))
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise ValueError(
            f"Several layers of model {model.name!r} are called {path!r}: "
            f"{sorted(everything[key][0] for key in found)}. Give the path."
        )
    known = {own: None for own, _ in everything.values()}
    raise no_layer(model, path, [*known, *(names for _, names, _ in walk(model))])


def _called(layer, path, above=()):
    """`{id: layer}` of those that a path from `layer` leads to, by names or attributes."""
    found, above = {}, (*above, id(layer))
    for keys, child in _children(layer):
        if id(child) in above:
            continue
        for key in keys:
            if path == key:
                found[id(child)] = child
            elif path.startswith(key + "/"):
                found.update(_called(child, path[len(key) + 1 :], above))
    return found


def no_layer(model, path, known):
    """The error of a path that a model does not have; `known` are those that it has."""
    known = list(dict.fromkeys(known))
    close = difflib.get_close_matches(str(path), known, n=5, cutoff=0.4) or known[:20]
    return ValueError(
        f"Model {model.name!r} has no layer {path!r}. Close to it: {close}. Layers of nested "
        "models are named by their path, such as 'backbone/block3'; keras_kd.taps.summary(model) "
        "lists them."
    )


def path_of(model, layer):
    """The path of a layer in a model, which is the same when the model is made again.

    Raises:
        ValueError: The model does not have the layer.
    """
    for path, _, found in walk(model):
        if found is layer:
            return path
    raise ValueError(
        f"Layer {getattr(layer, 'name', layer)!r} is none of model {model.name!r}, nor nested in "
        "it. Pass a layer of that model itself, not of a copy."
    )


def walk(layer, prefixes=("", ""), above=()):
    """Yields `(path, names, layer)` of every layer and operation below `layer`.

    `path` is the same in every process: where Keras has made up a layer's name, counted from model
    to model, the layer is called by the attribute that holds it. In `names` all are called by
    their names.
    """
    above = (*above, id(layer))
    for attribute, child in children(layer):
        if id(child) in above:  # a layer that knows what it is a part of
            continue
        paths = prefixes[0] + attribute, prefixes[1] + child.name
        yield *paths, child
        yield from walk(child, tuple(path + "/" for path in paths), above)


def children(layer):
    """Yields `(key, child)` of the layers directly below one."""
    for keys, child in _children(layer):
        yield keys[0], child


def _children(layer):
    """Yields `(keys, child)`: what a child is called, first what `walk` calls it."""
    operations = _operations(layer)
    if operations is not None:
        names, held = {child.name for child in operations}, _attributes_of(layer)
        for child in operations:
            # A layer that an attribute is called after keeps its name.
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


def _in_order(child, attributes):
    """The name before the attributes, unless Keras made it up."""
    if attributes and _is_counted(child):
        return (*attributes, child.name)
    return (child.name, *attributes)


def _is_counted(layer):
    """Whether its name is the one that Keras gives a layer of its class, counted up."""
    stem = re.sub(r"_\d+$", "", layer.name)
    return stem.replace("_", "") == type(layer).__name__.replace("_", "").lower()


def _operations(layer):
    """The layers and operations of a functional or sequential model; of others `None`."""
    if isinstance(layer, keras.Sequential):
        found = layer.layers
    else:
        found = getattr(layer, "operations", None) if isinstance(layer, keras.Model) else None
    return None if found is None else [child for child in found if _can_be_tapped(child)]


def _attributes_of(layer):
    """`{id of a layer: the attributes that hold it}`."""
    held = {}
    if type(layer) not in plain_models():
        for key, child in _attributes(layer):
            held.setdefault(id(child), []).append(key)
    return held


def own_weights(layer):
    """The weights of a layer that are of no layer in it."""
    of_others = {
        id(weight)
        for _, child in children(layer)
        if isinstance(child, keras.layers.Layer)
        for weight in child.weights
    }
    return [weight for weight in layer.weights if id(weight) not in of_others]


def _can_be_tapped(operation):
    return not isinstance(operation, keras.layers.InputLayer)


# Layers that are no part of the forward pass.
_OTHER = (keras.losses.Loss, keras.metrics.Metric, keras.optimizers.Optimizer)


class _Probe(keras.Model):
    """Has a layer, a list and a dict, so that Keras gives it all that it gives a model."""

    def __init__(self):
        # Named, like all below: Keras counts the names that it gives itself, which are the user's.
        super().__init__(name="probe")
        self.layer, self.list, self.dict = keras.layers.Identity(name="identity"), [], {}


def _functional():
    inputs = keras.Input((1,), name="inputs")
    return keras.Model(inputs, keras.layers.Identity(name="identity")(inputs), name="probe")


@functools.cache
def plain_models():
    """Classes whose attributes say nothing: a copy or a file of such a model lacks them."""
    return type(_functional()), keras.Sequential


def _sequential():
    layers = [keras.Input((1,), name="inputs"), keras.layers.Identity(name="identity")]
    return keras.Sequential(layers, name="probe")


@functools.cache
def _added_by_keras(make):
    """Attributes that Keras and TensorFlow add to such a model: lists of what the others hold."""
    return frozenset(vars(make())) - {"layer", "list", "dict"}


def _of_every_layer(layer):
    if isinstance(layer, keras.Sequential):
        return _added_by_keras(_Probe) | _added_by_keras(_sequential)
    if _operations(layer) is not None:
        return _added_by_keras(_Probe) | _added_by_keras(_functional)
    return _added_by_keras(_Probe)


def _attributes(layer):
    if isinstance(layer, keras.layers.Layer):
        others = _of_every_layer(layer)
        for key, value in vars(layer).items():
            if key not in others:
                yield from _layers_in(key.lstrip("_"), value)


def _layers_in(key, value):
    if isinstance(value, keras.layers.Layer) and not isinstance(value, _OTHER):
        yield key, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _layers_in(f"{key}/{i}", item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _layers_in(f"{key}/{name}", item)
