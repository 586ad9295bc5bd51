"""Losses between features that own weights, and those of transformers, against float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.losses import checks
from tests.taps import networks


@checks.of_loss
def variational(loss, t, s):
    x = s
    for layer in loss.mean_layers:
        kernel, bias = (np.float64(w).reshape(-1, w.shape[-1]) for w in layer.get_weights())
        x = x @ kernel + bias[:, 0] if bias.shape[-1] == 1 else x @ kernel + bias
        if layer.name == "hidden":
            x = np.maximum(x, 0)
    variance = np.log1p(np.exp(np.float64(loss.raw_variance.numpy()))) + 1e-5
    values = 0.5 * ((t - x) ** 2 / variance + np.log(variance)).mean(-1)
    return values.mean((1, 2)) if values.ndim == 3 else values


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def embeddings(loss, t, s):
    t, s = (x.mean((1, 2)) if x.ndim == 4 else x for x in (t, s))
    heads = [
        [np.float64(w) for w in h.get_weights()] for h in (loss.teacher_head, loss.student_head)
    ]
    return [unit(x @ kernel + bias) for x, (kernel, bias) in zip((t, s), heads, strict=True)]


@checks.of_loss
def infonce(loss, t, s):
    t, s = embeddings(loss, t, s)
    g = s @ t.T / 0.5
    return np.log(np.exp(g).sum(1)) - np.diag(g)


@checks.of_loss
def nce(loss, t, s):
    t, s = embeddings(loss, t, s)
    e = np.exp(s @ t.T / 0.5)
    h = e / (e + (len(t) - 1) / 50)
    others = ~np.eye(len(t), dtype=bool)
    return -np.log(np.diag(h)) - (np.log(1 - h) * others).sum(1)


def contrastive(**options):
    return lambda: kd.losses.ContrastiveRepresentation(width=4, temperature=0.5, **options)


def hidden(normalize):
    def truth(t, s):
        if normalize:
            t, s = ((x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) for x in (t, s))
        return ((t - s) ** 2).mean(-1)

    return truth


def cosine(t, s):
    return 1 - (unit(t) * unit(s)).sum(-1)


def groups(x, count):
    return x.reshape(len(x), count, -1, *x.shape[2:]).mean(2)


def attention(count):
    return lambda t, s: (groups(t, count) - groups(s, count)) ** 2


# Loss, truth, shapes of the teacher's and the student's features.
CASES = {
    "variational": (
        lambda: kd.losses.VariationalInformation("t", "s"),
        variational,
        (5, 7),
        (5, 3),
    ),
    "variational, sequences": (
        lambda: kd.losses.VariationalInformation("t", "s", variance=0.3),
        variational,
        (2, 4, 3),
        (2, 4, 3),
    ),
    "variational, images": (
        lambda: kd.losses.VariationalInformation("t", "s", hidden_width=5),
        variational,
        (3, 2, 2, 4),
        (3, 2, 2, 3),
    ),
    "infonce": (contrastive(), infonce, (5, 7), (5, 3)),
    "infonce, images": (contrastive(), infonce, (5, 2, 2, 3), (5, 3, 3, 2)),
    "nce": (contrastive(objective="nce", dataset_size=50), nce, (5, 7), (5, 3)),
    "hidden": (lambda: kd.losses.HiddenStates("t", "s"), hidden(False), (2, 3, 5), (2, 3, 5)),
    "hidden, normalized": (
        lambda: kd.losses.HiddenStates("t", "s", normalize=True),
        hidden(True),
        (2, 3, 5),
        (2, 3, 5),
    ),
    "cosine": (lambda: kd.losses.CosineHidden("t", "s"), cosine, (2, 3, 5), (2, 3, 5)),
    "attention": (
        lambda: kd.losses.AttentionMaps("t", "s"),
        attention(2),
        (2, 2, 3, 4),
        (2, 2, 3, 4),
    ),
    "attention, grouped heads": (
        lambda: kd.losses.AttentionMaps("t", "s"),
        attention(2),
        (2, 6, 3, 4),
        (2, 2, 3, 4),
    ),
    "attention, no multiple": (
        lambda: kd.losses.AttentionMaps("t", "s"),
        attention(1),
        (2, 3, 3, 4),
        (2, 2, 3, 4),
    ),
}
EQUAL = ["hidden", "hidden, normalized", "cosine", "attention"]


@pytest.mark.parametrize("mode", checks.MODES)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, mode):
    checks.values_and_gradients(*CASES[name], mode)


@pytest.mark.parametrize("name", CASES)
def test_values_in_half_precision(name):
    checks.values_in_half_precision(*CASES[name])


@pytest.mark.parametrize("name", EQUAL)
def test_zero_and_a_zero_gradient_where_both_are_equal(name):
    checks.zero_at_equality(CASES[name][0], CASES[name][2])


@pytest.mark.parametrize("name", CASES)
def test_features_that_are_zero_give_finite_gradients(name):
    make, _, teacher_shape, student_shape = CASES[name]
    checks.finite_at_zero(make, teacher_shape, student_shape)


def flow_truth(t, s):
    def flow(a, b):
        a = a.reshape(
            len(a), b.shape[1], a.shape[1] // b.shape[1], b.shape[2], -1, a.shape[-1]
        ).mean((2, 4))
        return np.einsum("bhwi,bhwj->bij", a, b) / (b.shape[1] * b.shape[2])

    return ((flow(*t) - flow(*s)) ** 2).mean((1, 2))


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_flow_matrix(jit_compile):
    teacher = [checks.normal(2, 4, 4, 3), checks.normal(2, 2, 2, 5)]
    student = [checks.normal(2, 8, 8, 3, seed=3), checks.normal(2, 4, 4, 5, seed=4)]
    loss = kd.losses.FlowMatrix(("a", "b"), ("a", "b"))
    loss(teacher, student)

    def value_and_gradient(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss(teacher, student)
        return value, tape.gradient(value, student)

    if jit_compile is not None:
        value_and_gradient = tf.function(value_and_gradient, jit_compile=jit_compile)
    value, gradients = value_and_gradient(*(list(map(tf.constant, x)) for x in (teacher, student)))
    np.testing.assert_allclose(
        value, flow_truth(teacher, [np.float64(x) for x in student]), rtol=2e-5
    )
    for which in (0, 1):
        step = np.zeros(student[which].shape)
        step[1, 2, 1, 0] = 1e-5
        moved = [
            flow_truth(
                teacher, [x + sign * step if i == which else x for i, x in enumerate(student)]
            ).sum()
            for sign in (1, -1)
        ]
        slope = (moved[0] - moved[1]) / 2e-5
        assert gradients[which].numpy()[1, 2, 1, 0] == pytest.approx(slope, rel=1e-4, abs=1e-6)
    same = loss(teacher, teacher)
    np.testing.assert_allclose(same, np.zeros(2), atol=1e-7)


def test_a_flow_of_other_widths_is_projected():
    loss = kd.losses.FlowMatrix(("a", "b"), ("a", "b"))
    teacher = [checks.normal(2, 4, 4, 3), checks.normal(2, 4, 4, 5)]
    student = [checks.normal(2, 4, 4, 2), checks.normal(2, 4, 4, 2)]
    assert loss(teacher, student).shape == (2,)
    assert len(loss.trainable_weights) == 4


def kl(p, q):
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / np.where(q > 0, q, 1)), 0).sum(-1)


def test_attention_as_divergence_leaves_out_what_nothing_attends_to():
    scores = [checks.softmax(np.float64(checks.normal(2, 2, 3, 4, seed=i))) for i in (1, 2)]
    scores = [x * (np.arange(4) < 3) / x[..., :3].sum(-1, keepdims=True) for x in scores]
    for x in scores:
        x[1, :, 2] = 0.0  # a padded query
    loss = kd.losses.AttentionMaps("t", "s", "kl")
    student = tf.Variable(np.float32(scores[1]))
    with tf.GradientTape() as tape:
        value = loss(np.float32(scores[0]), student)
    np.testing.assert_allclose(value, kl(*scores), rtol=1e-5, atol=1e-7)
    assert np.isfinite(tape.gradient(value, student)).all()


@pytest.mark.parametrize("loss", ["mse", "kl"])
@pytest.mark.parametrize("heads", [1, 2, 5])
def test_weights_of_tokens_are_those_of_queries(heads, loss):
    maps = kd.losses.AttentionMaps("t", "s", loss)
    t, s = (checks.softmax(checks.normal(3, heads, 5, 5, seed=i)) for i in (1, 2))
    weights = np.random.default_rng(0).uniform(size=(3, 5)).astype("float32")
    found, count = maps.weighted(t, s, weights)
    values = maps(t, s)
    expected = values * (weights[:, None, :, None] if loss == "mse" else weights[:, None])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert count == values.numpy().size


@pytest.mark.parametrize("shape", [(3, 4), (3, 1, 5), (2,)])
def test_weights_that_would_repeat_the_values_are_refused(shape):
    loss = kd.losses.RegressionKD()  # of outputs, whose positions the weights must be for
    values = np.ones((3, 1, 4), "float32")
    with pytest.raises(ValueError, match=r"shape \(.*does not fit a loss of shape \(3, 1\)"):
        loss.weighted(values, values, np.ones(shape, "float32"))


@pytest.mark.parametrize("shape", [(3, 4), (3, 1, 5)])
def test_weights_of_other_positions_are_averaged(shape):
    loss = kd.losses.FeatureHint("t", "s")
    teacher, student = checks.normal(3, 1, 4, seed=1), checks.normal(3, 1, 4, seed=2)
    weights = np.random.default_rng(0).uniform(size=shape).astype("float32")
    found, _ = loss.weighted(teacher, student, weights)
    of_rows = weights.reshape(3, -1).mean(1)[:, None]
    np.testing.assert_allclose(found, of_rows * np.asarray(loss(teacher, student)), rtol=1e-6)
    with pytest.raises(ValueError, match=r"does not fit a loss of shape \(3, 1\)"):
        loss.weighted(teacher, student, np.ones(2, "float32"))


def test_the_memory_holds_the_last_rows_of_training_and_is_saved(tmp_path):
    loss = kd.losses.ContrastiveRepresentation(width=4, temperature=0.5, memory_size=6)
    batches = [[checks.normal(4, n, seed=seed) for n in (7, 3)] for seed in (1, 2)]
    first = loss(*batches[0], training=False)
    np.testing.assert_array_equal(loss.memory, np.zeros((6, 4)))
    np.testing.assert_allclose(first, infonce(loss, *map(np.float64, batches[0])), rtol=1e-5)
    loss(*batches[0], training=True)
    kept = embeddings(loss, *map(np.float64, batches[0]))[0]
    np.testing.assert_allclose(loss.memory[:4], kept, rtol=1e-5, atol=1e-6)
    assert loss.remembered == 4
    t, s = embeddings(loss, *map(np.float64, batches[1]))
    g = s @ np.concatenate([t, kept]).T / 0.5
    expected = np.log(np.exp(g).sum(1)) - np.diag(g)
    np.testing.assert_allclose(loss(*batches[1], training=True), expected, rtol=1e-5)
    np.testing.assert_allclose(loss.memory, np.concatenate([t, kept[:2]]), rtol=1e-5, atol=1e-6)
    assert loss.remembered == 6


@pytest.mark.parametrize("mode", checks.MODES)
def test_the_memory_in_fit(mode, tmp_path):
    from tests.distiller import linear

    loss = kd.losses.ContrastiveRepresentation(width=4, memory_size=10)
    made = linear.compiled(*linear.pair(), loss, mode=mode)
    x, y = linear.data(12)
    made.fit(x, y, epochs=2, batch_size=4, verbose=0)
    assert loss.remembered == 10
    before = loss.memory.numpy()
    made.evaluate(x, y, with_teacher=True, verbose=0)
    np.testing.assert_array_equal(loss.memory, before)
    made.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    np.testing.assert_array_equal(loaded.distillation_losses[0].memory, before)
    histories = [
        m.fit(x, y, batch_size=4, shuffle=False, verbose=0).history for m in (made, loaded)
    ]
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kd.losses.VariationalInformation("t", "s", hidden_width=0), "hidden_width=0"),
        (lambda: kd.losses.VariationalInformation("t", "s", variance=0.0), "variance=0.0"),
        (lambda: kd.losses.ContrastiveRepresentation(objective="ce"), "objective='ce'"),
        (lambda: kd.losses.ContrastiveRepresentation(objective="nce"), "needs `dataset_size`"),
        (lambda: kd.losses.ContrastiveRepresentation(memory_size=-1), "memory_size=-1"),
        (lambda: kd.losses.FlowMatrix("a", ("a", "b")), "teacher_layers='a'"),
        (lambda: kd.losses.FlowMatrix(("a", "b"), ("a",)), "two layers.*student_layers"),
        (lambda: kd.losses.AttentionMaps("a", "b", "cosine"), "one of .'mse', 'kl'"),
        (lambda: kd.losses.AttentionMaps("a", "b", "kl", "attention_logits"), "loss='kl'"),
        (lambda: kd.losses.HiddenStates("a", "b")(np.ones((2, 3)), np.ones((2, 3))), "sequences"),
        (lambda: kd.losses.CosineHidden("a", "b")(np.ones((2, 3)), np.ones((2, 3))), "sequences"),
        (
            lambda: kd.losses.AttentionMaps("a", "b")(np.ones((2, 3, 4, 4)), np.ones((2, 3, 5, 5))),
            "Give both models the same tokens",
        ),
    ],
)
def test_bad_arguments_and_shapes(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def images(filters):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(filters, 3, activation="relu", name="first"),
            keras.layers.Conv2D(filters, 3, strides=2, activation="relu", name="second"),
            keras.layers.GlobalAveragePooling2D(name="pooled"),
            keras.layers.Dense(4),
        ]
    )


BLOCK = "transformer_layer_1"
FITS = {
    "variational": (lambda: kd.losses.VariationalInformation("second", "first"), images),
    "contrastive": (
        lambda: kd.losses.ContrastiveRepresentation("pooled", "pooled", memory_size=8),
        images,
    ),
    "flow": (lambda: kd.losses.FlowMatrix(("first", "second"), ("first", "second")), images),
    "hidden": (lambda: kd.losses.HiddenStates(BLOCK, BLOCK), networks.transformer),
    "cosine": (lambda: kd.losses.CosineHidden(BLOCK, BLOCK), networks.transformer),
    "attention": (
        lambda: kd.losses.AttentionMaps(*[f"{BLOCK}/self_attention_layer"] * 2),
        networks.transformer,
    ),
}


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", FITS)
def test_fit_lowers_it(name, policy):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        make, network = FITS[name]
        loss = make()
        models = (network(8), network(3)) if network is images else (network(4), network(2))
        made = kd.Distiller(*models, loss, alpha=0.0, beta=1.0)
        made.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(True))
        x, y = networks.tokens_and_labels(48)
        x = checks.normal(48, 8, 8, 1) if network is images else x
        history = made.fit(x, y, epochs=25, batch_size=16, verbose=0).history[loss.name]
        assert history[-1] < history[0] - 0.1 * abs(history[0])
        assert type(loss).from_config(loss.get_config()).get_config() == loss.get_config()
    finally:
        keras.config.set_dtype_policy("float32")
