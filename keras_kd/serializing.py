"""Configurations of what a distiller is made of, as Keras saves them."""

import keras


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
        return keras.saving.deserialize_keras_object(value)
    return {key: deserialized(each) for key, each in value.items()}
