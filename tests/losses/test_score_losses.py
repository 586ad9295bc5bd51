"""`MarginMSE` and `ScoreMatrixKD`: scores of queries with passages, against NumPy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.losses import checks
from tests.losses.test_sequence_losses import kl, unit

NAMES = ("query", "positive", "negative", "hard")


def columns(positive, negatives):
    def truth(t, s):
        margins = [x[:, [positive]] - x[:, negatives] for x in (t, s)]
        return ((margins[0] - margins[1]) ** 2).mean(-1)

    return truth


COLUMNS = {
    "the first": (kd.losses.MarginMSE, columns(0, [1, 2, 3]), (5, 4)),
    "two": (lambda: kd.losses.MarginMSE(2, 0), columns(2, [0]), (5, 4)),
    "several": (lambda: kd.losses.MarginMSE(1, [3, 0]), columns(1, [3, 0]), (5, 4)),
}


@pytest.mark.parametrize("mode", checks.MODES)
@pytest.mark.parametrize("name", COLUMNS)
def test_margins_of_columns(name, mode):
    make, truth, shape = COLUMNS[name]
    checks.values_and_gradients(make, truth, shape, shape, mode)


def scores(outputs, names, query=None, similarity="dot"):
    if query is None:
        return [np.float64(outputs[name]).reshape(-1) for name in names]
    turned = unit if similarity == "cosine" else (lambda x: x)
    embedded = [turned(np.float64(outputs[name])) for name in names]
    return [(turned(np.float64(outputs[query])) * each).sum(-1) for each in embedded]


def margin(teacher, student, names, query, teacher_query, similarity):
    t, s = (
        scores(teacher, names, teacher_query, similarity),
        scores(student, names, query, similarity),
    )
    parts = [((t[0] - t[i]) - (s[0] - s[i])) ** 2 for i in range(1, len(names))]
    return np.mean(parts, axis=0)


def embeddings(width, seed, rows=5):
    return {name: checks.normal(rows, width, seed=seed + i) for i, name in enumerate(NAMES)}


def scalars(seed, rows=5):
    return {
        "positive": checks.normal(rows, seed=seed),
        "negative": checks.normal(rows, 1, seed=seed + 1),
        "hard": checks.normal(rows, seed=seed + 2),
    }


# Arguments, and the outputs of teacher and student.
NAMED = {
    "scores": ({"negative": "negative"}, scalars(1), scalars(7)),
    "a cross-encoder": (
        {"negative": ["negative", "hard"], "query": "query"},
        scalars(1),
        embeddings(4, 7),
    ),
    "two bi-encoders": (
        {"negative": "hard", "query": "query", "teacher_query": "query", "similarity": "cosine"},
        embeddings(6, 1),
        embeddings(4, 7),
    ),
}


def slope(function, values, name, index):
    """The central difference of a sum in one entry of a dict of arrays."""
    both = []
    for sign in (1, -1):
        moved = {key: np.float64(value) for key, value in values.items()}
        moved[name][index] += sign * checks.STEP
        both.append(function(moved).sum())
    return (both[0] - both[1]) / (2 * checks.STEP)


def value_and_gradient(loss, teacher, student, mode, weight=None):
    def run(teacher, student, weight):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value, _ = loss.weighted(teacher, student, weight)
        return value, tape.gradient(value, student)

    loss(teacher, student)  # builds it, outside of a graph
    if checks.MODES[mode] is not None:
        run = tf.function(run, jit_compile=checks.MODES[mode], autograph=False)
    tensors = keras.tree.map_structure(tf.constant, (teacher, student))
    return run(*tensors, None if weight is None else tf.constant(weight))


@pytest.mark.parametrize("mode", checks.MODES)
@pytest.mark.parametrize("name", NAMED)
def test_margins_of_named_outputs(name, mode):
    options, teacher, student = NAMED[name]
    loss = kd.losses.MarginMSE("positive", **options)
    negatives = options["negative"]
    names = ["positive", *(negatives if isinstance(negatives, list) else [negatives])]
    keys = options.get("query"), options.get("teacher_query"), options.get("similarity", "dot")
    expected = lambda outputs: margin(teacher, outputs, names, *keys)  # noqa: E731
    value, gradient = value_and_gradient(loss, teacher, student, mode)
    np.testing.assert_allclose(value, expected(student), rtol=2e-5, atol=1e-6)
    for key in ("positive", names[1], *([keys[0]] if keys[0] else [])):
        index = (2,) if student[key].ndim == 1 else (2, 0)
        found = gradient[key].numpy()[index]
        assert found == pytest.approx(slope(expected, student, key, index), rel=2e-5, abs=5e-6)


def test_an_offset_of_the_scores_does_not_matter():
    teacher = checks.normal(5, 3)
    np.testing.assert_allclose(kd.losses.MarginMSE()(teacher, teacher + 7.0), 0.0, atol=1e-6)


# The matrix of a batch's scores.


def matrix(teacher, student, temperature, similarity="dot", rows=None):
    rows = np.ones(len(teacher["query"]), bool) if rows is None else rows
    turned = unit if similarity == "cosine" else (lambda x: x)
    pair = []
    for outputs in (teacher, student):
        q, d = (turned(np.float64(outputs[name])) for name in ("query", "positive"))
        s = np.where(rows, q @ d.T / temperature, -np.inf)
        pair.append(checks.softmax(s))
    return temperature**2 * kl(*pair)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("mode", checks.MODES)
def test_scores_of_a_batch(mode, similarity):
    teacher, student = embeddings(6, 1), embeddings(3, 7)
    loss = kd.losses.ScoreMatrixKD(0.7, document="positive", similarity=similarity)
    weight = np.float32([1.0, 0.0, 0.5, 2.0, 0.0])
    for given in (None, weight):
        rows = None if given is None else given != 0

        def expected(outputs, given=given, rows=rows):
            factor = 1.0 if given is None else np.float64(given)
            return matrix(teacher, outputs, 0.7, similarity, rows) * factor

        value, gradient = value_and_gradient(loss, teacher, student, mode, given)
        np.testing.assert_allclose(value, expected(student), rtol=2e-5, atol=1e-6)
        for name in ("query", "positive"):
            for index in ((0, 0), (3, 2)):
                found = gradient[name].numpy()[index]
                right = slope(expected, student, name, index)
                assert found == pytest.approx(right, rel=2e-5, abs=5e-6)


def test_rows_that_fill_up_a_batch_change_nothing():
    """Neither their queries nor their documents count."""
    loss = kd.losses.ScoreMatrixKD(document="positive")
    teacher, student = embeddings(6, 1), embeddings(3, 7)
    few = [{k: v[:3] for k, v in x.items()} for x in (teacher, student)]
    expected, _ = loss.weighted(*few, None)
    value, _ = loss.weighted(teacher, student, tf.constant([1.0, 1.0, 1.0, 0.0, 0.0]))
    np.testing.assert_allclose(value[:3], expected, rtol=1e-6)
    assert (value.numpy()[3:] == 0).all()
    nothing, _ = loss.weighted(teacher, student, tf.zeros(5))
    assert (nothing.numpy() == 0).all()


def test_the_temperature_is_live_and_equal_scores_are_zero():
    loss = kd.losses.ScoreMatrixKD(document="positive")
    teacher = embeddings(6, 1)
    np.testing.assert_allclose(loss(teacher, teacher), 0.0, atol=1e-6)
    student = embeddings(6, 7)
    loss.temperature = 3.0
    np.testing.assert_allclose(loss(teacher, student), matrix(teacher, student, 3.0), rtol=1e-5)
    with pytest.raises(ValueError, match="temperature"):
        loss.temperature = 0.0


# In a distiller.


def bi_encoder(width, seed, names=NAMES[:3]):
    keras.utils.set_random_seed(seed)
    inputs = {name: keras.Input((4,), name=name) for name in names}
    tower = keras.layers.Dense(width, name="tower")
    return keras.Model(inputs, {name: tower(x) for name, x in inputs.items()})


def texts(rows=12):
    return {name: checks.normal(rows, 4, seed=i) for i, name in enumerate(NAMES[:3])}


def cross_encoder(x):
    """A function as the teacher, of names that the student's outputs have."""
    return {
        name: keras.ops.sum(x["query"] * x[name] * [1.0, -2.0, 0.5, 3.0], axis=-1)
        for name in ("positive", "negative")
    }


LOSSES = {
    "cross-encoder": lambda: kd.losses.MarginMSE(
        "positive", "negative", query="query", name="scores"
    ),
    "matrix": lambda: kd.losses.ScoreMatrixKD(document="positive", name="scores"),
}


def distiller(name, student, **options):
    teacher = cross_encoder if name == "cross-encoder" else bi_encoder(6, 3)
    made = kd.Distiller(teacher, student, LOSSES[name](), alpha=0.0, beta=1.0)
    made.compile(keras.optimizers.Adam(0.05), **options)
    return made


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_bi_encoder_learns(name, jit_compile):
    made = distiller(name, bi_encoder(5, 1), jit_compile=jit_compile)
    history = made.fit(texts(), epochs=40, verbose=0).history["scores"]
    assert history[-1] < 0.5 * history[0]


@pytest.mark.parametrize("name", LOSSES)
def test_sample_weights_count_row_by_row(name):
    student = bi_encoder(5, 1)
    made = distiller(name, student, run_eagerly=True)
    x, weight = texts(), np.random.default_rng(1).uniform(size=12).astype("float32")
    weight[3] = 0.0
    embedded = student.predict(x, verbose=0)
    if name == "matrix":
        values = matrix(made.teacher.predict(x, verbose=0), embedded, 1.0, rows=weight != 0)
    else:
        taught = {k: np.asarray(v) for k, v in cross_encoder(x).items()}
        values = margin(taught, embedded, ["positive", "negative"], "query", None, "dot")
    found = made.train_on_batch(x, sample_weight=weight, return_dict=True)["scores"]
    assert found == pytest.approx((values * weight).mean(), rel=1e-4)


def test_a_saved_distiller_has_them(tmp_path):
    losses = [
        kd.losses.MarginMSE("positive", ["negative"], query="query", teacher_query="query"),
        kd.losses.ScoreMatrixKD(0.5, document="positive", similarity="cosine"),
    ]
    made = kd.Distiller(bi_encoder(6, 3), bi_encoder(5, 1), losses, alpha=0.0)
    made.compile("sgd")
    made.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    for one, other in zip(losses, loaded.distillation_losses, strict=True):
        assert type(one) is type(other)
        assert one.get_config() == other.get_config()
    logs = [m.train_on_batch(texts(), return_dict=True) for m in (made, loaded)]
    assert logs[0] == pytest.approx(logs[1], rel=1e-6)


@pytest.mark.parametrize("name", ["columns", "matrix"])
def test_peers_teach_each_other(name):
    if name == "columns":
        made = [
            keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name=f"d{i}")])
            for i in range(2)
        ]
        loss, x = kd.losses.MarginMSE(name="scores"), texts()["query"]
    else:
        made, loss, x = [bi_encoder(5, 1), bi_encoder(5, 2)], LOSSES[name](), texts()
    peers = kd.MutualDistiller(made, loss, alpha=0.0)
    peers.compile(keras.optimizers.Adam(0.05))
    history = peers.fit(x, epochs=20, verbose=0).history
    key = next(key for key in history if key.endswith("scores"))
    assert history[key][-1] < 0.7 * history[key][0]


def test_batches_of_one_row_are_refused():
    made = distiller("matrix", bi_encoder(5, 1))
    with pytest.raises(ValueError, match="needs at least 2"):
        made.fit(texts(), batch_size=1, verbose=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kd.losses.MarginMSE(-1), "`positive`.*positive=-1"),
        (lambda: kd.losses.MarginMSE(1, 1), "other than positive=1"),
        (lambda: kd.losses.MarginMSE(1, []), "negative=\\[\\]"),
        (lambda: kd.losses.MarginMSE(1, "hard"), "different columns"),
        (lambda: kd.losses.MarginMSE("positive"), "different outputs.*negative=None"),
        (lambda: kd.losses.MarginMSE("positive", ["a", "a"]), "different outputs"),
        (lambda: kd.losses.MarginMSE(query="query"), "so do `positive` and `negative`"),
        (lambda: kd.losses.MarginMSE("p", "n", similarity="cosine"), "both models give scores"),
        (lambda: kd.losses.MarginMSE("p", "n", output="p"), "`output`.*name the outputs"),
        (lambda: kd.losses.MarginMSE(mask_input="m"), "whole samples"),
        (lambda: kd.losses.ScoreMatrixKD(query=""), "query=''"),
        (lambda: kd.losses.ScoreMatrixKD(similarity="l2"), "similarity='l2'"),
        (lambda: kd.losses.ScoreMatrixKD(teacher_layer="a"), "`teacher_layer`.*name the outputs"),
        (lambda: kd.losses.ScoreMatrixKD(0.0), "temperature"),
        (
            lambda: kd.losses.MarginMSE()(np.ones((2, 1)), np.ones((2, 1))),
            r"columns 0 and all others.*\(2, 1\) from the teacher",
        ),
        (
            lambda: kd.losses.MarginMSE(0, [1, 4])(np.ones((2, 3)), np.ones((2, 3))),
            r"columns 0 and \[1, 4\]",
        ),
        (
            lambda: kd.losses.MarginMSE("positive", "other")(scalars(1), scalars(2)),
            r"'other' of the teacher, which has the outputs \['hard', 'negative', 'positive'\]",
        ),
        (
            lambda: kd.losses.MarginMSE("positive", "hard")(scalars(1), embeddings(3, 1)),
            "from the student.*name that of the query in `query`",
        ),
        (
            lambda: kd.losses.MarginMSE("positive", "hard", query="query")(
                embeddings(3, 1), embeddings(3, 1)
            ),
            "from the teacher.*in `teacher_query`",
        ),
        (
            lambda: kd.losses.MarginMSE("positive", "hard", query="query")(
                scalars(1), {**embeddings(3, 1), "query": np.ones((5, 4), "float32")}
            ),
            "embeddings of shape .batch, width. from the student, all of one width",
        ),
        (
            lambda: kd.losses.ScoreMatrixKD()(np.ones((2, 3)), np.ones((2, 3))),
            "'query' of the teacher, which has outputs without names.*Let the model return a dict",
        ),
        (
            lambda: kd.losses.ScoreMatrixKD(document="hard")(
                embeddings(3, 1), {n: np.ones((5, 2, 3), "float32") for n in NAMES}
            ),
            "from the student.*Pool a sequence",
        ),
    ],
)
def test_bad_arguments_and_outputs(make, message):
    with pytest.raises(ValueError, match=message):
        make()
