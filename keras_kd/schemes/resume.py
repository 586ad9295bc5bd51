"""Keeps the finished models of a sequence, so that a rerun goes on with the next."""

import hashlib
import json
import os
import pathlib
import random

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils.files import replace_atomically
from keras_kd._utils.serialization import without_places
from keras_kd._utils.validation import invalid
from keras_kd.losses import DistillationLoss
from keras_kd.losses.keras_compat import is_keras_distillation_loss

# `Folder`: keeps the finished models of a sequence, so that a rerun goes on with the next.


_SEEDS = 2**32
# How the names of files begin that are not finished, in earlier versions too.
_PARTIAL = ("partial-", "partial_")


class Folder:
    """Models and records by number.

    A model is there when its record is: first the model, then the record gets its name.

    Args:
        path: The folder, made if it is missing; `None` keeps nothing.
        settings: `{name: text}` of what must be the same in a rerun. A rerun may add names.

    Raises:
        ValueError: The folder was made with other settings, or holds other things.
    """

    def __init__(self, path, settings):
        self.keeps, self.path = path is not None, pathlib.Path(path or "")
        self.seed = random.randrange(_SEEDS)
        if not self.keeps:
            return
        file = self.path / "settings.json"
        if file.exists():
            found = self._read(file)
            self._compare(found["settings"], settings)
            self.seed = found["seed"]
            settings = {**found["settings"], **settings}
        elif self.path.exists() and not all(_is_partial(each) for each in self.path.iterdir()):
            raise ValueError(
                f"The directory {os.fspath(self.path)!r} holds other files and no settings.json. "
                "Use an empty one."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"The directory {os.fspath(self.path)!r} cannot be made: {error.strerror}. Pass "
                "another one."
            ) from error
        self._write("settings.json", {"seed": self.seed, "settings": settings})

    def _read(self, file):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._damaged(file, error) from error
        is_whole = isinstance(found, dict) and isinstance(found.get("settings"), dict)
        if not is_whole or not isinstance(found.get("seed"), int):
            raise self._damaged(file, "it has no settings and seed")
        return found

    def _damaged(self, file, why):
        return ValueError(
            f"{file.name} in the directory {os.fspath(self.path)!r} cannot be read: {why}. Use "
            "another directory, or delete this one to begin again."
        )

    def _compare(self, found, settings):
        other = sorted(key for key in settings if found.get(key, settings[key]) != settings[key])
        if other:
            raise ValueError(
                f"The directory {os.fspath(self.path)!r} holds models that were made with other "
                f"settings; these differ: {', '.join(other)}. Use another directory, or delete "
                "this one to begin again."
            )

    def seed_of(self, number):
        """The seed of a training, for `keras.utils.set_random_seed`."""
        return (self.seed + number) % _SEEDS

    def load(self, number, model):
        """Gives a finished model's weights to `model`; returns its record, or `None`."""
        if not self.keeps or not (self.path / f"model_{number}.json").exists():
            return None
        model.load_weights(self.path / f"model_{number}.keras")
        return json.loads((self.path / f"model_{number}.json").read_text(encoding="utf-8"))

    def save(self, number, model, record):
        """Keeps a finished model."""
        if not self.keeps:
            return
        with replace_atomically(self.path / f"model_{number}.keras") as partial:
            model.save(partial)
        self._write(f"model_{number}.json", record)

    def _write(self, name, content):
        with replace_atomically(self.path / name) as partial:
            partial.write_text(json.dumps(content, default=float, indent=1), encoding="utf-8")


def _is_partial(path):
    """Whether a run that was ended has left this file half written."""
    return path.name.startswith(_PARTIAL)


# Describes models, losses and data as text, so that a rerun knows whether it is the same.


# They change nothing of what is trained, or are described by themselves.
_NOT_SETTINGS = {"x", "y", "sample_weight", "validation_data", "callbacks", "verbose"}


def checked_losses(losses):
    """Returns the distillation losses of a sequence, or raises for anything else."""
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
    config = without_places(config)
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
