"""Wrong calls of exports raise before any conversion; remedies that are named work."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from keras_kd.export.onnx import convert
from keras_kd.export.tflite import routes
from tests.contract.wrong_calls_of_exports import (
    INT8,
    LABELS,
    TABLE,
    ids_as_floats,
    onnx,
    own,
    rows,
    student,
    tflite,
    two_heads,
)


@pytest.fixture
def nothing_is_converted(monkeypatch):
    def converted(*args, **kwargs):
        raise AssertionError("converted")

    monkeypatch.setattr(routes, "convert", converted)
    monkeypatch.setattr(convert, "graph_of", converted)


@pytest.mark.parametrize("name", TABLE)
def test_wrong_calls_raise_before_conversion(name, nothing_is_converted, tmp_path):
    call, message = TABLE[name]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call(tmp_path)
    assert not [x for x in tmp_path.rglob("*") if x.is_file() and x.name != "s.tflite"]


def test_the_table_is_complete():
    assert len(TABLE) >= 50


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.tflite"):
        kd.export.read_metadata(tmp_path / "nothing.tflite")


def in_a_shape():
    inputs = keras.Input((8,))
    return keras.Model(inputs, own()(inputs))


def as_whole_numbers():
    inputs = keras.Input((4,), dtype="int32", name="ids")
    made = keras.Model(inputs, layers.Flatten()(layers.Embedding(7, 3)(inputs)))
    made.set_weights(ids_as_floats().get_weights())
    return made


REMEDIES = {
    "labels of classes": lambda folder: tflite(
        folder, data=(rows(), LABELS), max_accuracy_drop=0.1
    ),
    "an error of numbers": lambda folder: tflite(
        folder, data=(rows(), rows(width=3)), max_error=0.1
    ),
    "the task is said": lambda folder: tflite(
        folder, data=rows(), task="regression", max_error=0.1
    ),
    "a task for an output": lambda folder: tflite(
        folder, made=two_heads(), data=rows(), task={"kind": "regression"}
    ),
    "answers that are missing": lambda folder: onnx(
        folder, made=student(1), data=(rows(), LABELS - 1), task="binary"
    ),
    "numbers that look like answers": lambda folder: onnx(
        folder, made=student(1), data=(rows(), LABELS - 1), task="regression"
    ),
    "labels for one of two outputs": lambda folder: tflite(
        folder, made=two_heads(), data=(rows(), {"kind": LABELS})
    ),
    "an iterator of batches": lambda folder: onnx(folder, data=lambda: iter([rows()])),
    "lists in metadata": lambda folder: tflite(folder, user_metadata={"a": np.arange(3).tolist()}),
    "lists in properties": lambda folder: onnx(folder, metadata={"a": np.arange(3).tolist()}),
    "int8 for borders of bytes": lambda folder: tflite(
        folder, **INT8, representative_data=rows(), input_dtype="int8"
    ),
    "whole numbers for a table": lambda folder: tflite(
        folder,
        **INT8,
        made=as_whole_numbers(),
        representative_data=np.arange(128).reshape(32, 4) % 7,
    ),
    "a functional model of one's own": lambda folder: tflite(folder, made=in_a_shape()),
    "inputs of one's own": lambda folder: onnx(folder, made=own(), data=rows()),
    "the student itself": lambda folder: tflite(
        folder,
        "int8",
        kd.quantization_aware(student(), "int4").student,
        representative_data=rows(),
    ),
}


@pytest.mark.parametrize("name", REMEDIES)
def test_the_remedy_works(name, tmp_path):
    done = REMEDIES[name](tmp_path)
    assert (tmp_path / f"s.{'onnx' if isinstance(done.path, str) else 'tflite'}").exists()
