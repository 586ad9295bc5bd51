"""Writes the student of a run as files for devices."""

from typing import Any

import keras

from keras_kd import export
from keras_kd._utils import validation
from keras_kd.runs import models, schema
from keras_kd.runs.context import Run
from keras_kd.runs.reading import Configuration

# Samples by which integers are calibrated, and on which a file is compared with the student.
_CALIBRATED, _COMPARED = 300, 500


def check(config: Configuration) -> None:
    """Raises where a package for an export is missing.

    Raises:
        ImportError: It is; the message names the extra.
    """
    for i, each in enumerate(config.values.exports):
        who = config.place(f"exports.{i}.format")
        if each.format == "tflite":
            validation.needs("ai_edge_litert.interpreter", who, "export")
        else:
            for package in ("onnx", "onnxruntime", "tf2onnx"):
                validation.needs(package, who, "onnx")


def write_all(run: Run) -> list[str]:
    """Writes all exports; returns the names of the files."""
    exports = run.config.values.exports
    if not exports:
        return []
    student = models.load(run.config, "student", run.folder.file("student.keras"))
    for i, each in enumerate(exports):
        run.say(f"export {each.name}: writes {each.file}")
        _write(run, student, each, f"exports.{i}")
    return [each.file for each in exports]


def _write(run: Run, student: keras.Model, each: schema.Export, key: str) -> None:
    given: dict[str, Any] = {
        "quantization": each.quantization,
        "data": run.data.arrays("validation", _COMPARED),
        "task": "multiclass",
        "overwrite": True,
        "verbose": 0,
    }
    if each.quantization in ("int8", "int16x8"):
        given["representative_data"] = run.data.arrays("train", _CALIBRATED)[0]
    path = run.folder.file(each.file)
    description = {"classes": run.data.classes}
    try:
        if each.format == "onnx":
            export.to_onnx(student, path, metadata=description, **given)
        else:
            given["min_agreement"] = each.min_agreement
            export.to_tflite(student, path, user_metadata=description, **given)
    except (ValueError, RuntimeError) as error:
        raise run.config.error(
            key,
            f"{each.name} cannot be written: {error}\nChange the export and run `keras-kd "
            "export`; the trained models stay.",
        ) from error
