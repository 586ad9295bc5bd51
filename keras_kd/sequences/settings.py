"""Describes models, losses and data as text, so that a rerun knows whether it is the same."""

import hashlib
import json

import keras
import numpy as np
import tensorflow as tf

from keras_kd.losses import DistillationLoss
from keras_kd.losses.keras_distillation import is_keras_distillation_loss
from keras_kd.ops.arguments import invalid

# They change nothing of what is trained, or are described by themselves.
_NOT_SETTINGS = {"x", "y", "sample_weight", "validation_data", "callbacks", "verbose"}


def checked_losses(losses):
    """Returns the distillation losses of a sequence, or raises what is no such loss."""
    for loss in keras.tree.flatten(losses):
        is_loss = isinstance(loss, DistillationLoss) or is_keras_distillation_loss(loss)
        if loss is not None and not is_loss:
            raise invalid(
                "distillation_losses",
                "a keras_kd.losses.DistillationLoss, or a list or dict of them",
                repr(losses),
            )
    return losses


def of_recipe(recipe):
    """`{name: text}` of everything but the models."""
    fit = {key: value for key, value in recipe.fit.items() if key not in _NOT_SETTINGS}
    data = [recipe.fit.get(key) for key in ("x", "y", "sample_weight")]
    return {
        "distillation_losses": of_object(recipe.losses),
        "alpha": of_object(recipe.alpha),
        "beta": of_object(recipe.beta),
        "compile": of_object(recipe.compile),
        "fit": json.dumps(fit, sort_keys=True, default=repr),
        "data": json.dumps([of_data(part) for part in data]),
    }


def of_object(value):
    """Of anything that Keras can serialize."""
    return _text(keras.saving.serialize_keras_object(value))


def of_architecture(model):
    """Of a model without its weights."""
    shapes = [list(weight.shape) for weight in model.weights]
    return _text([type(model).__name__, model.get_config(), shapes])


def of_weights(model):
    """Of a model's weights."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def of_data(data):
    """Of inputs or labels: arrays by their bytes, datasets by what they say of themselves."""
    if isinstance(data, tf.data.Dataset):
        return [repr(data.element_spec), int(data.cardinality())]
    return [_of_array(part) for part in keras.tree.flatten(data)]


def _of_array(part):
    if not isinstance(part, np.ndarray) and not tf.is_tensor(part):
        return type(part).__name__
    array = np.ascontiguousarray(part)
    return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]


def _text(config):
    """JSON, without names: Keras numbers those of a process (`dense_7`, `adam_1`)."""
    names: dict = {}
    _collect_names(config, names)
    return json.dumps(_renamed(config, names), sort_keys=True, default=repr)


def _collect_names(config, names):
    if isinstance(config, dict):
        name = config.get("name")
        if isinstance(name, str):
            names.setdefault(name, f"name_{len(names)}")
        config = config.values()
    if not isinstance(config, str) and hasattr(config, "__iter__"):
        for each in config:
            _collect_names(each, names)


def _renamed(config, names):
    if isinstance(config, dict):
        return {
            key: _renamed(value, names)
            for key, value in config.items()
            if key not in ("shared_object_id", "compile_config", "build_config")
        }
    if isinstance(config, (list, tuple)):
        return [_renamed(each, names) for each in config]
    return names.get(config, config) if isinstance(config, str) else config
