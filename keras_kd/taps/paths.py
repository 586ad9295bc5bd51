"""Names of the layers of a model: paths through nested models and layers."""

import difflib
import functools

import keras


def find_layer(model, path):
    """Finds a layer by name, or by a path of names through nested layers and models.

    Args:
        model: A Keras model.
        path: `"dense_1"`, or `"backbone/block3"`. A name (or the end of a path) that is not the
            model's own is looked for in what is nested in it. Layers of a subclassed model are
            also called by the attributes that hold them: `"encoder"`, `"blocks/0"`.

    Returns:
        The layer, or the operation of a functional model (such as an addition).

    Raises:
        ValueError: There is no such layer, or several nested ones; close names are given.
    """
    paths = {}
    for attributes, names, layer in walk(model):
        for name in (attributes, names):
            paths.setdefault(name, {})[id(layer)] = attributes, layer
    found = paths.get(path) or {
        key: value
        for name, layers in paths.items()
        if name.endswith("/" + path)
        for key, value in layers.items()
    }
    if len(found) == 1:
        return next(iter(found.values()))[1]
    if found:
        raise ValueError(
            f"Several layers of model {model.name!r} are called {path!r}: "
            f"{sorted(name for name, _ in found.values())}. Give the path."
        )
    raise no_layer(model, path, list(paths))


def no_layer(model, path, known):
    """The error of a path that a model does not have; `known` are those that it has."""
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

    In `path` the layers of subclassed models and layers are called by the attributes that hold
    them, because Keras counts their names up from model to model; in `names` by their names.
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
    if _is_functional(layer):
        yield from ((child.name, child) for child in layer.operations if _can_be_tapped(child))
        return
    if isinstance(layer, keras.Sequential):
        yield from ((child.name, child) for child in layer.layers if _can_be_tapped(child))
        return
    seen = set()
    for key, child in _attributes(layer):
        if id(child) not in seen:
            seen.add(id(child))
            yield key, child
    if isinstance(layer, keras.Model):
        # Where a model keeps them in another way than in attributes, lists and dicts.
        yield from ((child.name, child) for child in layer.layers if id(child) not in seen)


def own_weights(layer):
    """The weights of a layer that are of no layer in it."""
    of_others = {
        id(weight)
        for _, child in children(layer)
        if isinstance(child, keras.layers.Layer)
        for weight in child.weights
    }
    return [weight for weight in layer.weights if id(weight) not in of_others]


def _is_functional(layer):
    return isinstance(layer, keras.Model) and getattr(layer, "operations", None) is not None


def _can_be_tapped(operation):
    return not isinstance(operation, keras.layers.InputLayer)


# Layers that are no part of the forward pass.
_OTHER = (keras.losses.Loss, keras.metrics.Metric, keras.optimizers.Optimizer)


class _Probe(keras.Model):
    """Has a layer, a list and a dict, so that Keras gives it all that it gives a model."""

    def __init__(self):
        super().__init__()
        self.layer, self.list, self.dict = keras.layers.Identity(), [], {}


@functools.cache
def _of_every_layer():
    """Attributes that Keras and TensorFlow add to a model: lists of what the others hold."""
    return frozenset(vars(_Probe())) - {"layer", "list", "dict"}


def _attributes(layer):
    if isinstance(layer, keras.layers.Layer):
        for key, value in vars(layer).items():
            if key not in _of_every_layer():
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
