"""The losses between whole batches, attention maps and logits, against NumPy in float64."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.losses import checks

RNG = np.random.default_rng(1)


def huber(d):
    return np.where(np.abs(d) < 1, d * d / 2, np.abs(d) - 0.5)


def relative_distances(f):
    f = f.reshape(len(f), -1)
    d = np.array([[np.linalg.norm(a - b) for b in f] for a in f])
    others = len(f) * (len(f) - 1)
    return d / (d.sum() / others) if d.sum() else d


def relational_distance(t, s):
    values = huber(relative_distances(t) - relative_distances(s))
    return values.sum(1) / max(len(t) - 1, 1)


def cosine(a, b):
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / size if size else 0.0


def relational_angle(t, s):
    t, s = (x.reshape(len(x), -1) for x in (t, s))
    n = len(t)
    values = np.zeros(n)
    for j, i, k in itertools.product(range(n), repeat=3):
        if i != k:
            angles = [cosine(x[i] - x[j], x[k] - x[j]) for x in (t, s)]
            values[j] += huber(angles[0] - angles[1])
    return values / max((n - 1) * (n - 2), 1)


def similarity_preserving(t, s):
    def similarities(f):
        rows = f.reshape(len(f), -1)
        gram = rows @ rows.T
        return gram / np.linalg.norm(gram, axis=1, keepdims=True)

    return ((similarities(t) - similarities(s)) ** 2).mean(1)


def attention_transfer(power):
    def direction(f):
        flat = (np.abs(f) ** power).mean(-1).reshape(len(f), -1)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    return lambda t, s: ((direction(t) - direction(s)) ** 2).sum(1)


def maps_of(f):
    return np.moveaxis(f, -1, 1).reshape(len(f), f.shape[-1], -1)


def channel_wise(t, s):
    p, q = (checks.softmax(maps_of(x) / 4.0) for x in (t, s))
    return 16.0 * (p * np.log(p / q)).sum(-1).mean(-1)


def neuron_selectivity(t, s):
    t, s = (maps_of(x) / np.linalg.norm(maps_of(x), axis=-1, keepdims=True) for x in (t, s))

    def kernel(a, b):
        return ((a @ np.swapaxes(b, 1, 2)) ** 2).mean((1, 2))

    return kernel(t, t) + kernel(s, s) - 2 * kernel(t, s)


def probabilistic_transfer(t, s):
    def neighbors(f, i):
        f = f.reshape(len(f), -1)
        kernel = [(cosine(f[i], f[j]) + 1) / 2 + 1e-7 for j in range(len(f)) if j != i]
        return np.array(kernel) / sum(kernel)

    pairs = [(neighbors(t, i), neighbors(s, i)) for i in range(len(t))]
    return np.array([(p * np.log(p / q)).sum() for p, q in pairs])


def dist(t, s):
    p, q = checks.softmax(t / 2.0), checks.softmax(s / 2.0)
    inter = np.array([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    return 4.0 * (0.5 * inter + 2.0 * intra)


def logits_mse(t, s):
    return ((t - s) ** 2).mean(-1)


# Loss, truth, shapes of the teacher's and the student's features.
CASES = {
    "distance": (kd.losses.RelationalDistance, relational_distance, (5, 7), (5, 3)),
    "distance of images": (
        kd.losses.RelationalDistance,
        relational_distance,
        (4, 2, 3, 2),
        (4, 2, 2, 1),
    ),
    "distance, one row": (kd.losses.RelationalDistance, relational_distance, (1, 4), (1, 4)),
    "angle": (kd.losses.RelationalAngle, relational_angle, (5, 7), (5, 3)),
    "angle, two rows": (kd.losses.RelationalAngle, relational_angle, (2, 4), (2, 3)),
    "similarity": (kd.losses.SimilarityPreserving, similarity_preserving, (5, 7), (5, 3)),
    "similarity of images": (
        kd.losses.SimilarityPreserving,
        similarity_preserving,
        (3, 2, 2, 4),
        (3, 4, 4, 2),
    ),
    "attention": (
        lambda: kd.losses.AttentionTransfer("t", "s"),
        attention_transfer(2),
        (3, 4, 5, 6),
        (3, 4, 5, 2),
    ),
    "attention, power 3": (
        lambda: kd.losses.AttentionTransfer("t", "s", power=3),
        attention_transfer(3),
        (3, 2, 2, 3),
        (3, 2, 2, 3),
    ),
    "channels": (kd.losses.ChannelWise, channel_wise, (2, 3, 4, 5), (2, 3, 4, 5)),
    "neurons": (kd.losses.NeuronSelectivity, neuron_selectivity, (2, 3, 4, 5), (2, 3, 4, 2)),
    "neighbors": (kd.losses.ProbabilisticTransfer, probabilistic_transfer, (5, 7), (5, 3)),
    "neighbors, two rows": (
        kd.losses.ProbabilisticTransfer,
        probabilistic_transfer,
        (2, 3),
        (2, 3),
    ),
    "correlation": (
        lambda: kd.losses.DIST(2.0, inter_class=0.5, intra_class=2.0),
        dist,
        (6, 5),
        (6, 5),
    ),
    "logits": (kd.losses.LogitsMSE, logits_mse, (4, 6), (4, 6)),
    "logits of sequences": (kd.losses.LogitsMSE, logits_mse, (2, 3, 6), (2, 3, 6)),
}


@pytest.mark.parametrize("mode", checks.MODES)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, mode):
    checks.values_and_gradients(*CASES[name], mode)


@pytest.mark.parametrize("name", CASES)
def test_values_in_half_precision(name):
    checks.values_in_half_precision(*CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_zero_and_a_zero_gradient_where_both_are_equal(name):
    make, _, shape, _ = CASES[name]
    checks.zero_at_equality(make, shape)


@pytest.mark.parametrize("name", CASES)
def test_rows_that_are_equal_or_zero_give_finite_gradients(name):
    make, _, teacher_shape, student_shape = CASES[name]
    checks.finite_at_zero(make, teacher_shape, student_shape)


@pytest.mark.parametrize("name", ["distance", "angle", "similarity", "neighbors", "correlation"])
def test_the_order_of_the_rows_does_not_matter(name):
    make, _, teacher_shape, student_shape = CASES[name]
    teacher = RNG.normal(size=teacher_shape).astype("float32")
    student = RNG.normal(size=student_shape).astype("float32")
    order = RNG.permutation(len(teacher))
    loss = make()
    np.testing.assert_allclose(
        loss(teacher[order], student[order]), loss(teacher, student).numpy()[order], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("teacher", "student"), [((2, 4, 4, 3), (2, 8, 8, 5)), ((2, 7, 7, 3), (2, 5, 5, 5))]
)
def test_attention_maps_of_other_sizes_are_resized(teacher, student):
    loss = kd.losses.AttentionTransfer("t", "s")
    features = [RNG.normal(size=shape).astype("float32") for shape in (teacher, student)]
    value = loss(*features)
    maps = [(np.float64(each) ** 2).mean(-1, keepdims=True) for each in features]
    if student[1] == 8:
        small = maps[1].reshape(2, 4, 2, 4, 2, 1).mean(axis=(2, 4))
    else:
        small = tf.image.resize(maps[1], (7, 7)).numpy()
    directions = [
        m.reshape(2, -1) / np.linalg.norm(m.reshape(2, -1), axis=1)[:, None]
        for m in (maps[0], small)
    ]
    np.testing.assert_allclose(value, ((directions[0] - directions[1]) ** 2).sum(1), rtol=1e-5)
    assert not loss.trainable_weights


@pytest.mark.parametrize(
    ("make", "teacher", "student", "message"),
    [
        (kd.losses.RelationalDistance, (2, 3, 4), (2, 4), r"\(2, 3, 4\) from the teacher.*Pool"),
        (kd.losses.RelationalAngle, (2, 4), (2, 3, 4), r"\(2, 3, 4\) from the student"),
        (kd.losses.SimilarityPreserving, (2,), (2, 4), r"shape \(2,\) from the teacher"),
        (CASES["attention"][0], (2, 4), (2, 4, 4, 3), r"compares images.*teacher \(2, 4\)"),
        (kd.losses.ChannelWise, (2, 4), (2, 4, 4, 3), r"compares images.*teacher \(2, 4\)"),
        (kd.losses.NeuronSelectivity, (2, 4, 4, 3), (2, 3), r"compares images.*student \(2, 3\)"),
        (kd.losses.ProbabilisticTransfer, (2, 3, 4), (2, 4), r"Pool a sequence"),
        (kd.losses.DIST, (2, 4), (2, 5), r"teacher \(2, 4\), student \(2, 5\)"),
        (kd.losses.LogitsMSE, (2, 4), (2, 5), r"teacher \(2, 4\), student \(2, 5\)"),
        (kd.losses.LogitsMSE, (2, 3, 4), (2, 4), "logits of one shape"),
    ],
)
def test_wrong_shapes(make, teacher, student, message):
    with pytest.raises(ValueError, match=message):
        make()(np.ones(teacher, "float32"), np.ones(student, "float32"))


@pytest.mark.parametrize("power", [0, -1, "2", None])
def test_wrong_powers(power):
    with pytest.raises(ValueError, match=f"power={power!r}"):
        kd.losses.AttentionTransfer("t", "s", power=power)


def test_a_channel_wise_loss_projects_and_its_temperature_is_live():
    loss = kd.losses.ChannelWise(2.0)
    features = [RNG.normal(size=shape).astype("float32") for shape in ((2, 4, 4, 6), (2, 8, 8, 3))]
    before = loss(*features).numpy()
    assert [type(each).__name__ for each in loss.projection_layers] == [
        "AveragePooling2D",
        "Conv2D",
    ]
    assert len(loss.trainable_weights) == 2
    loss.temperature = 50.0
    assert np.abs(loss(*features) - before).max() > 1e-3
    with pytest.raises(ValueError, match="temperature"):
        loss.temperature = 0.0


@pytest.mark.parametrize("option", ["inter_class", "intra_class"])
def test_wrong_factors_of_dist(option):
    with pytest.raises(ValueError, match=f"`{option}`.*{option}=-1"):
        kd.losses.DIST(**{option: -1})


def network(filters):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(filters, 3, activation="relu", name="convolution"),
            keras.layers.GlobalAveragePooling2D(name="pooled"),
            keras.layers.Dense(4),
        ]
    )


@pytest.mark.parametrize("kind", [kd.losses.AttentionTransfer, kd.losses.NeuronSelectivity])
@pytest.mark.parametrize("size", [4, 7])
def test_resized_maps_keep_float32_under_mixed_precision(kind, size):
    teacher = RNG.normal(size=(2, size, size, 3)).astype("float32")
    student = RNG.normal(size=(2, 8, 8, 5)).astype("float32")
    expected = kind(teacher_layer="t", student_layer="s")(teacher, student)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        found = kind(teacher_layer="t", student_layer="s")(teacher, student)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(found, expected)


LAYERS = {
    kd.losses.AttentionTransfer: "convolution",
    kd.losses.RelationalDistance: "pooled",
    kd.losses.RelationalAngle: "pooled",
    kd.losses.SimilarityPreserving: "convolution",
    kd.losses.ChannelWise: "convolution",
    kd.losses.NeuronSelectivity: "convolution",
    kd.losses.ProbabilisticTransfer: "pooled",
    kd.losses.DIST: None,
    kd.losses.LogitsMSE: None,
}


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)
def test_fit_lowers_it_and_a_saved_distiller_has_it(kind, policy, tmp_path):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        layer = LAYERS[kind]
        loss = kind(teacher_layer=layer, student_layer=layer, name="relation")
        distiller = kd.Distiller(network(8), network(3), [loss], alpha=0.0)
        distiller.compile(
            keras.optimizers.Adam(0.01),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        x = RNG.normal(size=(64, 8, 8, 1)).astype("float32")
        y = RNG.integers(0, 4, 64)
        history = distiller.fit(x, y, epochs=15, batch_size=32, verbose=0).history["relation"]
        assert history[-1] < 0.8 * history[0]
        distiller.save(tmp_path / "distiller.keras")
        loaded = keras.saving.load_model(tmp_path / "distiller.keras")
        assert loaded.distillation_losses[0].get_config() == loss.get_config()
        assert type(loaded.distillation_losses[0]) is kind
    finally:
        keras.config.set_dtype_policy("float32")


def test_least_rows_of_a_subclass_raises_with_its_new_name():
    with pytest.raises(TypeError, match="Received: least_rows=3") as caught:

        class Former(kd.losses.DistillationLoss):
            least_rows = 3

    remedy = str(caught.value).rpartition("Write ")[2].removesuffix(" instead.")
    name, _, value = remedy.partition(" = ")
    renamed = type("Renamed", (kd.losses.DistillationLoss,), {name: int(value)})()
    assert renamed.min_batch_size == 3


def test_least_rows_of_an_instance_raises_with_its_new_name():
    class Former(kd.losses.DistillationLoss):
        def __init__(self):
            super().__init__()
            self.least_rows = 2

    with pytest.raises(TypeError, match="Write min_batch_size = 2 instead"):
        Former()
    with pytest.raises(AttributeError, match="min_batch_size"):
        _ = kd.losses.SoftTargets().least_rows
