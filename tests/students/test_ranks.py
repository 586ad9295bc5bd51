"""What is ranked: dead channels and blocks go first, and the rest computes the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_kd as kd
from tests.students import networks

RANKS = ("magnitude", "activation")
# Of 8 and of 12 channels, in no even order.
DEAD = {8: [1, 6], 12: [0, 4, 5]}


def shrink(teacher, rank, **options):
    if rank == "activation":
        options.setdefault("data", networks.data(teacher, rows=6, seed=1))
    return kd.students.shrink(teacher, rank=rank, print_fn=None, **options)


def outputs(model, seed=0):
    return np.asarray(model(networks.data(model, seed=seed), training=False))


def change(model, name, number, where, value=0.0):
    weights = model.get_layer(name).get_weights()
    weights[number][where] = value
    model.get_layer(name).set_weights(weights)


def random_mlp():
    teacher = networks.mlp(depth=2)
    networks.randomize(teacher)
    return teacher


def test_magnitude_is_the_norm_of_what_makes_and_reads_a_channel():
    teacher = random_mlp()
    (kernel, bias), (reader, _) = (
        teacher.get_layer(name).get_weights() for name in ("hidden_0", "hidden_1")
    )
    norms = np.sqrt((kernel**2).sum(axis=0) + bias**2 + (reader**2).sum(axis=1))
    kept = np.sort(np.argsort(-norms)[:7])
    assert kept.tolist() != (np.arange(7) * 12 // 7).tolist()
    student = shrink(teacher, "magnitude", width=7 / 12)
    np.testing.assert_array_equal(student.get_layer("hidden_0").get_weights()[0], kernel[:, kept])
    assert student.get_layer("hidden_1").get_weights()[0].shape == (7, 7)


def test_activation_is_the_mean_absolute_value_of_what_is_read():
    teacher = random_mlp()
    x = np.random.default_rng(3).normal(size=(70, 12)).astype("float32")
    (kernel, bias), _ = (teacher.get_layer(n).get_weights() for n in ("hidden_0", "hidden_1"))
    means = np.maximum(np.float64(x) @ kernel + bias, 0).mean(axis=0)
    kept = np.sort(np.argsort(-means)[:7])
    dataset = tf.data.Dataset.from_tensor_slices((x, np.zeros(70))).batch(20)
    for data in (x, (x, np.zeros(70)), dataset):
        student = shrink(teacher, "activation", width=7 / 12, data=data)
        made = student.get_layer("hidden_0").get_weights()
        np.testing.assert_array_equal(made[0], kernel[:, kept])
        np.testing.assert_array_equal(made[1], bias[kept])


def test_flattened_channels_are_ranked_at_all_positions():
    teacher = networks.vgg()
    networks.randomize(teacher)
    kernel, bias = teacher.get_layer("conv_3").get_weights()
    reader = teacher.get_layer("dense").get_weights()[0].reshape(16, 12, 16)
    squares = (kernel**2).sum(axis=(0, 1, 2)) + bias**2 + (reader**2).sum(axis=(0, 2))
    kept = np.sort(np.argsort(-squares)[:6])
    student = shrink(teacher, "magnitude", width=0.5)
    np.testing.assert_array_equal(student.get_layer("conv_3").get_weights()[1], bias[kept])


def with_dead_channels():
    """A residual network; some channels of each tied group are always zero, and read by zeros."""
    teacher = networks.resnet(blocks=2)
    networks.randomize(teacher)
    for layer in teacher.layers:
        if isinstance(layer, layers.BatchNormalization):
            for number in range(3):  # gamma, beta and the moving mean
                change(teacher, layer.name, number, DEAD[layer.gamma.shape[0]])
        if isinstance(layer, layers.Conv2D):
            made, read = layer.filters, layer.kernel.shape[-2]
            change(teacher, layer.name, 0, (..., DEAD[made]))
            if read in DEAD:
                change(teacher, layer.name, 0, (slice(None), slice(None), DEAD[read]))
    change(teacher, "head", 0, DEAD[12])
    return teacher


@pytest.mark.parametrize("rank", RANKS)
def test_without_dead_channels_it_computes_the_same(rank):
    teacher = with_dead_channels()
    before = [weight.numpy() for weight in teacher.weights]
    student = shrink(teacher, rank, width=0.75)
    assert [student.get_layer(name).filters for name in ("stem_conv", "s1b1_0_conv")] == [6, 9]
    np.testing.assert_allclose(outputs(student), outputs(teacher), rtol=1e-4, atol=1e-5)
    evenly = kd.students.shrink(teacher, width=0.75, print_fn=None)
    assert np.abs(outputs(evenly) - outputs(teacher)).max() > 1e-3
    for value, weight in zip(before, teacher.weights, strict=True):
        np.testing.assert_array_equal(value, weight.numpy())


@pytest.mark.parametrize("rank", RANKS)
def test_a_dead_head_goes(rank):
    teacher = networks.transformer(1, width=8, heads=4)
    networks.randomize(teacher)
    for number, where in ((4, np.s_[:, 2]), (5, np.s_[2]), (6, np.s_[2])):  # value, output
        change(teacher, "b0_attention", number, where)
    if rank == "magnitude":
        for number, where in ((0, np.s_[:, 2]), (1, np.s_[2]), (2, np.s_[:, 2]), (3, np.s_[2])):
            change(teacher, "b0_attention", number, where)
    student = shrink(teacher, rank, width=0.75)
    bias = teacher.get_layer("b0_attention").get_weights()[1]
    made = student.get_layer("b0_attention").get_weights()[1]
    np.testing.assert_array_equal(made, bias[[0, 1, 3]])


@pytest.mark.parametrize("rank", RANKS)
def test_a_block_that_adds_nothing_goes(rank, tmp_path):
    teacher = networks.transformer(3)
    networks.randomize(teacher)
    for name, numbers in (("b1_attention", (6, 7)), ("b1_down", (0, 1))):
        for number in numbers:
            change(teacher, name, number, ...)
    student = shrink(teacher, rank, depth=0.67)
    names = [layer.name for layer in student.layers]
    assert "b1_down" not in names
    assert {"b0_down", "b2_down"} <= set(names)
    np.testing.assert_allclose(outputs(student), outputs(teacher), rtol=1e-5, atol=1e-5)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(outputs(loaded), outputs(student))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("family", ["densenet", "mobilenet", "lstm", "nested"])
def test_other_layers_are_ranked(family, rank):
    """Concatenations, groups, gates and nested models: what each student's weights are."""
    teacher = networks.FAMILIES[family]()
    networks.randomize(teacher)
    student, evenly = (
        shrink(teacher, rank, width=0.5),
        kd.students.shrink(teacher, width=0.5, print_fn=None),
    )
    assert [w.shape for w in student.weights] == [w.shape for w in evenly.weights]
    pairs = list(zip(student.weights, evenly.weights, strict=True))
    assert any((one.numpy() != two.numpy()).any() for one, two in pairs)
    # Every number is one of the teacher's: nothing was averaged.
    for weight in student.weights:
        of_teacher = next(w for w in teacher.weights if w.path == weight.path)
        assert np.isin(weight.numpy(), of_teacher.numpy()).all(), weight.path


def test_masked_steps_do_not_count():
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(networks.TOKENS, 8, mask_zero=True, name="embedding")(tokens)
    x = layers.Dense(8, activation="relu", name="dense")(x)
    teacher = keras.Model(tokens, layers.Dense(3, name="head")(layers.LSTM(4, name="lstm")(x)))
    networks.randomize(teacher)
    short = np.array([[3, 7, 2, 0, 0, 0], [5, 5, 0, 0, 0, 0]], "int32")
    rows = teacher.get_layer("embedding").get_weights()[0][short[short != 0]]
    kernel, bias = teacher.get_layer("dense").get_weights()
    means = np.maximum(rows @ kernel + bias, 0).mean(axis=0)
    kept = np.sort(np.argsort(-means)[:4])
    student = shrink(teacher, "activation", width=0.5, data=short)
    np.testing.assert_array_equal(student.get_layer("dense").get_weights()[1], bias[kept])


def test_a_plan_says_what_goes():
    teacher = networks.mlp()
    networks.randomize(teacher)
    rows = kd.students.plan(teacher, depth=0.5, width=0.5, rank="magnitude")
    named = {row["layer"]: row for row in rows}
    assert sum(row["teacher_bytes"] for row in rows) == 4 * teacher.count_params()
    student = shrink(teacher, "magnitude", depth=0.5, width=0.5)
    assert sum(row["student_bytes"] for row in rows) == 4 * student.count_params()
    removed = [row for row in rows if row["how"] == "removed"]
    assert [row["student_bytes"] for row in removed] == [0, 0]
    norms = {f"hidden_{i}": _norm(teacher, f"hidden_{i}") for i in range(4)}
    for row in removed:
        share = norms[row["layer"]] / sum(norms.values())
        np.testing.assert_allclose(row["importance_lost"], share, atol=1e-4)
    assert named["head"]["importance_lost"] == 0
    assert 0 < next(x for x in rows if x["how"] == "sliced")["importance_lost"] < 1
    assert named["head"]["teacher_macs"] == 12 * networks.CLASSES
    assert named["head"]["student_macs"] == 6 * networks.CLASSES
    # Calls without a rank have the columns they had.
    assert list(kd.students.plan(teacher, width=0.5)[0]) == [
        "layer",
        "teacher_shape",
        "student_shape",
        "how",
    ]


def _norm(model, name):
    return np.sqrt(sum((value**2).sum() for value in model.get_layer(name).get_weights()))


def test_endless_data():
    data = tf.data.Dataset.from_tensors(np.ones((2, 12), "float32")).repeat()
    with pytest.raises(ValueError, match=r"`data` never ends. Limit it: .take"):
        shrink(networks.mlp(), "activation", width=0.5, data=data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": "size"}, r"`rank`. Expected one of \('position', 'magnitude', 'activation'\)"),
        ({"rank": "activation"}, r"ranks by `data`.*Pass some hundred samples"),
        ({"rank": "magnitude", "data": np.ones((2, 12))}, r"`data` is read by rank='activation'"),
        ({"data": np.ones((2, 12))}, r"rank='position', data=ndarray of shape \(2, 12\)"),
        ({"rank": "activation", "data": np.ones((2, 3))}, r"inputs of the shapes \[\(None, 12\)\]"),
        ({"rank": "activation", "data": np.ones((0, 12))}, "at least one batch"),
        ({"rank": "activation", "data": "digits"}, r"arrays, \(inputs, labels\), or a batched"),
        ({"rank": "magnitude", "copy": "average"}, r"Pass copy='slice', or rank='position'"),
        (
            {"rank": "activation", "data": np.full((2, 12), np.nan, "float32")},
            "are not finite: nothing can be ranked",
        ),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        kd.students.shrink(networks.mlp(), width=0.5, print_fn=None, **options)
