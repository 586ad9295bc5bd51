"""`UniversalLogits` and `CorrectedTargets` against NumPy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.distiller import linear
from tests.losses import checks
from tests.losses.checks import softmax
from tests.losses.test_sequence_losses import kl


def universal(temperature):
    def truth(t, s):
        words = max(t.shape[-1], s.shape[-1])
        values = 0.0
        pair = []
        for x in (t, s):
            p = -np.sort(-softmax(x / temperature), axis=-1)
            pair.append(np.concatenate([p, np.zeros((*p.shape[:-1], words - p.shape[-1]))], -1))
        for one, other in zip(
            np.moveaxis(pair[0], -1, 0), np.moveaxis(pair[1], -1, 0), strict=True
        ):
            values = values + np.abs(one - other)
        return values

    return truth


UNIVERSAL = {
    "a larger teacher": (kd.losses.UniversalLogits, universal(1.0), (3, 4, 9), (3, 4, 6)),
    "a larger student": (
        lambda: kd.losses.UniversalLogits(2.5),
        universal(2.5),
        (5, 4),
        (5, 7),
    ),
    "one size": (kd.losses.UniversalLogits, universal(1.0), (5, 6), (5, 6)),
}


@pytest.mark.parametrize("mode", checks.MODES)
@pytest.mark.parametrize("name", UNIVERSAL)
def test_sorted_probabilities_and_their_gradients(name, mode):
    checks.values_and_gradients(*UNIVERSAL[name], mode)


@pytest.mark.parametrize("name", UNIVERSAL)
def test_universal_logits_in_half_precision(name):
    checks.values_in_half_precision(*UNIVERSAL[name])


def test_the_order_of_words_does_not_matter_and_extremes_are_finite():
    loss = kd.losses.UniversalLogits()
    logits = checks.normal(4, 8)
    shuffled = logits[:, np.random.default_rng(0).permutation(8)]
    np.testing.assert_allclose(loss(logits, shuffled), 0.0, atol=1e-6)
    checks.zero_at_equality(kd.losses.UniversalLogits, (4, 8))
    checks.finite_at_zero(kd.losses.UniversalLogits, (4, 8), (4, 5))
    sure = np.where(np.arange(8) == 2, 0.0, -np.inf).astype("float32")[None]
    uniform = np.zeros((1, 4), "float32")
    # 1 - 1/4 too much at the first word, 1/4 too little at three.
    np.testing.assert_allclose(loss(sure, uniform), [1.5], rtol=1e-6)


def test_universal_logits_of_probabilities():
    t, s = checks.normal(4, 8, seed=1), checks.normal(4, 5, seed=2)
    p, q = np.float32(softmax(np.float64(t))), np.float32(softmax(np.float64(s)))
    expected = universal(2.0)(np.float64(t), np.float64(s))
    both = kd.losses.UniversalLogits(2.0, from_logits=False)
    np.testing.assert_allclose(both(p, q), expected, rtol=1e-4)
    one = kd.losses.UniversalLogits(2.0, teacher_from_logits=False)
    np.testing.assert_allclose(one(p, s), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        ((2, 5, 9), (2, 4, 7), r"same positions.*\(2, 5, 9\), student \(2, 4, 7\).*tf.gather"),
        ((2, 9), (2, 4, 7), "logits of shape"),
        ((2, 9), (2, 1), "known and above 1"),
    ],
)
def test_positions_that_cannot_correspond(teacher, student, message):
    with pytest.raises(ValueError, match=message):
        kd.losses.UniversalLogits()(np.ones(teacher, "float32"), np.ones(student, "float32"))


def test_lengths_that_only_a_step_tells():
    """One position would be compared with each of the other's, which TensorFlow broadcasts."""
    loss = kd.losses.UniversalLogits()
    loss(np.ones((2, 3, 5), "float32"), np.ones((2, 3, 4), "float32"))
    traced = tf.function(loss, autograph=False)
    specs = [tf.TensorSpec((None, None, words), tf.float32) for words in (5, 4)]
    concrete = traced.get_concrete_function(*specs)
    assert concrete(tf.ones((2, 3, 5)), tf.ones((2, 3, 4))).shape == (2, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="their numbers differ"):
        concrete(tf.ones((2, 1, 5)), tf.ones((2, 3, 4)))


def word_model(words, seed):
    keras.utils.set_random_seed(seed)
    ids = keras.Input((4,), dtype="int32", name="ids")
    x = keras.layers.Embedding(11, 6, mask_zero=True)(ids)
    return keras.Model(ids, keras.layers.Dense(words, name="head")(x))


def word_data(rows=16):
    rng = np.random.default_rng(0)
    ids = np.where(np.arange(4) < rng.integers(1, 5, (rows, 1)), rng.integers(1, 11, (rows, 4)), 0)
    return ids.astype("int32"), np.where(ids > 0, (ids * 3) % 5, -100)


def test_universal_logits_in_fit_with_masks_and_without_warnings(tmp_path):
    """Its labels are words of the student: nothing is said of a teacher that does not know them."""
    teacher, student = word_model(12, 1), word_model(5, 2)
    for weight in teacher.weights:  # sure of some words
        weight.assign(np.random.default_rng(0).normal(scale=2.0, size=weight.shape))
    x, y = word_data(64)
    y = np.maximum(y, 0)
    loss = kd.losses.UniversalLogits(name="it")
    made = linear.compiled(teacher, student, loss, mode="graph", learning_rate=0.0)
    pair = [np.float64(m.predict(x, verbose=0)) for m in (teacher, student)]
    history = made.fit(x, y, batch_size=64, verbose=0).history
    assert history["it"][0] == pytest.approx(universal(1.0)(*pair)[x > 0].mean(), rel=1e-5)
    made.optimizer.learning_rate = 2.0
    made.alpha = 0.0
    history = made.fit(x, y, epochs=30, verbose=0).history["it"]
    assert history[-1] < 0.7 * history[0]
    made.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras").distillation_losses[0]
    assert loaded.get_config() == loss.get_config()


# A teacher that is put right.


def corrected_distribution(p, label, margin, where):
    """Row by row, from the definition."""
    if label < 0 or label >= len(p):
        return p
    best, q = p.argmax(), p.copy()
    if p[best] > p[label]:
        gap = p[best] - p[label]
        mixed = (gap + margin) / (1 + gap)
    elif where == "all":
        mixed = min(margin, 1 - p[label]) / (1 - p[label]) if p[label] < 1 else 0.0
    else:
        return q
    q *= 1 - mixed
    q[label] += mixed
    return q


def corrected(margin=0.2, temperature=1.0, where="wrong"):
    def truth(t, s, labels):
        p, q = softmax(t / temperature), softmax(s / temperature)
        rows = zip(p.reshape(-1, p.shape[-1]), np.reshape(labels, -1), strict=True)
        targets = [corrected_distribution(row, label, margin, where) for row, label in rows]
        return temperature**2 * kl(np.reshape(targets, p.shape), q)

    return truth


LABELS = np.array([0, 5, 2, 2, 4, -1])
TOKENS = np.array([[0, 3, 1], [2, 2, 0]])
CORRECTED = {
    "wrong": (kd.losses.CorrectedTargets, corrected(), (6, 6), LABELS),
    "all": (
        lambda: kd.losses.CorrectedTargets(0.3, 2.0, "all"),
        corrected(0.3, 2.0, "all"),
        (6, 6),
        LABELS,
    ),
    "sequences": (
        lambda: kd.losses.CorrectedTargets(0.0, 0.5),
        corrected(0.0, 0.5),
        (2, 3, 4),
        TOKENS,
    ),
    "the labels alone": (lambda: kd.losses.CorrectedTargets(1.0), corrected(1.0), (6, 6), LABELS),
}


@pytest.mark.parametrize("mode", checks.MODES)
@pytest.mark.parametrize("name", CORRECTED)
def test_corrected_targets_and_their_gradients(name, mode):
    make, truth, shape, labels = CORRECTED[name]
    checks.values_and_gradients(make, truth, shape, shape, mode, labels)


@pytest.mark.parametrize("name", CORRECTED)
def test_corrected_targets_in_half_precision(name):
    make, truth, shape, labels = CORRECTED[name]
    checks.values_in_half_precision(make, truth, shape, shape, labels)


@pytest.mark.parametrize("where", ["wrong", "all"])
@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0])
def test_the_label_is_the_margin_above_and_the_others_keep_their_proportions(margin, where):
    p = np.array([0.6, 0.3, 0.1])
    q = corrected_distribution(p, 1, margin, where)
    assert q.sum() == pytest.approx(1.0)
    assert q[1] - q[0] == pytest.approx(margin)
    assert q[0] * p[2] == pytest.approx(q[2] * p[0])
    loss = kd.losses.CorrectedTargets(margin, where=where)
    with np.errstate(divide="ignore"):
        logits = np.log(np.float32([p, q]))
    np.testing.assert_allclose(loss(logits[:1], logits[1:], labels=np.array([1])), 0.0, atol=1e-6)


def test_a_teacher_that_is_right_is_left_as_it_is():
    t, s = checks.normal(8, 5, seed=1), checks.normal(8, 5, seed=2)
    labels = t.argmax(-1)
    expected = kd.losses.SoftTargets(2.0)(t, s)
    loss = kd.losses.CorrectedTargets(0.5, 2.0)
    np.testing.assert_allclose(loss(t, s, labels=labels), expected, rtol=1e-5)
    without = kd.losses.CorrectedTargets(0.5, 2.0, "all")(t, s, labels=np.full(8, -1))
    np.testing.assert_allclose(without, expected, rtol=1e-5)


def test_a_sure_teacher_is_finite():
    sure = np.where(np.arange(4) == 2, 0.0, [[-np.inf], [-200.0]]).astype("float32")
    student = tf.Variable(checks.normal(2, 4))
    for where in ("wrong", "all"):
        for label in (2, 0):
            loss = kd.losses.CorrectedTargets(where=where)
            with tf.GradientTape() as tape:
                value = loss(sure, student, labels=np.full(2, label))
            expected = corrected(where=where)(
                np.float64(sure), np.float64(student.numpy()), np.full(2, label)
            )
            np.testing.assert_allclose(value, expected, rtol=1e-5)
            assert np.isfinite(tape.gradient(value, student)).all()


@pytest.mark.parametrize("form", ["index", "column"])
def test_rows_of_the_ignored_class_count_nowhere(form):
    t, s = checks.normal(2, 3, 4, seed=1), tf.Variable(checks.normal(2, 3, 4, seed=2))
    labels = np.array([[0, -100, 1], [-100, 2, 3]])
    mask = np.array([[True, True, False], [True, True, True]])
    keep = mask & (labels != -100)
    given = labels[..., None] if form == "column" else labels
    loss = kd.losses.CorrectedTargets()
    with tf.GradientTape() as tape:
        value, count = loss.weighted(t, s, tf.constant([2.0, 1.0]), tf.constant(mask), labels=given)
    expected = corrected()(np.float64(t), np.float64(s.numpy()), labels) * [[2.0], [1.0]] * keep
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-6)
    assert count == keep.sum()
    assert (tf.convert_to_tensor(tape.gradient(value, s)).numpy()[~keep] == 0).all()
    other = kd.losses.CorrectedTargets(ignore_class=None)
    assert other.weighted(t, s, None, None, labels=given)[1] == 6


@pytest.mark.parametrize("mode", linear.MODES)
def test_corrected_targets_in_fit(mode, tmp_path):
    teacher, student = word_model(5, 1), word_model(5, 2)
    x, y = word_data()
    y[0, 0] = -100
    loss = kd.losses.CorrectedTargets(temperature=2.0, name="it")
    ignore = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)
    options = {"loss": ignore, "optimizer": keras.optimizers.SGD(0.0)}
    made = linear.compiled(teacher, student, loss, mode=mode, compile_args=options)
    pair = [np.float64(m.predict(x, verbose=0)) for m in (teacher, student)]
    found = made.train_on_batch(x, y, return_dict=True)["it"]
    keep = (x > 0) & (y != -100)
    assert found == pytest.approx(corrected(0.2, 2.0)(*pair, y)[keep].mean(), rel=1e-5)
    made.optimizer.learning_rate = 1.0
    history = made.fit(x, y, epochs=12, verbose=0).history["it"]
    assert history[-1] < 0.7 * history[0]
    made.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras").distillation_losses[0]
    assert loaded.get_config() == loss.get_config()


def test_corrected_targets_need_labels_and_work_between_peers():
    made = linear.compiled(*linear.pair(), kd.losses.CorrectedTargets(), alpha=0.0, beta=1.0)
    x, y = linear.data(32)
    with pytest.raises(ValueError, match="'corrected_targets' needs labels"):
        made.fit(x, verbose=0)
    peers = kd.MutualDistiller(list(linear.pair()), kd.losses.CorrectedTargets())
    peers.compile(keras.optimizers.SGD(0.1), linear.from_logits())
    history = peers.fit(x, y, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kd.losses.CorrectedTargets(1.5), "margin=1.5"),
        (lambda: kd.losses.CorrectedTargets(where="some"), "one of .'wrong', 'all'"),
        (lambda: kd.losses.CorrectedTargets(ignore_class=0.5), "ignore_class=0.5"),
        (lambda: kd.losses.CorrectedTargets(temperature=0.0), "temperature"),
        (lambda: kd.losses.UniversalLogits(-1.0), "temperature"),
        (
            lambda: kd.losses.CorrectedTargets()(
                np.ones((2, 3)), np.ones((2, 4)), labels=np.zeros(2, int)
            ),
            "logits of one shape",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [kd.losses.UniversalLogits, kd.losses.CorrectedTargets])
def test_softmax_and_the_largest_logits_of_a_cache_are_refused(make, tmp_path):
    ends = [
        keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, activation="softmax")]),
        keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)]),
    ]
    with pytest.raises(ValueError, match="ends in softmax"):
        kd.Distiller(*ends, make())
    x, y = linear.data(8)
    teacher, student = linear.pair()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    kd.cache_teacher(teacher, data, tmp_path / "cache", top_k=2)
    cached = kd.teachers.Cached(tmp_path / "cache", teacher)
    with pytest.raises(ValueError, match="keeps the largest ones only"):
        kd.Distiller(cached, student, make())
