"""What quantization-aware students round, where, and to which ranges."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_kd as kd
from keras_kd.quantization import fake_quant
from tests.quantization import common


def test_a_forward_pass_rounds_weights_and_activations(digits):
    keras.utils.set_random_seed(0)
    student = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3)])
    x = digits[0][0][:64]
    aware = kd.quantization_aware(student, "int8", x)
    kernel = student.layers[-1].kernel.numpy().astype(np.float64)
    scale = np.abs(kernel).max(axis=0) / 127
    rounded = np.rint(kernel / scale) * scale
    flat = common.fake(x.reshape(64, -1).astype(np.float64), x.min(), x.max())
    outputs = flat @ rounded
    low, high = aware.bounds()["StatefulPartitionedCall:0"]
    expected = common.fake(outputs, low, high)
    step = (high - low) / 255
    assert np.abs(aware(x).numpy() - expected).max() <= 1.01 * step  # a sum may round either way
    assert np.abs(aware(x).numpy() - expected).mean() < 0.05 * step


def test_gradients_pass_straight_through():
    keras.utils.set_random_seed(0)
    student = keras.Sequential([keras.Input((4,)), layers.Dense(3, use_bias=False)])
    aware = kd.quantization_aware(student, "int4")
    x = np.random.default_rng(1).normal(size=(5, 4)).astype("float32")
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(aware(x) * x[:, :3])
    kernel = student.layers[-1].kernel
    found = tape.gradient(total, kernel.value)
    np.testing.assert_allclose(found, x.T @ x[:, :3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
def test_rounded_weights_are_on_their_grid(bits):
    values = np.random.default_rng(0).normal(size=(5, 4, 3)).astype("float32")
    values[..., 1] = 0
    found = fake_quant.rounded(tf.constant(values), (0, 1), bits).numpy().astype(np.float64)
    largest = 2 ** (bits - 1) - 1
    scale = np.maximum(np.abs(values.astype(np.float64)).max(axis=(0, 1)), 1e-9) / largest
    np.testing.assert_allclose(found, np.rint(values / scale) * scale, rtol=1e-6, atol=1e-9)
    assert len(np.unique(found[..., 0])) <= 2 * largest + 1


def test_a_range_rounds_as_ai_edge_quantizer_does(tmp_path):
    x = np.random.default_rng(3).normal(size=(64, 8)).astype("float32")
    student = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    done = kd.export.to_tflite(student, tmp_path / "s.tflite", "int8", representative_data=x)
    scale, zero = fake_quant.parameters(float(x.min()), float(x.max()))
    assert (done.inputs[0].scale, done.inputs[0].zero_point) == (pytest.approx(scale), zero)
    assert fake_quant.bounds_of(scale, zero) == pytest.approx((x.min(), x.max()), abs=scale)


def test_ranges_follow_the_first_steps_and_are_then_frozen(trained, digits):
    student = keras.models.load_model(trained)
    aware = kd.quantization_aware(student, "int8", digits[0][0][:100], observe_steps=2)
    before = aware.bounds()
    aware(digits[0][0][:32], training=False)
    assert aware.bounds() == before
    aware(3 * digits[0][0][:32], training=True)
    moved = aware.bounds()
    assert moved != before
    aware(3 * digits[0][0][:32], training=True)
    frozen = aware.bounds()
    assert frozen != moved
    aware(9 * digits[0][0][:32], training=True)
    assert aware.bounds() == frozen
    assert int(aware.observed) == 3


def test_frozen_ranges_stay(trained, digits):
    aware = kd.quantization_aware(keras.models.load_model(trained), "int8", digits[0][0][:100])
    aware.freeze()
    before = aware.bounds()
    aware(3 * digits[0][0][:32], training=True)
    assert aware.bounds() == before


def test_rounding_is_done_where_the_file_has_tensors(trained, digits):
    aware = kd.quantization_aware(keras.models.load_model(trained), "int8", digits[0][0][:100])
    where = {
        (each["site"]["layer"], each["site"]["kind"]) for each in aware.get_config()["roundings"]
    }
    # Convolution, BatchNormalization and ReLU are one operator: its end alone is rounded.
    blocks = ["first", "separable", "depthwise", "last"]
    assert {path for path, _ in where if path.endswith("_relu")} == {f"{x}_relu" for x in blocks}
    assert ("separable", "between") in where
    assert not {path for path, _ in where} & {*blocks[2:], "first", *(f"{x}_norm" for x in blocks)}


def test_ranges_distinguish_a_clipping_layer_from_its_input():
    """MobileNetV3's gates: on data that is not clipped both ends of a ReLU6 are equal."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16,))
    added = layers.Rescaling(1.0, offset=3.0, name="added")(layers.Dense(8)(inputs))
    outputs = layers.Dense(4)(layers.ReLU(6.0, name="clipped")(added))
    student = keras.Model(inputs, outputs)
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (32, 16)).astype("float32")
    below = keras.Model(inputs, added).predict(x, verbose=0)
    assert 0 < below.min() < below.max() < 6
    aware = kd.quantization_aware(student, "int8", x)
    rounded = {each["site"]["layer"] for each in aware.get_config()["roundings"]}
    assert "clipped" in rounded
    assert "added" not in rounded


def test_pooling_has_the_range_of_what_it_pools():
    keras.utils.set_random_seed(0)
    stack = [layers.Conv2D(4, 3, name="seen"), layers.MaxPooling2D(name="pooled"), layers.Flatten()]
    student = keras.Sequential([keras.Input((8, 8, 1)), *stack, layers.Dense(3, name="logits")])
    x = np.random.default_rng(0).normal(size=(32, 8, 8, 1)).astype("float32")
    aware = kd.quantization_aware(student, "int8", x)
    owners = {each["site"]["layer"]: each["owner"] for each in aware.get_config()["roundings"]}
    assert owners["pooled"] == owners["seen"] != owners["logits"]
    before = aware.bounds()[owners["seen"]]
    aware(2 * x, training=True)  # both see these; the range moves once
    low, high = aware.bounds()[owners["seen"]]
    seen = student.get_layer("seen")(aware._rounded_inputs(2 * x, lambda _, value: value))
    assert low < before[0]
    assert high == pytest.approx(before[1] + 0.02 * (float(np.max(seen)) - before[1]), rel=0.02)


def test_recalibration_is_the_mean_over_batches(digits):
    stack = [keras.Input((8, 8, 1)), layers.Flatten(), layers.BatchNormalization(momentum=0.999)]
    model = keras.Sequential(stack)
    data = tf.data.Dataset.from_tensor_slices(digits[0][0][:256]).batch(64)
    assert kd.quantization.recalibrate(model, data) == 4
    batches = digits[0][0][:256].reshape(4, 64, 64).astype(np.float64)
    mean, variance = model.layers[-1].moving_mean, model.layers[-1].moving_variance
    # A momentum of 0.999 leaves three of float32's seven digits.
    np.testing.assert_allclose(mean.numpy(), batches.mean(1).mean(0), atol=2e-3)
    np.testing.assert_allclose(variance.numpy(), batches.var(1).mean(0), atol=2e-3)


def shared():
    one, other = keras.Input((4,)), keras.Input((4,))
    norm = layers.BatchNormalization(momentum=0.9, name="norm")
    return keras.Model([one, other], layers.Concatenate()([norm(one), norm(other)]))


def in_time():
    inputs = keras.Input((2, 4))
    inner = keras.Sequential([layers.BatchNormalization(momentum=0.9, name="norm")])
    return keras.Model(inputs, layers.TimeDistributed(inner)(inputs))


@pytest.mark.parametrize("make", [shared, in_time])
def test_recalibration_of_a_layer_that_is_called_twice(make):
    x = np.random.default_rng(0).normal(0.5, 0.1, size=(64, 2, 4)).astype("float32")
    given = (x[:, 0], x[:, 1]) if make is shared else x
    model = make()
    data = tf.data.Dataset.from_tensor_slices((given,)).batch(16)
    assert kd.quantization.recalibrate(model, data) == 4
    calls = x.reshape(4, 16, 2, 4).astype(np.float64)
    mean, variance = model.non_trainable_variables[:2]
    np.testing.assert_allclose(mean.numpy(), calls.mean(1).mean((0, 1)), atol=1e-5)
    np.testing.assert_allclose(variance.numpy(), calls.var(1).mean((0, 1)), atol=1e-5)


def test_recalibration_leaves_out_what_a_cached_teacher_has_said(digits):
    from keras_kd.teachers import protocol

    stack = [keras.Input((8, 8, 1)), layers.Flatten(), layers.BatchNormalization()]
    model = keras.Sequential(stack)
    data = tf.data.Dataset.from_tensor_slices((digits[0][0][:64], digits[0][1][:64])).batch(32)
    taught = data.map(lambda x, y: (protocol.attach_outputs(x, tf.zeros((32, 10))), y))
    for each in (data, taught):
        kd.quantization.recalibrate(model, each)
        mean = model.layers[-1].moving_mean.numpy()
        np.testing.assert_allclose(mean, digits[0][0][:64].reshape(64, 64).mean(0), atol=1e-4)
    with pytest.raises(ValueError, match="`data`. Expected a batched tf.data.Dataset"):
        kd.quantization.recalibrate(model, digits[0][0])


def test_recalibration_is_seen_or_silent(capsys):
    model, x = shared(), np.ones((64, 4), "float32")
    data = tf.data.Dataset.from_tensor_slices(((x, x),)).batch(16)
    with pytest.raises(ValueError, match="`verbose`.*'loud'"):
        kd.quantization.recalibrate(model, data, verbose="loud")
    kd.quantization.recalibrate(model, data, verbose=0)
    assert capsys.readouterr() == ("", "")
    kd.quantization.recalibrate(model, data.repeat(), max_batches=3)
    assert capsys.readouterr().out.startswith("recalibrate: 3/3 - ")
