"""Configurations as Keras saves them, and values as JSON can hold them."""

import math
from typing import Any

import keras
import numpy as np

# Configurations of the parts of a distiller, as Keras saves them.


def serialized(name: str, value: Any) -> Any:
    """The configuration of a model, or of a function that is registered with Keras.

    Args:
        name: What the value is to its owner, for the message.
        value: A layer, a registered object or function, or `None`.

    Raises:
        ValueError: It is not registered.
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


def without_training(config: Any) -> Any:
    """A configuration without how the models in it are compiled: their owner saves that."""
    if isinstance(config, dict):
        return {
            key: None if key == "compile_config" else without_training(value)
            for key, value in config.items()
        }
    return [without_training(each) for each in config] if isinstance(config, list) else config


def _is_registered(value: Any) -> bool:
    name = keras.saving.get_registered_name(value if hasattr(value, "__name__") else type(value))
    return keras.saving.get_registered_object(name) is not None


def deserialized(value: Any) -> Any:
    """A value of a configuration, with objects in place of what Keras has serialized."""
    if isinstance(value, list):
        return [deserialized(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "class_name" in value:
        return _make(value)
    return {key: deserialized(each) for key, each in value.items()}


def _make(config: dict[str, Any]) -> Any:
    """An object from its configuration; a model is compiled as Keras compiles what it loads.

    KerasHub's tasks compile themselves when they are made. Keras does not call a `compile` that a
    class overrides, and warns: which is right only where the model was compiled differently.
    """
    compiled = config.get("compile_config")
    if not compiled:
        return keras.saving.deserialize_keras_object(config)
    model = keras.saving.deserialize_keras_object({**config, "compile_config": None})
    if _settings(compiled) != _settings(model.get_compile_config()):
        model.compile_from_config(compiled)
    return model


def _settings(config: Any) -> Any:
    """A configuration without what Keras numbers: names of optimizers, ids of objects."""
    if isinstance(config, dict):
        counted = ("name", "shared_object_id")
        return {key: _settings(value) for key, value in config.items() if key not in counted}
    if isinstance(config, (list, tuple)):
        return [_settings(each) for each in config]
    return config


# Values as JSON can hold them.


def plain(value: Any) -> Any:
    """Python's numbers and keys of text; numbers that are not finite become `None`."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
