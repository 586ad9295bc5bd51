"""`add_exits`: the model's own layers, with classifiers on them."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from tests.distiller import linear
from tests.students import networks


def model(activation=None):
    stages = [
        layers.Conv2D(4, 3, activation="relu", padding="same", name="first"),
        layers.Conv2D(6, 3, activation="relu", padding="same", name="second"),
    ]
    head = [layers.Flatten(name="flat"), layers.Dense(5, activation=activation, name="head")]
    return keras.Sequential([keras.Input((6, 6, 2)), *stages, *head], name="net")


def test_an_exit_is_a_mean_and_a_dense_layer():
    net = model()
    with_exits = kd.students.add_exits(net, ["second", "first"])
    x = networks.data(net)
    outputs = with_exits(x)
    assert sorted(outputs) == ["exit_first", "exit_second", "final"]
    assert sorted(with_exits.output_names) == sorted(outputs)
    np.testing.assert_array_equal(outputs["final"], net(x))
    hidden = np.asarray(keras.Model(net.inputs[0], net.get_layer("first").output)(x), "float64")
    kernel, bias = with_exits.get_layer("exit_first").get_weights()
    expected = hidden.mean(axis=(1, 2)) @ kernel + bias
    np.testing.assert_allclose(outputs["exit_first"], expected, rtol=1e-5, atol=1e-6)
    assert with_exits.name == "net_exits"
    assert {id(weight) for weight in net.weights} < {id(weight) for weight in with_exits.weights}


def test_exits_of_other_ranks_types_and_sizes():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        net = networks.transformer()
    finally:
        keras.config.set_dtype_policy("float32")
    with_exits = kd.students.add_exits(net, "b0_down", num_classes=7, name="other")
    outputs = with_exits(networks.data(net))
    assert outputs["exit_b0_down"].shape == (3, 7)
    assert outputs["exit_b0_down"].dtype == "float32"
    assert with_exits.name == "other"
    first = {"data_format": "channels_first"}
    inputs = keras.Input((2, 4, 4))
    x = layers.Activation("relu", name="act")(inputs)
    x = layers.MaxPooling2D(name="pool", **first)(x)
    net = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    assert kd.students.add_exits(net, "pool").get_layer("exit_pool").kernel.shape == (2, 3)


def test_padding_is_left_out_of_the_mean():
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(9, 3, mask_zero=True, name="embedding")(tokens)
    net = keras.Model(tokens, layers.Dense(2)(layers.LSTM(3)(x)))
    with_exits = kd.students.add_exits(net, "embedding")
    a, b = (with_exits(np.array([row]))["exit_embedding"] for row in ([1, 2], [1, 2, 0, 0]))
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_model_learns_from_its_own_last_layer(tmp_path):
    """All exits learn together, and the model with them; saved and loaded."""
    net = model()
    with_exits = kd.students.add_exits(net, ["first", "second"])
    x = networks.data(net, 32)
    y = np.asarray(x[:, :, :, 0].mean(axis=(1, 2)) > 0, "int32")
    before = net.get_layer("first").get_weights()[0]
    loss = linear.from_logits()
    with_exits.compile(
        keras.optimizers.Adam(0.02),
        loss=dict.fromkeys(with_exits.output_names, loss),
        jit_compile=False,
    )
    targets = dict.fromkeys(with_exits.output_names, y)
    history = with_exits.fit(x, targets, epochs=15, verbose=0).history
    for name in with_exits.output_names:
        assert history[f"{name}_loss"][-1] < 0.9 * history[f"{name}_loss"][0]
    assert np.abs(net.get_layer("first").get_weights()[0] - before).max() > 0.01
    with_exits.save(tmp_path / "exits.keras")
    loaded = keras.saving.load_model(tmp_path / "exits.keras")
    for name, value in loaded(x).items():
        np.testing.assert_allclose(value, with_exits(x)[name], rtol=1e-5, atol=1e-5)


def test_exits_of_a_nested_model_and_of_layers_that_another_model_uses():
    inputs, own = keras.Input((6, 6, 2)), keras.Input((6, 6, 2))
    net = model()
    features = keras.Model(net.inputs[0], net.get_layer("second").output, name="features")
    x = layers.GlobalAveragePooling2D(name="mean")(features(inputs))
    outer = keras.Model(inputs, layers.Dense(3, name="last")(x))
    outputs = kd.students.add_exits(outer, ["features", "mean"])(networks.data(outer))
    assert outputs["exit_features"].shape == outputs["final"].shape == (3, 3)
    x = layers.Dense(3)(layers.Flatten()(net.get_layer("first")(own)))
    with_exits = kd.students.add_exits(keras.Model(own, x), "first")
    assert with_exits.get_layer("first") is net.get_layer("first")


def several_outputs():
    net = model()
    return keras.Model(net.inputs, [net.outputs[0], net.get_layer("flat").output])


def around():
    inputs = keras.Input((6, 6, 2))
    return keras.Model(inputs, layers.Dense(3)(model()(inputs)), name="outer")


def shared():
    layer, inputs = layers.Dense(4, name="shared"), keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2)(layer(layer(inputs))))


def named_final():
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="first")(inputs)
    return keras.Model(inputs, layers.Dense(2, name="final")(x))


def by_pixel():
    net = model()
    return keras.Model(net.inputs, net.get_layer("second").output)


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("made", "exits", "message"),
    [
        (model, ["frist"], r"no layer 'frist'.*'first'"),
        (lambda: model("softmax"), ["first"], r"'net' ends in softmax.*activation=None"),
        (lambda: model("sigmoid"), ["first"], r"'net' ends in sigmoid"),
        (Subclassed, ["first"], r"Expected a functional keras.Model.*Subclassed"),
        (several_outputs, ["first"], r"has 2 outputs; exits learn from one"),
        (around, ["net/first"], r"'net/first' is nested.*exits to the nested one"),
        (around, ["first"], r"'first' is nested"),
        (shared, ["shared"], r"'shared' is called several times"),
        (model, ["head"], r"'head' gives the output of model 'net'"),
        (model, ["first", "first"], r"`layers`.*each once"),
        (model, [], r"`layers`"),
        (named_final, ["first"], r"called \['final'\].*Rename"),
        (by_pixel, ["first"], r"gives \(None, 6, 6, 6\).*whole samples"),
    ],
)
def test_errors(made, exits, message):
    with pytest.raises(ValueError, match=message):
        kd.students.add_exits(made(), exits)


def test_the_number_of_classes_is_checked():
    with pytest.raises(ValueError, match=r"num_classes=0"):
        kd.students.add_exits(model(), "first", num_classes=0)
