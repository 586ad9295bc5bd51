"""Configurations: changing those of a teacher's layers, and making a student of them."""

import keras

from keras_kd.taps import paths


def edit(graph, path, edits, choice):
    """Writes the student's sizes into the configuration of a layer.

    Args:
        graph: The teacher's `Graph`.
        path: The layer's path.
        edits: `{keys: axis}`.
        choice: The `Choice` of channels.
    """
    *above, name = path.removeprefix(graph.path).split("/")
    for nested in above:
        graph = graph.nested[nested]
    for keys, axis in edits.items():
        if choice.narrows(axis):
            _put(graph.entries[name]["config"], keys, choice.size(axis))


def _put(config, keys, value):
    for key in keys[:-1]:
        if isinstance(config[key], tuple):
            config[key] = list(config[key])
        config = config[key]
    config[keys[-1]] = value


def revived(graph, name):
    """A new model of a graph's configuration."""
    kind = type(graph.model)
    serialized = {
        "module": kind.__module__,
        "class_name": kind.__name__,
        "config": {**_of_student(graph.config()), "name": name},
        "registered_name": keras.saving.get_registered_name(kind),
    }
    # Unsafe is what a file may bring with it; this is a model of this very process.
    return keras.saving.deserialize_keras_object(
        serialized, custom_objects=_classes(graph.model), safe_mode=False
    )


def _of_student(value):
    """A copy in which everything is trainable, and nothing says what shapes it was built for."""
    if isinstance(value, dict):
        copied = {
            key: _of_student(inner)
            for key, inner in value.items()
            if key not in ("build_config", "compile_config")
        }
        return {**copied, "trainable": True} if "trainable" in copied else copied
    if isinstance(value, (list, tuple)):
        return type(value)(_of_student(inner) for inner in value)
    return value


def _classes(model):
    """Classes that are not Keras' own and need not be registered."""
    found = [type(model), *(type(layer) for _, _, layer in paths.walk(model))]
    return {
        keras.saving.get_registered_name(kind): kind
        for kind in found
        if kind.__module__.split(".")[0] != "keras" or kind is type(model)
    }
