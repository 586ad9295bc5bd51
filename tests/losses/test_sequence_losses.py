"""`SequenceRelations` and `EmbeddingKD` against NumPy in float64; padding counts nowhere."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd.taps.recorder import Taps
from tests.distiller import linear
from tests.losses import checks
from tests.taps import networks

KINDS = ("queries", "keys", "values")


def kl(p, q):
    terms = np.where(p > 0, p * (np.log(np.where(p > 0, p, 1)) - np.log(np.where(q > 0, q, 1))), 0)
    return terms.sum(-1)


def relation(states, heads, keep):
    """`[batch, heads, time, time]`: probabilities among the positions that count."""
    batch, time = states.shape[:2]
    states = np.float64(states).reshape(batch, time, heads, -1)
    logits = np.einsum("bihd,bjhd->bhij", states, states) / np.sqrt(states.shape[-1])
    keep = keep | ~keep.any(-1, keepdims=True)
    e = np.where(keep[:, None, None], np.exp(logits - logits.max(-1, keepdims=True)), 0.0)
    return e / e.sum(-1, keepdims=True)


def relations(teacher, student, heads, weights, keep=None):
    """The loss of each position, of lists with a tensor for each relation."""
    keep = np.ones(teacher[0].shape[:2], bool) if keep is None else keep
    values = 0.0
    for t, s, of_both, weight in zip(teacher, student, heads, weights, strict=True):
        pair = (relation(x, of_both, keep) for x in (t, s))
        values = values + weight * kl(*pair).mean(1)
    return values


def states(*shapes, seed):
    return [checks.normal(*shape, seed=seed + i) for i, shape in enumerate(shapes)]


KEEP = np.array([[True, True, True, False], [True, False, False, False], [True] * 4])
# Arguments, relation heads, weights, shapes of the teacher's and of the student's tensors.
RELATIONS = {
    "of three, other widths": (
        {"relation_heads": 6},
        [6] * 3,
        [1.0] * 3,
        [(3, 4, 4, 6)] * 3,
        [(3, 4, 3, 4)] * 3,
    ),
    "the teacher's heads": ({}, [2] * 3, [1.0] * 3, [(3, 4, 2, 3)] * 3, [(3, 4, 4, 1)] * 3),
    "shared keys": (
        {},
        [4, 2, 2],
        [1.0] * 3,
        [(3, 4, 4, 2), (3, 4, 2, 2), (3, 4, 2, 2)],
        [(3, 4, 2, 6), (3, 4, 1, 6), (3, 4, 1, 6)],
    ),
    "of values, split later": (
        {"relations": ["values"], "relation_heads": 3},
        [3],
        [1.0],
        [(3, 4, 12)],
        [(3, 4, 6)],
    ),
    "weighted": (
        {"relations": ["keys", "queries"], "relation_heads": 1, "relation_weights": [0.5, 3]},
        [1, 1],
        [0.5, 3.0],
        [(3, 4, 2, 2)] * 2,
        [(3, 4, 1, 3)] * 2,
    ),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("mode", checks.MODES)
@pytest.mark.parametrize("name", RELATIONS)
def test_relations_and_their_gradients(name, mode, masked):
    options, heads, weights, teacher_shapes, student_shapes = RELATIONS[name]
    loss = kd.losses.SequenceRelations("t", "s", **options)
    teacher, student = states(*teacher_shapes, seed=1), states(*student_shapes, seed=11)
    keep = KEEP if masked else np.ones((3, 4), bool)

    def weighted(teacher, student, mask):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value, count = loss.weighted(teacher, student, None, mask)
        return value, count, tape.gradient(value, student)

    tensors = [[tf.constant(x) for x in each] for each in (teacher, student)]
    loss(*tensors)  # builds it, outside of a graph
    if checks.MODES[mode] is not None:
        specs = [
            [tf.TensorSpec((None, None, *x.shape[2:]), x.dtype) for x in each] for each in tensors
        ]
        weighted = tf.function(weighted, jit_compile=checks.MODES[mode], autograph=False)
        weighted.get_concrete_function(*specs, tf.TensorSpec((None, None), tf.bool))
    value, count, gradients = weighted(*tensors, tf.constant(keep))

    def expected(student):
        return relations(teacher, student, heads, weights, keep) * keep

    np.testing.assert_allclose(value, expected(student), rtol=2e-5, atol=1e-6)
    assert count == keep.sum()
    for i, gradient in enumerate(gradients):
        assert (gradient.numpy()[~keep] == 0).all()
        for index in [(0,) * student[i].ndim, tuple(n - 1 for n in student[i].shape)]:
            both = []
            for sign in (1, -1):
                moved = [np.float64(x) for x in student]
                moved[i][index] += sign * checks.STEP
                both.append(expected(moved).sum())
            slope = (both[0] - both[1]) / (2 * checks.STEP)
            assert gradient.numpy()[index] == pytest.approx(slope, abs=5e-6, rel=2e-5)


def test_a_row_of_padding_alone_and_states_of_zero_are_finite():
    loss = kd.losses.SequenceRelations("t", "s", relations=["keys"])
    teacher, student = [checks.normal(2, 3, 2, 2)], [tf.zeros((2, 3, 2, 2))]
    mask = tf.constant([[False] * 3, [True] * 3])
    with tf.GradientTape() as tape:
        tape.watch(student)
        value, count = loss.weighted(teacher, student, None, mask)
    assert count == 3
    assert (value.numpy()[0] == 0).all()
    assert np.isfinite(value).all()
    assert np.isfinite(tape.gradient(value, student)[0]).all()


def test_equal_relations_are_zero_whatever_the_rotation():
    """Of one head: a space may be turned, and padded with dimensions of zero."""
    teacher = checks.normal(2, 5, 1, 4)
    turn = np.linalg.qr(checks.normal(4, 4))[0]
    loss = kd.losses.SequenceRelations("t", "s", relations=["values"])
    np.testing.assert_allclose(loss([teacher], [np.float32(teacher @ turn)]), 0.0, atol=1e-6)


def of_layer(model, layer, x):
    _, values = Taps(model, [layer]).run(lambda: model(x, training=False))
    return np.float64(values[layer])


PATH = "transformer_layer_0/self_attention_layer"


@pytest.mark.parametrize("mode", linear.MODES)
def test_keras_masks_reach_relations_in_a_step(mode):
    teacher, student = networks.transformer(3), networks.transformer(2)
    loss = kd.losses.SequenceRelations(PATH, PATH, relation_heads=4, name="relations")
    optimizer = {"optimizer": keras.optimizers.SGD(0.0)}
    made = linear.compiled(teacher, student, loss, mode=mode, compile_args=optimizer)
    tokens, labels = networks.tokens_and_labels()
    keep = tokens != 0
    pair = [[of_layer(m, kd.taps.Tap(PATH, x), tokens) for x in KINDS] for m in (teacher, student)]
    values = relations(*pair, [4] * 3, [1.0] * 3, keep)
    weight = np.random.default_rng(0).uniform(size=len(tokens)).astype("float32")
    for options in ({}, {"sample_weight": weight}):
        made.reset_metrics()
        found = made.train_on_batch(tokens, labels, return_dict=True, **options)["relations"]
        factor = options.get("sample_weight", np.ones(len(tokens)))[:, None]
        assert found == pytest.approx((values * factor)[keep].mean(), rel=2e-4)


def attending(seed, heads=2):
    """As keras_hub's models: an input says what is padding, and no tensor carries a mask."""
    keras.utils.set_random_seed(seed)
    ids = keras.Input((networks.LENGTH,), dtype="int32", name="ids")
    inputs = {"ids": ids, "padding": keras.Input((networks.LENGTH,), name="padding")}
    initializer = keras.initializers.RandomNormal(stddev=2.0)
    x = keras.layers.Embedding(networks.TOKENS, 6, initializer, name="states")(ids)
    x = keras.layers.MultiHeadAttention(heads, 4, name="attention")(x, x)
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def padded(ids_under_padding=0):
    tokens, labels = networks.tokens_and_labels()
    keep, labels = tokens != 0, np.broadcast_to(labels[:, None], tokens.shape)
    x = {"ids": np.where(keep, tokens, ids_under_padding), "padding": keep.astype("float32")}
    return x, labels, keep


SPELLINGS = {"loss": ({}, {"mask_input": "padding"}), "distiller": ({"mask_input": "padding"}, {})}
PADDED = {
    "relations": lambda **k: kd.losses.SequenceRelations("attention", "attention", name="it", **k),
    "mean": lambda **k: kd.losses.EmbeddingKD("states", "states", name="it", **k),
    "max": lambda **k: kd.losses.EmbeddingKD("states", "states", "max", name="it", **k),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", PADDED)
def test_what_is_under_the_padding_changes_not_a_bit(name, spelling):
    found = []
    for ids in (0, 5):
        of_distiller, of_loss = SPELLINGS[spelling]
        loss = PADDED[name](**of_loss)
        made = linear.compiled(attending(1, 4), attending(2), loss, alpha=0.0, **of_distiller)
        x, labels, _ = padded(ids)
        found.append(made.train_on_batch(x, labels, return_dict=True)["it"])
    assert found[0] == found[1]
    unmasked = linear.compiled(attending(1, 4), attending(2), PADDED[name](), alpha=0.0)
    x, labels, _ = padded()
    assert abs(unmasked.train_on_batch(x, labels, return_dict=True)["it"] - found[0]) > 1e-4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kd.losses.SequenceRelations("a", "b", relations="keys"), "relations='keys'"),
        (lambda: kd.losses.SequenceRelations("a", "b", relations=[]), "relations"),
        (lambda: kd.losses.SequenceRelations("a", "b", relations=["keys"] * 2), "some of"),
        (lambda: kd.losses.SequenceRelations("a", "b", relation_heads=0), "relation_heads=0"),
        (lambda: kd.losses.SequenceRelations("a", "b", relation_weights=[1]), "list of 3 numbers"),
        (
            lambda: kd.losses.SequenceRelations("a", "b", relation_weights=[1, 1, -1]),
            "relation_weights=-1",
        ),
        (
            lambda: kd.losses.SequenceRelations(kd.taps.Tap("a", "keys"), "b"),
            "`teacher_layer`.*which reads keys",
        ),
        (lambda: kd.losses.EmbeddingKD(pooling="last"), "`pooling`.*'mean', 'cls', 'max'"),
        (lambda: kd.losses.EmbeddingKD(loss="l1"), "loss='l1'"),
        (lambda: kd.losses.EmbeddingKD(loss="cosine", normalize=True), "takes no `normalize`"),
        (lambda: kd.losses.EmbeddingKD(projector="dense"), "projector='dense'"),
        (lambda: kd.losses.EmbeddingKD(pooling=None, mask_input="m"), "pooled already"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "teacher", "student", "message"),
    [
        ({}, (2, 3, 4, 2), (2, 5, 4, 2), r"over the same positions.*\(2, 3, 4, 2\).*same tokens"),
        ({}, (2, 3), (2, 3), r"expects queries, keys, values of shape"),
        ({}, (2, 3, 5, 2), (2, 3, 4, 2), r"5 relation heads do not divide.*one of \[1, 2\]"),
        ({"relation_heads": 4}, (2, 3, 2, 3), (2, 3, 2, 2), r"6 wide.*4 wide.*relation_heads=4"),
        ({}, (2, 3, 8), (2, 3, 4), r"heads the teacher has is not known.*one of \[1, 2, 4\]"),
    ],
)
def test_relations_of_shapes_that_do_not_fit(options, teacher, student, message):
    loss = kd.losses.SequenceRelations("t", "s", **options)
    with pytest.raises(ValueError, match=message):
        loss([np.ones(teacher, "float32")] * 3, [np.ones(student, "float32")] * 3)


def test_layers_without_attention_are_refused_when_the_distiller_is_built():
    with pytest.raises(ValueError, match=r"'states'.*Embedding, has no queries.*\['attention'\]"):
        kd.Distiller(attending(1), attending(2), kd.losses.SequenceRelations("states", "attention"))


def test_a_mask_of_other_positions_is_refused():
    loss = kd.losses.SequenceRelations("t", "s", relations=["keys"])
    x = [checks.normal(2, 3, 2, 2)]
    with pytest.raises(ValueError, match=r"positions of shape \(2, 3\).*mask of shape \(2, 5\)"):
        loss.weighted(x, x, None, tf.ones((2, 5), tf.bool))


def test_configurations_name_the_attention_layer():
    tap = kd.taps.Tap("attention", call=1)
    loss = kd.losses.SequenceRelations(tap, "attention", ("keys",), 4, [2.0], mask_input="m")
    config = loss.get_config()
    assert config["student_layer"] == "attention"
    assert config["relations"] == ["keys"]
    again = kd.losses.SequenceRelations.from_config(config)
    assert again.get_config() == config
    assert again.teacher_layer == (kd.taps.Tap("attention", "keys", call=1),)


def test_relations_of_a_cached_teacher(tmp_path):
    """A cache keeps each relation's tap; it has no masks, the student's count."""
    teacher, student = networks.transformer(3), networks.transformer(2)
    tokens, labels = networks.tokens_and_labels()
    data = tf.data.Dataset.from_tensor_slices((tokens, labels)).batch(6)
    taps = [kd.taps.Tap(PATH, kind) for kind in KINDS]
    kd.cache_teacher(teacher, data, tmp_path / "cache", taps=taps, dtype="float32", verbose=0)
    logs = []
    for source in (teacher, kd.teachers.Cached(tmp_path / "cache", teacher)):
        loss = kd.losses.SequenceRelations(PATH, PATH, relation_heads=4)
        made = linear.compiled(source, student, loss, learning_rate=0.0)
        batches = data if source is teacher else kd.load_cache(tmp_path / "cache", data)
        logs.append(made.fit(batches, shuffle=False, verbose=0).history["sequence_relations"][0])
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


# Embeddings.


def pooled(x, pooling, keep):
    if x.ndim == 2:
        return x
    rows = []
    for row, counts in zip(x, keep, strict=True):
        row = row[counts]
        rows.append({"mean": row.mean(0), "max": row.max(0), "cls": row[0]}[pooling])
    return np.stack(rows)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def embedding(t, s, loss, keeps, normalize=False):
    pooling, kind = loss.pooling, loss.loss
    t, s = (pooled(x, pooling, keep) for x, keep in zip((t, s), keeps, strict=True))
    for layer in loss.projection_layers:
        kernel, bias = (np.float64(w) for w in layer.get_weights())
        s = s @ kernel + bias
    if kind == "cosine":
        return 1 - (unit(t) * unit(s)).sum(-1)
    t, s = (unit(t), unit(s)) if normalize else (t, s)
    return ((t - s) ** 2).mean(-1)


# Left padding, a hole, right padding, none.
KEEPS = np.array([[0, 1, 1], [1, 0, 1], [1, 0, 0], [1, 1, 1]], bool)
EMBEDDINGS = {
    "mean": ({}, (4, 3, 5), (4, 3, 5)),
    "mean, projected": ({}, (4, 3, 5), (4, 3, 2)),
    "max": ({"pooling": "max", "normalize": True}, (4, 3, 5), (4, 3, 5)),
    "first": ({"pooling": "cls", "loss": "cosine"}, (4, 3, 5), (4, 3, 5)),
    "a teacher that pools": ({"projector": "linear"}, (4, 5), (4, 3, 5)),
    "both pool": ({"pooling": None, "loss": "cosine"}, (4, 5), (4, 3)),
}


@pytest.mark.parametrize("mode", checks.MODES)
@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embeddings_and_their_gradients(name, mode):
    options, *shapes = EMBEDDINGS[name]
    make = lambda: kd.losses.EmbeddingKD("t", "s", **options)  # noqa: E731
    keeps = [np.ones((4, 3), bool)] * 2
    truth = checks.of_loss(
        lambda loss, t, s: embedding(t, s, loss, keeps, options.get("normalize", False))
    )
    checks.values_and_gradients(make, truth, *shapes, mode)


@pytest.mark.parametrize("name", [name for name in EMBEDDINGS if name != "both pool"])
def test_padding_does_not_count_in_embeddings(name):
    options, *shapes = EMBEDDINGS[name]
    loss = kd.losses.EmbeddingKD("t", "s", **options)
    teacher, student = (checks.normal(*shape, seed=i) for i, shape in enumerate(shapes))
    loss(teacher, student)
    given = tf.Variable(student)
    with tf.GradientTape() as tape:
        value, count = loss.weighted(tf.constant(teacher), given, None, tf.constant(KEEPS))
    normalize = options.get("normalize", False)
    expected = embedding(np.float64(teacher), np.float64(student), loss, [KEEPS] * 2, normalize)
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-6)
    assert count == 4
    assert (tf.convert_to_tensor(tape.gradient(value, given)).numpy()[~KEEPS] == 0).all()


@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_a_sample_of_padding_alone_is_left_out(pooling):
    loss = kd.losses.EmbeddingKD("t", "s", pooling)
    teacher, student = checks.normal(2, 3, 4, seed=1), tf.Variable(checks.normal(2, 3, 4, seed=2))
    mask = tf.constant([[False] * 3, [True] * 3])
    with tf.GradientTape() as tape:
        value, count = loss.weighted(tf.constant(teacher), student, None, mask)
    assert count == 1
    assert value[0] == 0 < value[1]
    gradient = tf.convert_to_tensor(tape.gradient(value, student)).numpy()
    assert np.isfinite(gradient).all()
    assert (gradient[0] == 0).all()


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_the_teachers_own_keras_mask_counts(mode):
    """Of other tokens, as of another tokenizer: its positions are not the student's."""

    def encoder(seed, length):
        keras.utils.set_random_seed(seed)
        ids = keras.Input((length,), dtype="int32", name=f"ids_{length}")
        x = keras.layers.Embedding(networks.TOKENS, 6, mask_zero=True, name="states")(ids)
        return keras.Model({f"ids_{length}": ids}, keras.layers.Dense(4)(x[:, 0]))

    teacher, student = encoder(1, 9), encoder(2, networks.LENGTH)
    tokens, labels = networks.tokens_and_labels()
    longer = np.concatenate([tokens[:, :1], tokens[:, :1], tokens], axis=1)
    x = {"ids_7": tokens, "ids_9": longer}
    loss = kd.losses.EmbeddingKD("states", "states", name="it")
    optimizer = {"optimizer": keras.optimizers.SGD(0.0)}
    made = linear.compiled(teacher, student, loss, mode=mode, compile_args=optimizer)
    found = made.train_on_batch(x, labels, return_dict=True)["it"]
    t = of_layer(teacher, "states", {"ids_9": longer})
    s = of_layer(student, "states", {"ids_7": tokens})
    expected = embedding(t, s, loss, [longer != 0, tokens != 0]).mean()
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("pooling", "teacher", "student", "message"),
    [
        ("mean", (2, 4), (2, 4), r"expects features of shape \[batch, time, width\].*pooling=None"),
        (None, (2, 3, 4), (2, 4), r"pooling=None expects.*Pass one of \('mean', 'cls', 'max'\)"),
        ("mean", (2, 3, 3, 4), (2, 3, 4), r"Received: teacher \(2, 3, 3, 4\)"),
    ],
)
def test_embeddings_of_other_shapes(pooling, teacher, student, message):
    loss = kd.losses.EmbeddingKD("t", "s", pooling)
    with pytest.raises(ValueError, match=message):
        loss(np.ones(teacher, "float32"), np.ones(student, "float32"))


def test_widths_that_differ_without_a_projector_and_masks_of_other_positions():
    loss = kd.losses.EmbeddingKD("t", "s", projector=None)
    with pytest.raises(ValueError, match=r"shape \(2, 4\) after the projector.*\(2, 5\)"):
        loss(np.ones((2, 3, 5), "float32"), np.ones((2, 3, 4), "float32"))
    loss = kd.losses.EmbeddingKD("t", "s")
    with pytest.raises(ValueError, match=r"teacher's features of shape \(2, 5, 4\).*\(2, 3\)"):
        loss.weighted(tf.ones((2, 5, 4)), tf.ones((2, 3, 4)), None, tf.ones((2, 3), dtype=tf.bool))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["relations", "embedding"])
def test_fit_lowers_it_and_a_saved_distiller_has_it(name, policy, tmp_path):
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        block = "transformer_layer_0"
        if name == "relations":
            loss = kd.losses.SequenceRelations(PATH, PATH, relation_heads=4)
        else:
            loss = kd.losses.EmbeddingKD(block, block, loss="cosine", projector="linear")
        made = kd.Distiller(networks.transformer(4), networks.transformer(2), loss, alpha=0.0)
        made.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(True))
        x, y = networks.tokens_and_labels(48)
        history = made.fit(x, y, epochs=20, batch_size=16, verbose=0).history[loss.name]
        assert history[-1] < 0.8 * history[0]
        if policy == "float32":
            x, y, _ = padded()
            loss = PADDED["relations"](mask_input="padding")
            made = kd.Distiller(attending(1, 4), attending(2), loss)
            made.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
            made.save(tmp_path / "distiller.keras")
            loaded = keras.saving.load_model(tmp_path / "distiller.keras")
            config = made.distillation_losses[0].get_config()
            assert loaded.distillation_losses[0].get_config() == config
            logs = [m.train_on_batch(x, y, return_dict=True)["it"] for m in (made, loaded)]
            assert logs[0] == pytest.approx(logs[1], rel=1e-6)
    finally:
        keras.config.set_dtype_policy("float32")
