"""Configurations as Keras saves them, and values as JSON can hold them."""

import math

import keras
import numpy as np

# Configurations of what a distiller is made of, as Keras saves them.


def serialized(name, value):
    """The configuration of a model, or of a function, which Keras knows by its registered name.

    Args:
        name: What the value is to its owner, for the message.
        value: A layer, a registered object or function, or `None`.

    Raises:
        ValueError: Keras does not know it.
    """
    if value is None:
        return None
    if not isinstance(value, keras.layers.Layer) and not _is_registered(value):
        raise ValueError(
            f"The distiller cannot be saved: its {name} {value!r} is not known to Keras by name. "
            "Register it with @keras.saving.register_keras_serializable(), or save the student "
            "alone: distiller.student.save(path)."
        )
    return keras.saving.serialize_keras_object(value)


def without_training(config):
    """A configuration without how the models in it are compiled: that is their owner's."""
    if isinstance(config, dict):
        return {
            key: None if key == "compile_config" else without_training(value)
            for key, value in config.items()
        }
    return [without_training(each) for each in config] if isinstance(config, list) else config


def _is_registered(value):
    name = keras.saving.get_registered_name(value if hasattr(value, "__name__") else type(value))
    return keras.saving.get_registered_object(name) is not None


def deserialized(value):
    """A value of a configuration, in which what Keras has serialized is made again."""
    if isinstance(value, list):
        return [deserialized(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "class_name" in value:
        return _made(value)
    return {key: deserialized(each) for key, each in value.items()}


def _made(config):
    """An object of its configuration; a model is compiled as Keras compiles what it loads.

    KerasHub's tasks compile themselves when they are made. Keras calls no `compile` that a class
    overrides, and warns of it: right only where the model was compiled otherwise.
    """
    compiled = config.get("compile_config")
    if not compiled:
        return keras.saving.deserialize_keras_object(config)
    model = keras.saving.deserialize_keras_object({**config, "compile_config": None})
    if _settings(compiled) != _settings(model.get_compile_config()):
        model.compile_from_config(compiled)
    return model


def _settings(config):
    """A configuration without what Keras counts up: names of optimizers, numbers of objects."""
    if isinstance(config, dict):
        counted = ("name", "shared_object_id")
        return {key: _settings(value) for key, value in config.items() if key not in counted}
    if isinstance(config, (list, tuple)):
        return [_settings(each) for each in config]
    return config


# Values as JSON can hold them.


def plain(value):
    """With Python's numbers and keys of text; numbers that are not finite become `None`."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
