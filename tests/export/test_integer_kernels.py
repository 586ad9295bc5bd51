"""Operators that have integer kernels in LiteRT, and that ai-edge-quantizer leaves in float."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from keras_kd.runtimes import TFLiteFile

ROWS = np.random.default_rng(0).normal(size=(64, 6, 8)).astype("float32")


def of(layer, last=True):
    def make():
        inputs = keras.Input((6, 8))
        x = layer(layers.Dense(8)(inputs))
        # Read twice: by a sum and by a layer.
        x = layers.Add()([x, layers.Dense(x.shape[-1])(x)])
        return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)) if last else x)

    return make


def of_groups():
    inputs = keras.Input((6, 8))
    x = layers.GroupQueryAttention(4, 4, 2)(inputs, inputs, use_causal_mask=True)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def image_to_image():
    inputs = keras.Input((6, 8))
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(layers.Reshape((6, 8, 1))(inputs))
    return keras.Model(inputs, layers.Conv2D(2, 3, padding="same")(layers.UpSampling2D()(x)))


CASES = {
    "LEAKY_RELU": of(layers.LeakyReLU(0.2)),
    "ELU": of(layers.ELU()),
    "RELU6": lambda: keras.Sequential([keras.Input((6, 8)), layers.ReLU(6.0), layers.Dense(3)]),
    "ABS": of(layers.Activation("softsign")),
    "REDUCE_MAX": of(layers.GlobalMaxPooling1D()),
    "TILE": image_to_image,
    "TILE of attention": of_groups,
    "LEAKY_RELU last": lambda: keras.Sequential([keras.Input((6, 8)), layers.LeakyReLU(0.3)]),
}


@pytest.mark.parametrize("name", CASES)
def test_it_computes_with_integers(name, tmp_path):
    keras.utils.set_random_seed(0)
    student = CASES[name]()
    aware = kd.quantization_aware(student, "int8", ROWS)
    done = kd.export.to_tflite(
        aware, tmp_path / "s.tflite", representative_data=ROWS, min_agreement=0.0
    )
    assert name.split()[0] in done.operators
    assert done.float_operators == []
    assert "DEQUANTIZE" not in done.operators
    assert done.notes == []
    file = TFLiteFile(done.path)
    apart = np.abs(file.run(ROWS)[0] - np.asarray(aware(ROWS))) / file.outputs[0].scale
    assert apart.max() <= 3.1  # integers of the kernels' own rounding
    assert np.mean(apart) < 1.0


def test_its_values_are_those_of_the_formula(tmp_path):
    """Without any weight: the rounding of the input and of the output is all there is."""
    student = keras.Sequential([keras.Input((6, 8)), layers.LeakyReLU(0.3)])
    done = kd.export.to_tflite(
        student, tmp_path / "s.tflite", "int8", representative_data=ROWS, route="edge_quantizer"
    )
    x = ROWS.astype(np.float64)
    expected = np.where(x > 0, x, 0.3 * x)
    step = done.inputs[0].scale / 2 + done.outputs[0].scale / 2
    np.testing.assert_allclose(TFLiteFile(done.path).run(ROWS)[0], expected, atol=1.1 * step)
