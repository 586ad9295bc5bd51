"""Which weights a student gets, against NumPy by hand."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from tests.students import networks

EVEN = np.arange(0, 12, 2)


def random(model, seed=0):
    networks.randomize(model, seed)
    return model


def shrink(teacher, **kwargs):
    return kd.students.shrink(teacher, print_fn=None, **kwargs)


def weights(model, name):
    return model.get_layer(name).get_weights()


def assert_equal(model, name, *expected):
    for received, value in zip(weights(model, name), expected, strict=True):
        np.testing.assert_array_equal(received, value)


def test_dense_layers_keep_every_second_unit():
    teacher = random(networks.mlp())
    student = shrink(teacher, width=0.5)
    kernel, bias = weights(teacher, "hidden_0")
    assert_equal(student, "hidden_0", kernel[:, EVEN], bias[EVEN])
    kernel, bias = weights(teacher, "hidden_1")
    assert_equal(student, "hidden_1", kernel[EVEN][:, EVEN], bias[EVEN])
    kernel, bias = weights(teacher, "head")
    assert_equal(student, "head", kernel[EVEN], bias)


def test_operations_between_layers_have_no_weights():
    x = keras.Input((8,))
    hidden = layers.Dense(12, name="hidden")(x / 2.0)
    teacher = random(keras.Model(x, layers.Dense(3, name="head")(hidden * 3.0)))
    student = shrink(teacher, width=0.5)
    kernel, bias = weights(teacher, "hidden")
    assert_equal(student, "hidden", kernel[:, EVEN], bias[EVEN])
    given = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    read, added = weights(teacher, "head")
    expected = 3 * (given / 2 @ kernel[:, EVEN] + bias[EVEN]) @ read[EVEN] + added
    np.testing.assert_allclose(student.predict(given, verbose=0), expected, rtol=1e-5)


def test_sizes_are_rounded_up_and_channels_evenly_spread():
    teacher = random(networks.mlp())
    student = shrink(teacher, width=0.4)
    assert student.get_layer("hidden_0").units == 5
    kernel, bias = weights(teacher, "hidden_0")
    index = [0, 2, 4, 7, 9]
    assert_equal(student, "hidden_0", kernel[:, index], bias[index])
    assert shrink(teacher, width=0.001).get_layer("hidden_0").units == 1
    # 0.7 * 10 is 7.000000000000001.
    assert shrink(networks.mlp(10), width=0.7).get_layer("hidden_0").units == 7


def test_flattened_images_keep_their_channels_at_each_position():
    teacher = random(networks.vgg())
    student = shrink(teacher, width=0.5)
    kernel, bias = weights(teacher, "dense")
    expected = kernel.reshape(4, 4, 12, 16)[:, :, EVEN][..., ::2].reshape(-1, 8)
    assert_equal(student, "dense", expected, bias[::2])


def test_concatenated_channels_are_those_of_each_part():
    teacher = random(networks.densenet())
    student = shrink(teacher, width=0.5)
    # 3 of the input, then 4, 6 and 8: the even ones of each stay.
    index = [0, 1, 2, 3, 5, 7, 9, 11]
    kernel, bias = weights(teacher, "conv_2")
    assert_equal(student, "conv_2", kernel[:, :, index][..., ::2], bias[::2])
    assert_equal(student, "norm_2", *(value[index] for value in weights(teacher, "norm_2")))


def test_depthwise_convolutions_keep_all_outputs_of_a_channel():
    teacher = random(networks.mobilenet(2))
    student = shrink(teacher, width=0.5)
    kernel, bias = weights(teacher, "depth_0")
    even = np.arange(0, 16, 2)
    assert_equal(student, "depth_0", kernel[:, :, even], bias.reshape(16, 2)[even].reshape(-1))
    kernel, bias = weights(teacher, "project_0")
    assert_equal(
        student,
        "project_0",
        kernel.reshape(16, 2, 8)[even].reshape(1, 1, 16, 8)[..., ::2],
        bias[::2],
    )
    # Three groups of four channels become three of two.
    index = [0, 2, 4, 6, 8, 10]
    assert_equal(student, "group_norm", *(value[index] for value in weights(teacher, "group_norm")))
    depthwise, pointwise, bias = weights(teacher, "separable")
    expected = depthwise[:, :, ::2], pointwise[:, :, ::2][..., index], bias[index]
    assert_equal(student, "separable", *expected)


def test_recurrent_layers_keep_each_gate_of_a_unit():
    teacher = random(networks.lstm())
    student = shrink(teacher, width=0.5)
    kernel, recurrent, bias = weights(teacher, "encoder")
    read, kept = [0, 1, 3, 5, 6, 8], [0, 2, 4]  # of five units 0, 1, 3, in each direction
    assert_equal(
        student,
        "encoder",
        kernel.reshape(10, 4, 6)[read][..., kept].reshape(6, 12),
        recurrent.reshape(6, 4, 6)[kept][..., kept].reshape(3, 12),
        bias.reshape(4, 6)[:, kept].reshape(-1),
    )
    forward = weights(teacher, "both")[2]
    expected = forward.reshape(2, 3, 5)[..., [0, 1, 3]].reshape(2, 9)
    np.testing.assert_array_equal(weights(student, "both")[2], expected)


def test_attention_keeps_whole_heads():
    teacher = random(networks.transformer(1, width=8, heads=4))
    student = shrink(teacher, width=0.5)
    query, query_bias, *_, output, output_bias = weights(teacher, "b0_attention")
    received = weights(student, "b0_attention")
    np.testing.assert_array_equal(received[0], query[::2, ::2])
    np.testing.assert_array_equal(received[1], query_bias[::2])
    np.testing.assert_array_equal(received[-2], output[::2, :, ::2])
    np.testing.assert_array_equal(received[-1], output_bias[::2])
    layer = student.get_layer("b0_attention")
    assert (layer.num_heads, layer.key_dim) == (2, 3)


def test_averages_take_neighbors_together():
    teacher = random(networks.mlp())
    student = shrink(teacher, width=0.4, copy="average")
    groups = [[0, 1, 2], [3, 4], [5, 6, 7], [8, 9], [10, 11]]
    kernel, bias = (value.astype("float64") for value in weights(teacher, "hidden_1"))
    summed = np.stack([kernel[group].sum(axis=0) for group in groups])
    expected = np.stack([summed[:, group].mean(axis=1) for group in groups], axis=1)
    np.testing.assert_allclose(weights(student, "hidden_1")[0], expected, rtol=1e-6)
    mean = [bias[group].mean() for group in groups]
    np.testing.assert_allclose(weights(student, "hidden_1")[1], mean, rtol=1e-6)


def read_axis(weight):
    """The axis along which a kernel reads, or `None`, by its name."""
    is_kernel = weight.path.split("/")[-1] in ("kernel", "recurrent_kernel", "pointwise_kernel")
    if not is_kernel or "depth_" in weight.path:
        return None
    return 0 if "attention" in weight.path else len(weight.shape) - 2


def outputs(model):
    return np.asarray(model(networks.data(model), training=False))


DOUBLED = {
    "mlp": networks.mlp,
    "vgg": networks.vgg,
    "resnet": networks.resnet,
    "mobilenet": lambda: networks.mobilenet(1),
    "transformer": networks.transformer,
    "lstm": lambda: networks.lstm(units=6),
    "nested": networks.nested,
}


@pytest.mark.parametrize("family", DOUBLED)
def test_averages_of_equal_channels_change_nothing(family):
    """Twice the channels, each twice; what reads them has half of the weight for each."""
    teacher = DOUBLED[family]()
    narrow = random(shrink(teacher, width=0.5, copy=None))
    for wide, weight in zip(teacher.weights, narrow.weights, strict=True):
        value = weight.numpy()
        for axis, (size, doubled) in enumerate(zip(weight.shape, wide.shape, strict=True)):
            if doubled == 2 * size:
                value = np.repeat(value, 2, axis) / (2 if axis == read_axis(wide) else 1)
        wide.assign(value)
    expected = outputs(narrow)
    np.testing.assert_allclose(outputs(teacher), expected, rtol=2e-4, atol=1e-5)
    student = shrink(teacher, width=0.5, copy="average")
    for received, weight in zip(student.weights, narrow.weights, strict=True):
        np.testing.assert_allclose(received.numpy(), weight.numpy(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(outputs(student), expected, rtol=2e-4, atol=1e-5)
    assert np.abs(outputs(shrink(teacher, width=0.5)) - expected).max() > 1e-3


@pytest.mark.parametrize("family", ["mlp", "vgg", "resnet", "lstm", "nested"])
def test_slices_without_channels_that_nothing_reads_change_nothing(family):
    teacher = random(DOUBLED[family]())
    before = outputs(teacher)
    narrow = shrink(teacher, width=0.5, copy=None)
    for wide, weight in zip(teacher.weights, narrow.weights, strict=True):
        axis, value = read_axis(wide), wide.numpy()
        if axis is not None and wide.shape[axis] == 2 * weight.shape[axis]:
            np.moveaxis(value, axis, 0)[1::2] = 0
        wide.assign(value)
    expected = outputs(teacher)
    assert np.abs(before - expected).max() > 1e-3
    received = outputs(shrink(teacher, width=0.5))
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def test_new_weights_are_not_the_teachers_but_for_normalization_of_data():
    inputs = keras.Input((4,))
    normalization = layers.Normalization(name="of_data")
    normalization.adapt(np.random.default_rng(0).normal(3.0, 2.0, (50, 4)))
    x = layers.Dense(6, name="hidden")(normalization(inputs))
    teacher = keras.Model(inputs, layers.Dense(2, name="head")(x))
    student = shrink(teacher, width=0.5, copy=None)
    x = np.random.default_rng(1).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(student.get_layer("of_data")(x), normalization(x))
    rows = {row["layer"]: row["how"] for row in kd.students.plan(teacher, width=0.5, copy=None)}
    assert rows == {"of_data": "copied", "hidden": "new", "head": "new"}
    assert np.abs(weights(student, "head")[0] - weights(teacher, "head")[0][::2]).min() > 0


def test_dtype_policies_and_half_precision_weights_stay():
    layer = layers.Dense(8, dtype="mixed_bfloat16", name="mixed")
    half = layers.Dense(8, dtype="bfloat16", name="half")
    head = layers.Dense(2, dtype="float32", name="head")
    teacher = random(keras.Sequential([keras.Input((4,)), layer, half, head]))
    student = shrink(teacher, width=0.5, copy="average")
    assert [layer.dtype_policy.name for layer in student.layers] == [
        "mixed_bfloat16",
        "bfloat16",
        "float32",
    ]
    kernel = np.asarray(half.kernel, "float64")
    expected = kernel.reshape(4, 2, 4, 2).sum(axis=1).mean(axis=2)
    received = np.asarray(student.get_layer("half").kernel, "float64")
    np.testing.assert_allclose(received, expected, rtol=2**-8)


def test_a_frozen_teacher_has_a_student_that_learns():
    teacher = networks.mlp()
    teacher.trainable = False
    student = shrink(teacher, width=0.5)
    assert len(student.trainable_weights) == len(teacher.weights)
    assert teacher.trainable_weights == []
