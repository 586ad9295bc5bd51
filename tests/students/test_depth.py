"""Which blocks a student keeps."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from tests.students import networks
from tests.taps.networks import WIDTH, Encoder


def shrink(teacher, **kwargs):
    return kd.students.shrink(teacher, print_fn=None, **kwargs)


def names(model, pattern=""):
    return [layer.name for layer in model.layers if layer.name.startswith(pattern)]


def removed(teacher, **kwargs):
    rows = kd.students.plan(teacher, **kwargs)
    return [row["layer"] for row in rows if row["how"] == "removed"]


def outputs(model):
    return np.asarray(model(networks.data(model), training=False))


def test_every_second_transformer_block_stays():
    teacher = networks.transformer(6)
    networks.randomize(teacher)
    student = shrink(teacher, depth=0.5)
    expected = networks.transformer(3)
    kept = {"b0": "b0", "b1": "b2", "b2": "b4"}
    for layer in expected.layers:
        block, _, rest = layer.name.partition("_")
        name = f"{kept[block]}_{rest}" if block in kept else layer.name
        assert name in names(student) or not layer.weights
        layer.set_weights(teacher.get_layer(name).get_weights())
    assert len(student.layers) == len(expected.layers)
    np.testing.assert_allclose(outputs(student), outputs(expected), rtol=1e-5, atol=1e-6)
    assert all(name.split("_")[0] in ("b1", "b3", "b5") for name in removed(teacher, depth=0.5))


def test_blocks_by_their_numbers():
    teacher = networks.transformer(6)
    networks.randomize(teacher)
    rows = kd.students.plan(teacher, layers=[0, 3, -1])
    gone = {row["layer"].partition("_")[0] for row in rows if row["how"] == "removed"}
    assert gone == {"b1", "b2", "b4"}
    # Those that `depth` would keep.
    by_depth, named = shrink(teacher, depth=0.5), shrink(teacher, layers=[0, 2, 4])
    np.testing.assert_array_equal(outputs(named), outputs(by_depth))
    assert [layer.name for layer in named.layers] == [layer.name for layer in by_depth.layers]
    assert names(shrink(networks.mlp(depth=4), layers=[1, 3])) == ["hidden_1", "hidden_3", "head"]


def test_numbers_need_one_kind_of_blocks():
    with pytest.raises(ValueError, match=r"of which it has 2 kinds instead of one. Found .*s0b0"):
        kd.students.plan(networks.resnet(4), layers=[0])
    with pytest.raises(ValueError, match=r"numbers of the 4 blocks, .* to 3. Received: layers="):
        kd.students.plan(networks.mlp(depth=4), layers=[4])
    with pytest.raises(ValueError, match="a list of numbers of the 4 blocks"):
        kd.students.plan(networks.mlp(depth=4), layers={"encoder": [0]})


@pytest.mark.parametrize(("depth", "kept"), [(0.1, "0"), (0.25, "0"), (0.5, "02"), (0.75, "012")])
def test_the_number_of_blocks_that_stay(depth, kept):
    student = shrink(networks.mlp(depth=4), depth=depth)
    assert names(student) == [*(f"hidden_{i}" for i in kept), "head"]


def test_residual_blocks_of_each_stage():
    teacher = networks.resnet(4)
    networks.randomize(teacher)
    student = shrink(teacher, depth=0.5)
    adds = [name for name in names(student) if name.endswith("_add")]
    # The second stage's first block, with a projection, is one of its kind; of three two stay.
    assert adds == ["s0b0_add", "s0b2_add", "s1b0_add", "s1b1_add", "s1b2_add"]
    assert outputs(student).shape == outputs(teacher).shape
    both = shrink(teacher, depth=0.5, width=0.5)
    assert both.get_layer("s0b2_1_conv").filters == 4
    assert len(both.layers) == len(student.layers)


def convolutions(*filters):
    stem = [keras.Input((8, 8, 3))]
    for i, count in enumerate(filters):
        stem += [
            layers.Conv2D(count, 3, padding="same", name=f"conv_{i}"),
            layers.BatchNormalization(name=f"norm_{i}"),
            layers.ReLU(name=f"relu_{i}"),
        ]
    return keras.Sequential([*stem, layers.GlobalAveragePooling2D(), layers.Dense(2, name="head")])


def test_a_convolution_goes_with_its_own_normalization():
    """Although normalization, activation, convolution repeats as often."""
    assert removed(convolutions(4, 4, 4), depth=0.5) == ["conv_2", "norm_2"]
    assert removed(convolutions(4, 4, 4, 4, 6, 6, 6), depth=0.5) == [
        "conv_3",
        "norm_3",
        "conv_6",
        "norm_6",
    ]


def test_a_mask_that_all_blocks_read_is_no_obstacle():
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    mask = keras.Input((6,), dtype="bool", name="mask")
    x = layers.Embedding(9, 8, name="embedding")(tokens)
    pairs = layers.Reshape((1, 6), name="pairs")(mask)
    for i in range(4):
        y = layers.MultiHeadAttention(2, 4, name=f"attention_{i}")(x, x, attention_mask=pairs)
        x = layers.LayerNormalization(name=f"norm_{i}")(layers.Add(name=f"add_{i}")([x, y]))
    teacher = keras.Model([tokens, mask], layers.Dense(2, name="head")(x))
    student = shrink(teacher, depth=0.5, width=0.5)
    assert names(student, "attention") == ["attention_0", "attention_2"]
    assert student.count_params() < teacher.count_params() / 2


def test_blocks_of_an_encoder_and_of_a_decoder_that_reads_it():
    source, target = keras.Input((5, 8), name="source"), keras.Input((3, 8), name="target")
    x, y = source, target
    for i in range(2):
        x = layers.Add(name=f"e{i}")([x, layers.MultiHeadAttention(2, 4, name=f"ea{i}")(x, x)])
    for i in range(2):
        y = layers.Add(name=f"d{i}")([y, layers.MultiHeadAttention(2, 4, name=f"da{i}")(y, x)])
    teacher = keras.Model([source, target], layers.Dense(2, name="head")(y))
    assert sorted(removed(teacher, depth=0.5)) == ["da1", "ea1"]
    student = shrink(teacher, depth=0.5)
    assert outputs(student).shape == (3, 3, 2)


def test_custom_layers_and_nested_models_are_blocks():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(9, WIDTH, name="embedding")(tokens)
    for i in range(4):
        x = Encoder(2, name=f"encoder_{i}")(x)
    for i in range(3):
        inner = keras.Input((6, WIDTH))
        y = layers.Dense(WIDTH, name=f"inner_{i}")(inner)
        x = keras.Model(inner, layers.Add(name=f"sum_{i}")([inner, y]), name=f"block_{i}")(x)
    teacher = keras.Model(tokens, layers.Dense(2, name="head")(x))
    student = shrink(teacher, depth=0.34)
    assert [name for name in names(student) if "_" in name and "input" not in name] == [
        "encoder_0",
        "block_0",
    ]
    for name in ("encoder_0", "block_0"):
        for a, b in zip(
            teacher.get_layer(name).weights, student.get_layer(name).weights, strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_blocks_within_a_nested_model():
    inputs = keras.Input((8,))
    teacher = keras.Model(inputs, layers.Dense(3, name="last")(networks.mlp(8, 4)(inputs)))
    inside = teacher.layers[1].name
    assert removed(teacher, depth=0.5) == [f"{inside}/hidden_1", f"{inside}/hidden_3"]
    student = shrink(teacher, depth=0.5)
    assert names(student.get_layer(inside)) == ["hidden_0", "hidden_2", "head"]


def test_blocks_with_layers_to_keep_stay():
    teacher = networks.mlp(depth=4)
    assert removed(teacher, depth=0.5, keep=["hidden_3"]) == ["hidden_1"]


def test_dropout_that_rises_with_the_depth_makes_no_other_block():
    hidden = []
    for i in range(4):
        hidden += [layers.Dense(8, name=f"d{i}"), layers.Dropout(i / 10, seed=i, name=f"drop{i}")]
    teacher = keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(2, name="head")])
    student = shrink(teacher, depth=0.5)
    assert names(student) == ["d0", "drop0", "d2", "drop2", "head"]
    assert student.get_layer("drop2").rate == 0.2


def test_different_activations_are_different_blocks():
    activations = ["relu", "relu", "tanh", "tanh"]
    hidden = [layers.Dense(8, activation=a, name=f"d{i}") for i, a in enumerate(activations)]
    teacher = keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(2, name="head")])
    assert removed(teacher, depth=0.5) == ["d1", "d3"]


def test_a_shared_layer_is_no_block():
    shared, inputs = layers.Dense(4, name="shared"), keras.Input((4,))
    teacher = keras.Model(inputs, layers.Dense(2)(shared(shared(shared(inputs)))))
    with pytest.raises(ValueError, match=r"can be removed for depth=0.5: no two blocks"):
        shrink(teacher, depth=0.5)


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        (networks.densenet, {"depth": 0.5}, r"no two blocks of equal structure.*depth=1.0"),
        (networks.mlp, {"depth": 0.9}, r"all would stay.*'hidden_0': 4.*smaller depth"),
        (networks.mlp, {"depth": 0.0}, r"`depth`. Expected a number above 0 and at most 1"),
        (networks.mlp, {"depth": "half"}, r"Received: depth='half'"),
    ],
)
def test_errors(teacher, options, message):
    with pytest.raises(ValueError, match=message):
        shrink(teacher(), **options)
