"""Parameters, bytes and memory, counted by hand."""

import gzip

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd import runtimes
from keras_kd.measurement import sizes
from tests.measurement import files

X = files.arrays()[0]
PARAMETERS = (files.FEATURES + 1) * 6 + 7 * files.CLASSES


def test_of_a_keras_model():
    model = files.classifier()
    model.layers[0].trainable = False
    size, notes = sizes.measure_keras(model, X[:1])
    assert size["parameters"] == PARAMETERS
    assert size["trainable_parameters"] == 7 * files.CLASSES
    assert size["bytes"] == 4 * PARAMETERS
    assert "gzip_bytes" not in size
    assert "peak_activation_bytes" not in size
    assert any("peak_activation_bytes: left out" in note for note in notes)


def test_weights_count_in_their_own_type():
    inputs = keras.Input((3,), dtype="bfloat16")
    model = keras.Model(inputs, layers.Dense(2, dtype="bfloat16")(inputs))
    assert sizes.measure_keras(model, np.zeros((1, 3), "float32"))[0]["bytes"] == 2 * 8


@pytest.mark.parametrize("samples", [None, [X]], ids=["float", "int8"])
def test_of_a_tflite_file(tmp_path, samples):
    path = files.tflite(files.classifier(), tmp_path / "c.tflite", samples)
    size, notes = sizes.measure_file(runtimes.TFLiteFile(path), X[:1])
    assert size["parameters"] == PARAMETERS
    assert size["bytes"] == path.stat().st_size
    assert size["gzip_bytes"] == len(gzip.compress(path.read_bytes(), 9, mtime=0))
    assert size["macs"] == files.FEATURES * 6 + 6 * files.CLASSES
    assert notes == []
    # Tanh reads 6 numbers and makes 6 more.
    assert size["peak_activation_bytes"] == 12 * (4 if samples is None else 1)


def test_memory_holds_what_is_read_later(tmp_path):
    inputs = keras.Input((8,))
    wide = layers.Dense(100)(inputs)
    narrow = layers.Dense(10)(layers.Activation("tanh")(wide))
    model = files.filled(keras.Model(inputs, layers.Concatenate()([inputs, narrow])))
    path = files.tflite(model, tmp_path / "m.tflite")
    size, _ = sizes.measure_file(runtimes.TFLiteFile(path), np.zeros((1, 8), "float32"))
    assert size["peak_activation_bytes"] == 4 * (100 + 100 + 8)


def test_a_reshape_needs_no_memory_of_its_own(tmp_path):
    stack = [layers.Activation("tanh"), layers.Flatten(), layers.Dense(3)]
    model = files.filled(keras.Sequential([keras.Input((5, 4)), *stack]))
    path = files.tflite(model, tmp_path / "m.tflite")
    file = runtimes.TFLiteFile(path)
    assert "RESHAPE" in [x.name for x in file.operators]
    size, _ = sizes.measure_file(file, np.zeros((1, 5, 4), "float32"))
    assert size["peak_activation_bytes"] == 4 * (20 + 20)


def test_the_body_of_a_loop_needs_memory(tmp_path):
    units = 50
    model = keras.Sequential([keras.Input((4, 3), batch_size=1), layers.LSTM(units)])
    path = files.tflite(files.filled(model), tmp_path / "m.tflite")
    size, _ = sizes.measure_file(runtimes.TFLiteFile(path), np.zeros((1, 4, 3), "float32"))
    # Into the loop go steps, state and cell; in it the gates are four times the units, twice.
    least = 4 * (4 * 3 + 3 * units + 2 * 4 * units)
    assert least <= size["peak_activation_bytes"] < 2 * least


def test_of_an_onnx_file(tmp_path):
    path = files.onnx(tmp_path / "c.onnx")
    size, notes = sizes.measure_file(runtimes.OnnxFile(path), np.zeros((1, 8), "float32"))
    assert size["parameters"] == PARAMETERS
    assert size["bytes"] == path.stat().st_size
    assert "macs" not in size
    assert any(note.startswith("macs, peak_activation_bytes: not counted") for note in notes)


def test_an_onnx_file_without_the_package_onnx(tmp_path, monkeypatch):
    import sys

    file = runtimes.OnnxFile(files.onnx(tmp_path / "c.onnx"))
    monkeypatch.setitem(sys.modules, "onnx", None)
    size, notes = sizes.measure_file(file, None)
    assert "parameters" not in size
    assert any("parameters: left out" in note and "keras-kd[onnx]" in note for note in notes)
