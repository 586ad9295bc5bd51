"""Per-row weighting: what each row counts for, in the fused and in the separate path."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests import reference
from tests.distiller import linear
from tests.distiller.linear import compiled, logits_of
from tests.losses.checks import softmax

X, Y = linear.data(16)


def shares(kind, p, y):
    confidence, entropy = p.max(-1), -(p * np.log(p)).sum(-1)
    return {
        "confidence": np.where(confidence < 0.7, 0.2, 0.9),
        "correctness": np.where(p.argmax(-1) == y, 0.8, 0.1),
        "entropy": 0.9 + (0.1 - 0.9) * entropy / np.log(p.shape[-1]),
        "classes": np.array([0.1, 0.4, 0.6, 1.0])[y],
    }[kind]


KINDS = {
    "confidence": lambda: kd.weighting.TeacherConfidence(0.7, low=0.2, high=0.9),
    "correctness": lambda: kd.weighting.TeacherCorrectness(wrong=0.1, right=0.8),
    "entropy": lambda: kd.weighting.TeacherEntropy(low=0.1, high=0.9),
    "classes": lambda: kd.weighting.ClassShares([0.1, 0.4, 0.6, 1.0]),
}


def expected(kind, teacher, student, sample_weight):
    """Loss, hard loss and soft loss of a batch, and the weights after a step of 0.1."""
    t, s = logits_of(teacher, X), logits_of(student, X)
    share = shares(kind, softmax(t), Y)
    weight = np.ones(16) if sample_weight is None else np.float64(sample_weight)
    hard_row, soft_row = 2 * (1 - share) * weight / 16, 2 * share * weight / 16
    hard = (hard_row * reference.hard_loss(s, Y)).sum()
    soft = (soft_row * reference.soft_target_loss(s, t, 4.0)).sum()
    slope = 0.3 * hard_row[:, None] * reference.hard_gradient(s, Y)
    slope += 0.7 * soft_row[:, None] * reference.soft_target_gradient(s, t, 4.0)
    kernel, bias = (np.float64(w) for w in student.get_weights())
    weights = [kernel - 0.1 * np.float64(X).T @ slope, bias - 0.1 * slope.sum(0)]
    return {"loss": 0.3 * hard + 0.7 * soft, "hard_loss": hard, "soft_targets": soft}, weights


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("path", ["fused", "separate"])
@pytest.mark.parametrize("mode", linear.MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_step(kind, mode, path, weighted):
    teacher, student = linear.pair()
    sample_weight = linear.weights_of(16) if weighted else None
    losses, weights = expected(kind, teacher, student, sample_weight)
    args = {"loss": linear.from_logits()} if path == "fused" else {"loss": separate()}
    made = compiled(
        teacher, student, alpha=0.3, beta=0.7, weighting=KINDS[kind](), mode=mode, compile_args=args
    )
    history = made.fit(X, Y, sample_weight=sample_weight, batch_size=16, verbose=0).history
    for name, value in losses.items():
        assert history[name][0] == pytest.approx(value, rel=1e-5), name
    for found, wanted in zip(student.get_weights(), weights, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)


def separate():
    """A hard loss that the fused path does not take."""

    def loss(y, logits):
        return keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)

    return loss


def test_half_is_neutral():
    students = []
    for weighting in (None, kd.weighting.TeacherConfidence(low=0.5, high=0.5)):
        teacher, student = linear.pair()
        compiled(teacher, student, weighting=weighting).fit(X, Y, verbose=0, shuffle=False)
        students.append(student.get_weights())
    for a, b in zip(*students, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_evaluation_with_teacher_reports_the_objective():
    teacher, student = linear.pair()
    losses, _ = expected("entropy", teacher, student, None)
    made = compiled(teacher, student, alpha=0.3, beta=0.7, weighting=KINDS["entropy"]())
    found = made.evaluate(X, Y, with_teacher=True, return_dict=True, verbose=0)
    for name, value in losses.items():
        assert found[name] == pytest.approx(value, rel=1e-5)
    # The student's own evaluation is not weighted.
    plain = made.evaluate(X, Y, return_dict=True, verbose=0)["loss"]
    assert plain == pytest.approx(reference.hard_loss(logits_of(student, X), Y).mean(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_saved(kind, tmp_path):
    made = compiled(*linear.pair(), weighting=KINDS[kind]())
    made.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert type(loaded.weighting) is type(made.weighting)
    assert loaded.weighting.get_config() == made.weighting.get_config()
    histories = [m.fit(X, Y, shuffle=False, verbose=0).history for m in (made, loaded)]
    assert histories[0] == histories[1]


@pytest.mark.parametrize("form", ["indices", "one-hot"])
@pytest.mark.parametrize("kind", ["correctness", "classes"])
def test_rows_without_a_label_keep_their_teacher(kind, form):
    probabilities = softmax(np.float64(X)[:, :4]).astype("float32")
    labels = np.where(np.arange(16) % 2, Y, -1)
    labels = labels if form == "indices" else np.eye(5)[labels][:, :4]  # the last of 5 is none
    found = np.asarray(KINDS[kind]().shares(probabilities, labels))
    np.testing.assert_array_equal(found[::2], np.full(8, 0.5, "float32"))
    expected = shares(kind, np.float64(probabilities), Y)[1::2]
    np.testing.assert_allclose(found[1::2], expected, rtol=1e-6)


def test_probabilities():
    weighting = kd.weighting.TeacherConfidence(0.7, low=0.0, high=1.0, from_logits=False)
    teacher = linear.linear(1, activation="softmax")
    student = linear.linear(2, activation="softmax")
    made = kd.Distiller(
        teacher, student, kd.losses.SoftTargets(from_logits=False), weighting=weighting
    )
    made.compile("sgd", "sparse_categorical_crossentropy")
    found = made.evaluate(X, Y, with_teacher=True, return_dict=True, verbose=0)["hard_loss"]
    p, q = (softmax(logits_of(model, X)) for model in (teacher, student))
    values = -np.log(q[np.arange(16), Y]) * 2 * (p.max(-1) < 0.7)
    assert found == pytest.approx(values.mean(), rel=1e-5)


def test_several_outputs():
    def model(seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((5,))
        return keras.Model(inputs, {n: keras.layers.Dense(4, name=n)(inputs) for n in ("a", "b")})

    def made(weighting):
        distiller = kd.Distiller(model(1), model(2), weighting=weighting)
        distiller.compile("sgd", {"a": linear.from_logits(), "b": linear.from_logits()})
        return distiller

    with pytest.raises(ValueError, match=r"reads one output of the teacher, which has 2"):
        made(kd.weighting.TeacherConfidence())
    distiller = made(kd.weighting.TeacherCorrectness(0.0, 1.0, output="b"))
    found = distiller.evaluate(X, {"a": Y, "b": Y}, with_teacher=True, return_dict=True, verbose=0)
    t, s = (m.predict(X, verbose=0) for m in (distiller.teacher, distiller.student))
    wrong = t["b"].argmax(-1) != Y
    values = sum(reference.hard_loss(np.float64(s[n]), Y) for n in ("a", "b"))
    assert found["hard_loss"] == pytest.approx((2 * wrong * values).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kd.weighting.TeacherConfidence(1.5), "threshold=1.5"),
        (lambda: kd.weighting.TeacherConfidence(low=-1), "low=-1"),
        (lambda: kd.weighting.TeacherCorrectness(right=2), "right=2"),
        (lambda: kd.weighting.ClassShares([0.5, 3]), r"shares\[1\]=3"),
        (lambda: kd.Distiller(*linear.pair(), weighting="confidence"), "weighting='confidence'"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"activation": "softmax"}, r"teacher ends in softmax.*Confidence\(from_logits=False"),
        ({"classes": 1}, r"value for each class.*shape \(None, 1\)"),
    ],
)
def test_a_teacher_that_cannot_be_read(teacher, message):
    pair = linear.linear(1, **teacher), linear.linear(2, **teacher)
    weighting = kd.weighting.TeacherConfidence()
    with pytest.raises(ValueError, match=message):
        kd.Distiller(*pair, kd.losses.RegressionKD(), weighting=weighting)
    # The outputs of a callable are unknown before it runs.
    if "classes" in teacher:
        made = kd.Distiller(pair[0].call, pair[1], kd.losses.RegressionKD(), weighting=weighting)
        made.compile("sgd", "mse")
        with pytest.raises(ValueError, match=message):
            made.fit(X, np.float32(Y), verbose=0)


def test_what_does_not_fit_the_data():
    made = compiled(*linear.pair(), weighting=kd.weighting.ClassShares([0.5, 0.5]))
    with pytest.raises(ValueError, match="2 shares, and the teacher has 4 classes"):
        made.fit(X, Y, verbose=0)
    made = compiled(*linear.pair(), weighting=KINDS["correctness"](), alpha=0.0)
    with pytest.raises(ValueError, match="TeacherCorrectness needs labels"):
        made.fit(X, verbose=0)
