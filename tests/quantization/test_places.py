"""Ranges are kept by places of the model: whatever Keras calls its layers and weights hold."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_kd as kd

ROWS = np.random.default_rng(0).normal(size=(32, 6, 8)).astype("float32")
IDS = np.random.default_rng(0).integers(1, 20, (32, 6)).astype("int32")
IDS[:16, 4:] = 0


def head(x):
    return layers.Dense(3)(layers.Flatten()(x))


def causal():
    inputs = keras.Input((6, 8))
    attended = layers.MultiHeadAttention(2, 4)(inputs, inputs, use_causal_mask=True)
    return keras.Model(inputs, head(inputs + attended))


def padded():
    inputs = keras.Input((6,), dtype="int32")
    x, counts = layers.Embedding(20, 8)(inputs), keras.ops.not_equal(inputs, 0)
    attended = layers.MultiHeadAttention(2, 4)(x, x, attention_mask=counts[:, None, :])
    return keras.Model(inputs, head(attended))


def shared_and_another():
    inputs = keras.Input((6, 8))
    shared = layers.MultiHeadAttention(1, 4)
    x = shared(inputs, inputs, use_causal_mask=True)
    x = layers.LayerNormalization()(shared(x, x))
    x = layers.MultiHeadAttention(1, 4)(x, inputs, use_causal_mask=True)
    return keras.Model(inputs, head(x))


def nested():
    inputs = keras.Input((6, 8))
    tail = keras.Sequential([keras.Input((3,)), layers.Dense(4, activation="relu")])
    return keras.Model(inputs, layers.Dense(3)(tail(causal()(inputs))))


@keras.saving.register_keras_serializable("keras_kd_tests")
class Block(layers.Layer):
    """Neither its configuration nor its layers have names: Keras counts them up in a copy."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(8), layers.Dense(8)
        self.attention = layers.MultiHeadAttention(2, 4)

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)
        self.attention.build(shape, shape)

    def call(self, inputs):
        x = self.second(self.first(inputs))
        return self.attention(x, inputs, use_causal_mask=True)

    def get_config(self):
        return {}


def of_blocks():
    return keras.Sequential([keras.Input((6, 8)), Block(), Block(), *head_layers()])


def head_layers():
    return [layers.Flatten(), layers.Dense(3)]


def normalized():
    """Of fresh weights a converter leaves out all that adds 0 and multiplies by 1."""
    inputs = keras.Input((6, 8))
    x = layers.LayerNormalization()(layers.Dense(8)(inputs))
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(layers.Dense(8)(x)))
    return keras.Model(inputs, head(x))


CASES = [causal, padded, shared_and_another, nested, normalized]


def trained(student, rows, seed=1):
    """A fresh student made aware, and then of other weights and ranges."""
    aware, rng = kd.quantization_aware(student, "int8", rows), np.random.default_rng(seed)
    for variable in aware.student.trainable_variables:
        variable.assign_add(0.1 * rng.normal(size=variable.shape))
    follow(aware, rows, 60)
    return aware


def follow(aware, rows, steps):
    step = tf.function(lambda: aware(rows, training=True))
    for _ in range(steps):
        step()


def check(aware, rows, path, **kwargs):
    done = kd.export.to_tflite(
        aware, path, representative_data=rows, overwrite=True, min_agreement=0.0, **kwargs
    )
    assert done.float_operators == []
    assert done.notes == []  # which would list integers and ranges that are not in the file
    outputs = np.abs(keras.ops.convert_to_numpy(aware(rows))).max()
    assert done.worst_difference < 0.06 * outputs
    return path.read_bytes()


@pytest.mark.parametrize("make", CASES)
def test_what_was_trained_is_in_the_file(make, tmp_path):
    keras.utils.set_random_seed(0)
    rows = IDS if make is padded else ROWS
    aware = trained(make(), rows)
    check(aware, rows, tmp_path / "trained.tflite")


def test_also_when_saved_loaded_renamed_and_beside_other_models(tmp_path):
    keras.utils.set_random_seed(0)
    aware = trained(of_blocks(), ROWS)
    before = check(aware, ROWS, tmp_path / "trained.tflite", batch_size=4)
    aware.save(tmp_path / "aware.keras")
    for _ in range(3):
        causal()
        Block()
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(loaded(ROWS), aware(ROWS))
    assert loaded.student.layers[0].name != aware.student.layers[0].name
    loaded.student.name = "renamed"
    path = tmp_path / "loaded.tflite"
    assert len(check(loaded, ROWS, path, batch_size=4)) == pytest.approx(len(before), rel=0.05)
    files = [kd.measurement.runtimes.TFLiteFile(x) for x in (tmp_path / "trained.tflite", path)]
    np.testing.assert_array_equal(*(file.run(ROWS)[0] for file in files))


def test_fresh_and_frozen_weights_export_too(tmp_path):
    student = normalized()
    aware = kd.quantization_aware(student, "int8", ROWS)
    done = kd.export.to_tflite(aware, tmp_path / "s.tflite", representative_data=ROWS)
    assert done.agreement > 0.9


def test_a_look_at_the_file_leaves_the_student_as_it_is():
    student = normalized()
    before = [x.numpy() for x in student.variables]
    names = [layer.name for layer in student.layers]
    kd.quantization_aware(student, "int8", ROWS)
    for variable, values in zip(student.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), values)
    assert [layer.name for layer in student.layers] == names


def test_what_is_concatenated_has_the_range_of_the_whole():
    """The first part's batches alone moved it, and the second part was cut off."""
    inputs = keras.Input((8,))
    small = layers.Dense(4, name="small")(inputs)
    large = layers.Rescaling(20.0, name="large")(layers.Dense(4)(inputs))
    joined = layers.Concatenate(name="joined")([small, large])
    student = keras.Model(inputs, layers.Dense(3)(joined))
    aware = kd.quantization_aware(student, "int8", ROWS[:, 0])
    found = keras.Model(inputs, joined).predict(ROWS[:, 0], verbose=0)
    follow(aware, ROWS[:, 0], 150)
    sites = {site.layer: bounds for site, bounds in aware.bounds_of_sites().items()}
    assert sites["small"] == sites["joined"]
    np.testing.assert_allclose(sites["joined"], (found.min(), found.max()), rtol=0.05)
