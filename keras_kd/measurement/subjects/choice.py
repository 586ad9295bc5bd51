"""Finds out what is to be measured."""

import os
import zipfile

import keras
import numpy as np

from keras_kd import checks, symbolic_pass
from keras_kd.measurement import runtimes
from keras_kd.measurement.runtimes import feeding
from keras_kd.measurement.subjects.keras_model import KerasSubject
from keras_kd.measurement.subjects.model_file import FileSubject
from keras_kd.measurement.subjects.texts import Decoded, FunctionSubject, TextsSubject

_KINDS: dict[type, str] = {runtimes.TFLiteFile: "tflite", runtimes.OnnxFile: "onnx"}


def subject_of(given, threads=1, name=None, decode=None):
    """The `Subject` that stands for whatever `measure` was given.

    Args:
        given: A Keras model; the path of a `.tflite`, `.onnx` or `.keras` file; a `TFLiteFile` or
            `OnnxFile`; a function; a list of strings.
        threads: Of the runtime of a file.
        name: A name in place of its own.
        decode: A function from outputs to strings, or `None`.

    Raises:
        ValueError: It is none of these.
    """
    checks.text("name", name, "a name", optional=True)
    feeding.positive("threads", threads)  # 0, any number, would time nothing
    checks.function("decode", decode, ["outputs"], optional=True)
    found = _found(given, threads, name)
    return found if decode is None else Decoded(found, decode)


def _found(given, threads, name):
    if isinstance(given, keras.Model):
        symbolic_pass.check_built("model_or_file", given)
        return KerasSubject(given, name)
    if isinstance(given, tuple(_KINDS)):
        return FileSubject(given, _KINDS[type(given)], name)
    if isinstance(given, (str, os.PathLike)):
        return _of_path(os.fspath(given), threads, name)
    if isinstance(given, (list, np.ndarray)) and all(isinstance(x, str) for x in given):
        return TextsSubject(given, name)
    if callable(given) and not isinstance(given, type):
        return FunctionSubject(given, name)
    raise ValueError(
        "`model_or_file` must be a keras.Model, the path of a .tflite, .onnx or .keras file, or, "
        "of generated text, a function or a list of strings. "
        f"Received: {given!r} of type {type(given).__name__}"
    )


def _of_path(path, threads, name):
    ending = os.path.splitext(path)[1]
    if ending == ".tflite":
        return FileSubject(runtimes.TFLiteFile(path, threads), "tflite", name)
    if ending == ".onnx":
        return FileSubject(runtimes.OnnxFile(path, threads), "onnx", name)
    if ending != ".keras":
        raise ValueError(f"Expected a .tflite, .onnx or .keras file. Received: {path!r}")
    if not os.path.isfile(path):
        raise ValueError(f"There is no file {path!r}. Expected the path of a .keras file.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{os.path.basename(path)} is no .keras file, or only a part of one. Save the model "
            "again: model.save(path)."
        )
    model = keras.models.load_model(path, compile=False)
    return KerasSubject(model, name or os.path.basename(path))
