"""What has no file of its scheme is refused before it trains, with the layer and a way out."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_kd as kd
from keras_kd.quantization.tfmot import convert
from tests import extras

ROWS = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")


def around(layer):
    return keras.Sequential([keras.Input((8,)), layers.Dense(16), layer, layers.Dense(3)])


def in_a_model():
    inner = keras.Sequential([keras.Input((16,)), layers.GroupNormalization(4, name="within")])
    return around(keras.Sequential([*inner.layers], name="body"))


@keras.saving.register_keras_serializable("keras_kd_tests")
class Exponential(layers.Layer):
    def call(self, inputs):
        return keras.ops.exp(inputs)


@keras.saving.register_keras_serializable("keras_kd_tests")
class ErrorFunction(layers.Layer):
    def call(self, inputs):
        return keras.ops.erf(inputs)


REFUSED = {
    "last": (
        lambda: keras.Sequential([keras.Input((8,)), layers.Dense(3), layers.PReLU(name="end")]),
        "'end' (PReLU)",
    ),
    "prelu": (lambda: around(layers.PReLU(name="within")), "'within' (PReLU)"),
    "softplus": (lambda: around(layers.Activation("softplus", name="within")), "'within'"),
    "activation": (lambda: around(layers.Dense(4, activation="selu", name="within")), "'within'"),
    "groups": (lambda: around(layers.GroupNormalization(4, name="within")), "'within'"),
    "nested": (in_a_model, "'body/within' (GroupNormalization)"),
    "custom": (lambda: around(Exponential(name="within")), "'within' (Exponential)"),
    "operation": (
        lambda: keras.Model(x := keras.Input((8,)), layers.Dense(3)(keras.ops.sin(x))),
        "(Sin)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_float_only_layer_raises(case):
    make, named = REFUSED[case]
    student = make()
    with pytest.raises(ValueError, match="in float32") as error:
        kd.quantization_aware(student, "int8", ROWS)
    assert named in str(error.value)


@pytest.mark.parametrize("case", ["prelu", "nested"])
def test_the_remedies_work(case, tmp_path):
    student = REFUSED[case][0]()
    with pytest.raises(ValueError, match=r"LeakyReLU for an activation.*scheme='int4'"):
        kd.quantization_aware(student, "int8", ROWS)
    aware = kd.quantization_aware(student, "int4")
    assert kd.export.to_tflite(aware, tmp_path / "weights.tflite").agreement is None  # no data
    other = layers.LeakyReLU() if case == "prelu" else layers.LayerNormalization()
    aware = kd.quantization_aware(around(other), "int8", ROWS)
    done = kd.export.to_tflite(aware, tmp_path / "integers.tflite", representative_data=ROWS)
    assert done.float_operators == []


def test_cast_input_remedy_is_declared_dtype(tmp_path):
    def made(dtype):
        pixels = keras.Input((8,), dtype=dtype)
        x = layers.Rescaling(1 / 255, name="scaled")(pixels)
        return keras.Model(pixels, layers.Dense(3)(x))

    rows = np.random.default_rng(0).integers(0, 256, (32, 8)).astype("uint8")
    with pytest.raises(ValueError, match=r"'float32' for pixels \(and input_dtype='uint8'"):
        kd.quantization_aware(made("uint8"), "int8", rows)
    rows = rows.astype("float32")
    aware = kd.quantization_aware(made("float32"), "int8", rows)
    done = kd.export.to_tflite(
        aware, tmp_path / "s.tflite", representative_data=rows, input_dtype="uint8"
    )
    assert done.inputs[0].dtype == "uint8"


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_unconvertible_layer_raises(scheme):
    extras.require("ai_edge_quantizer")
    student = around(ErrorFunction(name="within"))
    match = r"^Layer 'within' \(ErrorFunction\): TensorFlow's"
    with pytest.raises(kd.export.ExportError, match=match):
        kd.quantization_aware(student, scheme, ROWS)


class Unknown(layers.Layer):
    """Of no configuration: Keras cannot make it again."""

    def __init__(self, function):
        super().__init__(name="within")
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_uncopyable_layer_raises(scheme):
    student = around(Unknown(lambda x: x))
    with pytest.raises(ValueError, match="cannot be copied"):
        kd.quantization_aware(student, scheme, ROWS)


def of_every_layer_of_the_table():
    """Those that `tfmot.table` says quantization_aware takes."""
    inputs = keras.Input((8, 8, 4))
    x = layers.Cropping2D(1)(layers.ZeroPadding2D(2)(inputs))
    x = layers.LeakyReLU(negative_slope=0.1)(layers.Conv2D(4, 3)(x))
    x = layers.Concatenate()([x, layers.Activation("silu")(layers.Conv2D(4, 1)(x))])
    x = layers.AveragePooling2D(2)(layers.ReLU()(layers.DepthwiseConv2D(1)(x)))
    x = layers.UpSampling2D()(layers.SeparableConv2D(4, 1, activation="relu")(x))
    x = layers.MaxPooling2D()(layers.Conv2DTranspose(4, 2, strides=2)(x))
    x = layers.SpatialDropout2D(0.1)(layers.BatchNormalization()(layers.Conv2D(4, 1)(x)))
    x = layers.Permute((2, 1, 3))(layers.Conv2D(8, 1, activation="tanh")(x))
    x = layers.Reshape((8, 8, 8))(layers.Softmax()(x))
    pooled = layers.Add()([layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)])
    return keras.Model(inputs, layers.Dense(3)(layers.Dropout(0.1)(layers.Flatten()(pooled))))


def test_every_layer_of_the_table_has_integers(tmp_path):
    keras.utils.set_random_seed(0)
    student = of_every_layer_of_the_table()
    kinds = {type(layer).__name__ for layer in student.layers}
    assert kinds >= {name for name, each in convert.LAYERS.items() if each.native}
    rows = np.random.default_rng(0).normal(size=(32, 8, 8, 4)).astype("float32")
    kd.quantization.recalibrate(student, tf.data.Dataset.from_tensors(rows))
    aware = kd.quantization_aware(student, "int8", rows)
    done = kd.export.to_tflite(
        aware, tmp_path / "s.tflite", representative_data=rows, task="regression"
    )
    assert done.float_operators == []
    # Rounding changes an untrained model much, which is noted; no range is missing.
    assert all("measure the file on labeled data" in note for note in done.notes)
