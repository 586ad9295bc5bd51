"""The teacher of a run: a file, an application, a preset, a function, or one that is built here."""

import dataclasses
import inspect
import pathlib
from typing import Any

import keras
import numpy as np

from keras_kd import teachers
from keras_kd._utils import naming, validation
from keras_kd.models import ApplicationPreprocessing
from keras_kd.runs import architectures, models
from keras_kd.runs.reading import Configuration, closest
from keras_kd.runs.samples import Samples

_TORCH = (".pt", ".pth")
_FILES = (*models.KERAS, ".onnx", ".tflite", *_TORCH)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A teacher before it is trained.

    Attributes:
        teacher: What `Distiller` takes as one.
        epochs: Epochs for which it is trained here; 0: it is used as it is.
        learning_rate: Of that training.
        origin: Where it comes from, for the card; `None` where it is made here.
    """

    teacher: Any
    epochs: int
    learning_rate: float
    origin: str | None


def check(config: Configuration) -> None:
    """Checks what no model and no data are needed for.

    Raises:
        ValueError: A file or a name does not exist, or keys do not fit each other.
        ImportError: A package is missing.
    """
    section = config.values.teacher
    if section.kind == "file":
        _check_file(config, section)
    elif section.kind == "application":
        _check_application(config, section.chosen)
    elif section.kind == "train" and section.chosen.function is not None:
        given = section.chosen.model_fields_set & {"width", "depth", "dropout"}
        if given:
            raise config.error(
                f"teacher.train.{sorted(given)[0]}",
                "it is for the built-in model, and "
                "teacher.train.function names another. Leave one of them out.",
            )
    elif section.kind == "train" and config.values.data.kind == "function":
        raise config.error(
            "teacher.train.function",
            "there is no built-in model for the data of a function. "
            "Name a function that returns one.",
        )


def _check_file(config, section):
    path, key = pathlib.Path(section.file), "teacher.file"
    suffix = path.suffix.lower()
    if path.is_dir():
        if not (path / "saved_model.pb").exists():
            raise config.error(
                key,
                f"the folder {section.file!r} is no SavedModel: it has no saved_model.pb. "
                "Name the folder that model.export wrote, or a file.",
            )
    else:
        models.existing(config, key, section.file, _FILES)
    allowed = {
        "output": path.is_dir() or suffix in (".onnx", ".tflite", *_TORCH),
        "endpoint": path.is_dir(),
        "channels_first": suffix in (".onnx", ".tflite", *_TORCH),
    }
    for name, is_used in allowed.items():
        if getattr(section, name) and not is_used:
            raise config.error(
                f"teacher.{name}", f"{section.file!r} has no use for it. Leave it out."
            )
    if suffix == ".onnx":
        validation.needs("onnxruntime", config.place(key), "onnx")
    elif suffix == ".tflite":
        validation.needs("ai_edge_litert.interpreter", config.place(key), "litert")
    elif suffix in _TORCH:
        validation.needs("torch", config.place(key), "torch")


def _check_application(config, section):
    key = "teacher.application"
    names = [name for name in dir(keras.applications) if name[0].isupper()]
    if section.name not in names:
        raise config.error(
            f"{key}.name",
            f"keras.applications has no {section.name!r}."
            f"{closest(section.name, names) or f' It has {names[0]}, {names[1]} and others.'}",
        )
    if config.values.data.kind not in ("images", "function"):
        raise config.error(
            key,
            f"it takes images, and the data is {config.values.data.kind}. Name another teacher.",
        )
    if section.epochs == 0 and section.weights is None:
        raise config.error(
            key, "it would teach with random weights. Add `weights: FILE`, or `epochs` to train it."
        )
    if section.epochs == 0 and section.weights == "imagenet":
        raise config.error(
            f"{key}.weights",
            "with imagenet it knows the classes of ImageNet alone. Add `epochs` "
            "to train it on those of the data.",
        )
    if section.weights not in (None, "imagenet"):
        models.existing(config, f"{key}.weights", section.weights, (".h5",))


def build(config: Configuration, data: Samples) -> Plan:
    """Loads or builds the teacher, and tries it on a few samples; nothing is trained.

    Raises:
        ValueError: It cannot be made, or does not fit the data.
        ImportError: A package is missing.
    """
    kind = config.values.teacher.kind
    plan = _BUILDERS[kind](config, data)
    models.check_outputs(config, f"teacher.{kind}", plan.teacher, data)
    if plan.epochs and not isinstance(plan.teacher, keras.Model):
        raise config.error(f"teacher.{kind}", "only a Keras model can be trained here.")
    return plan


def _of_file(config, data):
    del data
    section = config.values.teacher
    return Plan(_loaded(config, section), 0, 0.0, section.file)


def _loaded(config, section):
    key, path = "teacher.file", section.file
    suffix = pathlib.Path(path).suffix.lower()
    output = section.output
    output = int(output) if output is not None and output.isdigit() else output
    if suffix in models.KERAS:
        return models.load(config, key, path)
    try:
        if pathlib.Path(path).is_dir():
            return teachers.SavedModelTeacher(path, section.endpoint or "serve", output)
        if suffix == ".onnx":
            return teachers.OnnxTeacher(path, output, channels_first=section.channels_first)
        if suffix == ".tflite":
            return teachers.TFLiteTeacher(
                path, output=output, channels_first=section.channels_first
            )
        return _of_torch(path, output, section.channels_first)
    except Exception as error:
        raise config.error(
            key, f"{path!r} cannot be loaded: {error}. Name a whole file of its kind."
        ) from error


def _of_torch(path, output, channels_first):
    torch = validation.needs("torch", "a TorchScript file", "torch")
    return teachers.TorchTeacher(torch.jit.load(path), output, channels_first)


def _of_application(config, data):
    section = config.values.teacher.chosen
    make = getattr(keras.applications, section.name)
    is_trained = section.epochs > 0
    given: dict[str, Any] = {"weights": section.weights, "input_shape": data.shape}
    if is_trained:
        given |= {"include_top": False, "pooling": "avg"}
    else:
        given |= {"classes": len(data.classes), "classifier_activation": None}
    try:
        model = make(**given)
        inputs = keras.Input(data.shape, name="inputs")
        outputs = model(preprocessing_of(section.name, data.shape[-1])(inputs))
        if is_trained:
            outputs = keras.layers.Dense(len(data.classes), name="logits")(outputs)
        whole = keras.Model(inputs, outputs, name="teacher")
    except Exception as error:
        raise config.error(
            "teacher.application",
            f"keras.applications.{section.name} cannot be made for images "
            f"of shape {list(data.shape)}: {error}",
        ) from error
    origin = f"keras.applications.{section.name}" if section.weights is not None else None
    return Plan(whole, section.epochs, section.learning_rate, origin)


def preprocessing_of(name: str, channels: int) -> keras.layers.Layer:
    """A layer that does what `preprocess_input` of the module of an application does.

    It is a layer of Keras where each channel is scaled by itself, so that a student can be shrunk.
    """
    modules = [each for _, each in inspect.getmembers(keras.applications, inspect.ismodule)]
    # The module of MobileNetV3Small and Large is the only one that does not list its classes.
    listed = [each for each in modules if hasattr(each, name)]
    function = [*listed, keras.applications.mobilenet_v3][0].preprocess_input
    black = np.zeros((1, 1, 1, channels), "float32")
    offset = np.asarray(function(black.copy())).reshape(-1)
    scales = np.asarray(function(black + 1.0)).reshape(-1) - offset
    one = black.copy()
    one[..., 0] = 1.0
    if np.abs(np.asarray(function(one)).reshape(-1)[0] - offset[0]) < 1e-9:
        return ApplicationPreprocessing(name="preprocessing")  # the channels change places
    return keras.layers.Rescaling(scales.tolist(), offset.tolist(), name="preprocessing")


def _of_preset(config, data):
    section = config.values.teacher.chosen
    model = models.preset(
        config, "teacher.preset.name", section.name, data, is_complete=section.epochs == 0
    )
    return Plan(model, section.epochs, section.learning_rate, section.name)


def _of_function(config, data):
    del data
    words = config.values.teacher.chosen
    return Plan(naming.called(words, config.place("teacher.function")), 0, 0.0, None)


def _of_training(config, data):
    section = config.values.teacher.chosen
    if section.function is not None:
        model = models.called(config, "teacher.train.function", section.function)
    else:
        model = architectures.build(data, section.width, section.depth, section.dropout)
    return Plan(model, section.epochs, section.learning_rate, None)


_BUILDERS = {
    "file": _of_file,
    "application": _of_application,
    "preset": _of_preset,
    "function": _of_function,
    "train": _of_training,
}
