"""Quantization-aware students that were saved before ranges were kept by places still export.

`data/` has students that commit 05a0fff made and saved after three steps, and their outputs.
"""

import pathlib

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from keras_kd.runtimes import TFLiteFile

DATA = pathlib.Path(__file__).parent / "data"
ROWS = np.random.default_rng(0).normal(size=(32, 6, 8)).astype("float32")


@keras.saving.register_keras_serializable("keras_kd_tests")
class Nameless(layers.Layer):
    """Its configuration has no name: loaded, it is called otherwise."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(4), layers.Dense(4)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 4))

    def call(self, inputs):
        return keras.ops.relu(self.second(keras.ops.relu(self.first(inputs))))

    def get_config(self):
        return {}


@pytest.mark.parametrize("name", ["dense_int8", "causal_int8", "nameless_int8"])
def test_it_rounds_as_before_and_exports(name, tmp_path):
    for _ in range(2):
        Nameless()
    aware = keras.models.load_model(DATA / f"{name}.keras")
    expected = np.load(DATA / "outputs.npz")[name]
    np.testing.assert_allclose(aware(ROWS), expected, atol=1e-5)
    done = kd.export.to_tflite(aware, tmp_path / "s.tflite", representative_data=ROWS)
    assert done.notes == []
    found = TFLiteFile(done.path).run(ROWS)[0]
    assert np.abs(found - expected).max() <= 2.1 * done.outputs[0].scale
    aware.save(tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    np.testing.assert_array_equal(again(ROWS), aware(ROWS))
