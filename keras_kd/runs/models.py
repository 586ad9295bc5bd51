"""The models of a run: loaded or built, and tried on a few samples before anything is trained."""

import os
import pathlib
from typing import Any

import keras
import numpy as np

from keras_kd import students
from keras_kd._utils import naming
from keras_kd.runs.reading import Configuration
from keras_kd.runs.samples import Samples
from keras_kd.teachers import keras_model, protocol

KERAS = (".keras", ".h5", ".hdf5")
_PROBABILITIES = ("softmax", "sigmoid")


def load(config: Configuration, key: str, path: str | os.PathLike) -> keras.Model:
    """The model of a Keras file.

    Raises:
        ValueError: It cannot be loaded.
    """
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        raise config.error(
            key,
            f"{str(path)!r} cannot be loaded: {error}\nName a whole .keras file. Where it has "
            "layers of your own, name a function that loads it (`function: MODULE:FUNCTION`).",
        ) from error


def called(config: Configuration, key: str, words: str) -> keras.Model:
    """The model that a function of the user's returns.

    Raises:
        ValueError: There is no such function, it fails, or returns something else.
    """
    found = naming.called(words, config.place(key))
    if not isinstance(found, keras.Model):
        raise config.error(
            key, f"{words!r} must return a keras.Model. Received: a {type(found).__name__}."
        )
    return found


def preset(
    config: Configuration, key: str, name: str, data: Samples, is_complete: bool
) -> keras.Model:
    """A classifier of KerasHub.

    Args:
        config: The configuration.
        key: The key that names it.
        name: The preset.
        data: What it is for.
        is_complete: Whether the preset has the classes already; else it gets a new head.

    Raises:
        ValueError: The data are not in its form, or there is no such preset.
        ImportError: KerasHub is missing.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            f"{config.place(key)}: a preset needs keras_hub: pip install keras-hub",
            name="keras_hub",
        ) from error
    if data.kind != "function":
        raise config.error(
            key,
            "a preset has its own way to make tensors of texts and images. Give it data that "
            "its preprocessor has made: `data: {function: MODULE:FUNCTION}`.",
        )
    is_image = data.shape is not None and len(data.shape) == 3
    kind = keras_hub.models.ImageClassifier if is_image else keras_hub.models.TextClassifier
    given = {} if is_complete else {"num_classes": len(data.classes)}
    try:
        return kind.from_preset(name, preprocessor=None, **given)
    except Exception as error:
        raise config.error(
            key,
            f"KerasHub cannot make a {kind.__name__} of {name!r}: {error}. Name one of its "
            "presets, or the folder of one.",
        ) from error


def check_outputs(config: Configuration, key: str, model: Any, data: Samples) -> None:
    """Runs a model on two samples.

    Raises:
        ValueError: It does not take them, or does not give a number for each class.
    """
    inputs, _ = data.arrays("train", 2)
    given = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
    try:
        found = keras_model.adapt(model).predict_batch(protocol.TeacherInputs(given))
    except Exception as error:
        shapes = keras.tree.map_structure(lambda each: [None, *each.shape[1:]], inputs)
        raise config.error(
            key,
            f"it does not take the data, inputs of shape {shapes}: {error}\nName a model of "
            "such inputs, or change the data.",
        ) from error
    shape = list(np.shape(found)) if hasattr(found, "shape") else type(found).__name__
    if not isinstance(shape, list) or len(shape) != 2 or not _has_classes(shape[1], data):
        raise config.error(
            key,
            f"expected outputs of shape [batch, {len(data.classes)}], one for each class of "
            f"the data. Received: {shape}. Name a model of these classes.",
        )


def _has_classes(count, data):
    # The labels of a function may lack the last classes.
    return count >= len(data.classes) if data.kind == "function" else count == len(data.classes)


def gives_logits(model: Any) -> bool:
    """Whether the last activation of a model or teacher makes no probabilities."""
    return keras_model.adapt(model).last_activation() not in _PROBABILITIES


def student(config: Configuration, teacher: Any, data: Samples) -> keras.Model:
    """A new student.

    Raises:
        ValueError: It cannot be made.
    """
    section = config.values.student
    if section.kind == "shrink":
        return _shrunk(config, teacher)
    if section.kind == "file":
        return load(config, "student.file", section.chosen)
    if section.kind == "preset":
        return preset(config, "student.preset", section.chosen, data, is_complete=False)
    return called(config, "student.function", section.chosen)


def _shrunk(config, teacher):
    section = config.values.student.chosen
    if not isinstance(teacher, keras.Model):
        raise config.error(
            "student.shrink",
            "only a teacher that is a Keras model can be shrunk. Name the "
            "student with `file` or `function`.",
        )
    copy = None if section.weights == "new" else section.weights
    try:
        return students.shrink(
            teacher, section.depth, section.width, copy, section.keep, "student", None
        )
    except ValueError as error:
        raise config.error("student.shrink", str(error)) from error


def existing(config: Configuration, key: str, path: str, suffixes: tuple[str, ...]) -> None:
    """Raises unless there is a file that ends so."""
    if pathlib.Path(path).suffix.lower() not in suffixes:
        raise config.error(
            key, f"expected a file that ends in {', '.join(suffixes)}. Received: {path!r}."
        )
    if not pathlib.Path(path).is_file():
        raise config.error(
            key, f"there is no file {path!r}. Paths begin where the command is started."
        )
