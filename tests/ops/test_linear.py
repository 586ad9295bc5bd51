"""Losses from hidden states and heads, in chunks: values and gradients equal float64."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from keras_kd import ops
from keras_kd.ops import linear, linear_head
from keras_kd.ops.sparse_logits import SparseLogits
from tests import matrix, reference

ROWS, WORDS, WIDTH, TEACHER_WIDTH = 23, 41, 6, 9
TEMPERATURE = 2.0
CHUNKS = {"one": 1, "seven": 7, "all": ROWS}
IGNORED = -100


def memory_mb(rows, words=WORDS):
    """The budget of a chunk of so many rows: logits of both models and a gradient, float32."""
    return rows * words * 12 / 2**20 * 1.001


@dataclasses.dataclass(frozen=True)
class Head:
    """A head in NumPy, with the derivative of its cap."""

    kernel: np.ndarray  # [width, words]
    bias: np.ndarray | None = None
    tied: bool = False
    soft_cap: float | None = None
    scale: float = 1.0

    def logits(self, hidden):
        z = hidden @ self.kernel + (0.0 if self.bias is None else self.bias)
        z = z * self.scale
        return z if self.soft_cap is None else self.soft_cap * np.tanh(z / self.soft_cap)

    def slope(self, hidden):
        """The derivative of the logits by `hidden @ kernel + bias`."""
        if self.soft_cap is None:
            return self.scale
        return self.scale * (1.0 - (self.logits(hidden) / self.soft_cap) ** 2)

    def made(self, dtype="float32"):
        kernel = self.kernel.T if self.tied else self.kernel
        bias = None if self.bias is None else tf.constant(self.bias, dtype)
        return ops.LinearHead(
            tf.constant(kernel, dtype), bias, self.tied, self.soft_cap, self.scale
        )


def random_head(width, seed, words=WORDS, bias=False, **options):
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(width, words)).astype("float32")
    bias = rng.normal(size=words).astype("float32") if bias else None
    return Head(kernel, bias, **options)


@dataclasses.dataclass(frozen=True)
class Case:
    """Two models' hidden states and heads, labels and weights."""

    student_head: Head
    teacher_head: Head
    seed: int = 0

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        made = {
            "student": rng.normal(size=(ROWS, WIDTH)).astype("float32"),
            "teacher": rng.normal(size=(ROWS, TEACHER_WIDTH)).astype("float32"),
            "labels": rng.integers(WORDS, size=ROWS),
            "hard_weight": rng.uniform(0.1, 1.0, ROWS).astype("float32"),
            "soft_weight": rng.uniform(0.1, 1.0, ROWS).astype("float32"),
        }
        made["labels"][[2, 3, 11]] = IGNORED
        made["hard_weight"][5] = made["soft_weight"][[6, 7]] = 0.0
        made["hard_weight"][7] = 0.0  # counts nowhere
        for name, value in made.items():
            object.__setattr__(self, name, value)

    def truth(self, divergence="forward_kl", **options):
        """`(hard, soft, gradients of the mean by hidden, kernel and bias)` in float64."""
        counts = self.labels != IGNORED
        hidden = self.student.astype(np.float64)
        student, teacher = self.student_head.logits(hidden), self.teacher_head.logits(self.teacher)
        labels = np.where(counts, self.labels, 0)
        args = student, teacher.astype(np.float64), TEMPERATURE, divergence
        hard = reference.hard_loss(student, labels)
        soft = reference.soft_target_loss(*args, **options)
        shares = [w * counts / counts.sum() for w in (self.hard_weight, self.soft_weight)]
        slope = shares[0][:, None] * reference.hard_gradient(student, labels)
        slope += shares[1][:, None] * reference.soft_target_gradient(*args, **options)
        slope = slope * self.student_head.slope(hidden)
        loss = (shares[0] * hard + shares[1] * soft).sum()
        of_kernel = hidden.T @ slope
        of_kernel = of_kernel.T if self.student_head.tied else of_kernel
        gradients = [slope @ self.student_head.kernel.T.astype(np.float64), of_kernel]
        if self.student_head.bias is not None:
            gradients.append(slope.sum(axis=0))
        correct = (student.argmax(-1) == labels) & (shares[0] + shares[1] > 0)
        return loss, hard * (shares[0] > 0), soft * (shares[1] > 0), correct, gradients

    def run(self, mode, dtype="float32", **options):
        """The same of the operation, and the gradients."""
        head = self.student_head.made(dtype)
        inputs = [tf.constant(self.student, dtype), head.kernel]
        inputs += [] if head.bias is None else [head.bias]
        given = {
            "labels": self.labels,
            "hard_weight": self.hard_weight,
            "soft_weight": self.soft_weight,
            "temperature": TEMPERATURE,
            "ignore_label": IGNORED,
            **options,
        }

        def step(hidden, kernel, bias=None):
            with tf.GradientTape() as tape:
                tape.watch([hidden, kernel] if bias is None else [hidden, kernel, bias])
                own = dataclasses.replace(head, kernel=kernel, bias=bias)
                teacher_head = self.teacher_head.made(dtype)
                teacher = tf.constant(self.teacher, dtype)
                found = ops.linear_soft_target_loss(hidden, own, teacher, teacher_head, **given)
            watched = [hidden, kernel] if bias is None else [hidden, kernel, bias]
            return found, tape.gradient(found.loss, watched)

        if mode != "eager":
            step = tf.function(step, jit_compile=mode == "xla", autograph=False)
        found, gradients = step(*inputs)
        return found, [gradient.numpy() for gradient in gradients]


HEADS = {
    "plain": functools.partial(Case, random_head(WIDTH, 1), random_head(TEACHER_WIDTH, 2)),
    "tied": functools.partial(
        Case,
        random_head(WIDTH, 1, tied=True),
        random_head(TEACHER_WIDTH, 2, tied=True, bias=True),
    ),
    "bias and cap": functools.partial(
        Case,
        random_head(WIDTH, 1, bias=True, soft_cap=3.0, scale=0.5),
        random_head(TEACHER_WIDTH, 2, soft_cap=4.0),
    ),
}


def assert_close(found, gradients, truth, tolerance=3e-6):
    loss, hard, soft, correct, slopes = truth
    np.testing.assert_allclose(found.loss, loss, rtol=tolerance)
    np.testing.assert_allclose(found.hard, hard, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found.soft, soft, rtol=tolerance, atol=10 * tolerance)
    np.testing.assert_array_equal(found.is_correct, correct)
    for gradient, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("mode", matrix.MODES)
@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("heads", HEADS)
def test_losses_and_gradients(mode, heads, chunk):
    case = HEADS[heads]()
    found, gradients = case.run(mode, memory_mb=memory_mb(CHUNKS[chunk]))
    assert_close(found, gradients, case.truth())


@pytest.mark.parametrize("mode", matrix.modes("eager", "graph"))
@pytest.mark.parametrize("heads", HEADS)
def test_a_heads_gradient_in_blocks_that_are_added_in_place(heads, mode, monkeypatch):
    monkeypatch.setattr(linear_head, "_BLOCK_BYTES", 4 * 11 * (WIDTH + 1))
    case = HEADS[heads]()
    case.labels[[2, 3]] = 4  # other shapes of the rows that count than other tests have traced
    found, gradients = case.run(mode, memory_mb=memory_mb(3))
    assert_close(found, gradients, case.truth())


@pytest.mark.parametrize("mode", matrix.MODES)
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_the_gradient_times_any_upstream_as_often_as_asked(factor, mode):
    """A sum that began in a constant of a graph would begin with the last call's gradient."""
    case = HEADS["tied"]()
    head = case.student_head.made()

    def step(kernel, upstream):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(kernel)
            own = dataclasses.replace(head, kernel=kernel)
            given = case.student, own, case.teacher, case.teacher_head.made(), case.labels
            options = {"hard_weight": case.hard_weight, "soft_weight": case.soft_weight}
            options |= {"temperature": TEMPERATURE, "ignore_label": IGNORED}
            loss = ops.linear_soft_target_loss(*given, memory_mb=memory_mb(7), **options).loss
        return [tape.gradient(loss, kernel, upstream) for _ in range(2)]

    if mode != "eager":
        step = tf.function(step, jit_compile=mode == "xla", autograph=False)
    expected = factor * case.truth()[-1][1]
    for _ in range(2):
        for gradient in step(head.kernel, tf.constant(factor)):
            np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", matrix.MODES)
@pytest.mark.parametrize("divergence", reference.DIVERGENCES)
def test_every_divergence(mode, divergence):
    options = {"mixing_weight": 0.3} if divergence == "jsd" else {}
    case = HEADS["bias and cap"]()
    found, gradients = case.run(mode, divergence=divergence, memory_mb=memory_mb(4), **options)
    assert_close(found, gradients, case.truth(divergence, **options))


@pytest.mark.parametrize("mode", matrix.MODES)
def test_one_loss_a_position_has_any_upstream(mode):
    case = HEADS["tied"]()
    upstream = np.random.default_rng(3).normal(size=ROWS).astype("float32")
    head = case.student_head.made()

    def step(hidden, kernel):
        with tf.GradientTape() as tape:
            tape.watch([hidden, kernel])
            found = ops.linear_soft_target_loss(
                hidden,
                dataclasses.replace(head, kernel=kernel),
                case.teacher,
                case.teacher_head.made(),
                temperature=TEMPERATURE,
                soft_weight=case.soft_weight,
                reduction=None,
                memory_mb=memory_mb(5),
            )
        return found.loss, tape.gradient(found.loss, [hidden, kernel], upstream)

    if mode != "eager":
        step = tf.function(step, jit_compile=mode == "xla", autograph=False)
    loss, gradients = step(tf.constant(case.student), head.kernel)
    student = case.student_head.logits(case.student.astype(np.float64))
    teacher = case.teacher_head.logits(case.teacher.astype(np.float64))
    expected = reference.soft_target_loss(student, teacher, TEMPERATURE) * case.soft_weight
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)
    slope = reference.soft_target_gradient(student, teacher, TEMPERATURE)
    slope *= (upstream * case.soft_weight)[:, None]
    np.testing.assert_allclose(gradients[0], slope @ case.student_head.kernel.T, atol=2e-5)
    np.testing.assert_allclose(gradients[1], slope.T @ case.student, atol=2e-5)


@pytest.mark.parametrize("words", [(WORDS, WORDS + 8), (WORDS + 8, WORDS)])
def test_vocabularies_with_rows_in_common(words):
    """The divergence is over the first words that both have, the labels' loss over all."""
    common = min(words)
    case = Case(random_head(WIDTH, 1, words[0]), random_head(TEACHER_WIDTH, 2, words[1]))
    found, gradients = case.run("eager", vocabulary="common", memory_mb=memory_mb(4, max(words)))
    student = case.student_head.logits(case.student.astype(np.float64))
    teacher = case.teacher_head.logits(case.teacher.astype(np.float64))[:, :common]
    counts = case.labels != IGNORED
    labels = np.where(counts, case.labels, 0)
    shares = [w * counts / counts.sum() for w in (case.hard_weight, case.soft_weight)]
    soft = reference.soft_target_loss(student[:, :common], teacher, TEMPERATURE)
    np.testing.assert_allclose(found.soft, soft * (shares[1] > 0), rtol=1e-5, atol=1e-5)
    slope = shares[0][:, None] * reference.hard_gradient(student, labels)
    slope[:, :common] += shares[1][:, None] * reference.soft_target_gradient(
        student[:, :common], teacher, TEMPERATURE
    )
    np.testing.assert_allclose(gradients[0], slope @ case.student_head.kernel.T, atol=1e-5)


def test_a_teacher_of_logits_and_one_of_the_largest():
    """A cache gives logits, or the largest and the mass of the others."""
    case = HEADS["plain"]()
    teacher = case.teacher_head.logits(case.teacher)
    options = {"temperature": TEMPERATURE, "memory_mb": memory_mb(4), "reduction": None}
    whole = ops.linear_soft_target_loss(
        case.student, case.student_head.made(), teacher, **options
    ).loss
    student = case.student_head.logits(case.student.astype(np.float64))
    expected = reference.soft_target_loss(student, teacher, TEMPERATURE)
    np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-5)
    largest = ops.sparse_logits.keep_largest(tf.constant(teacher), 5)
    assert isinstance(largest, SparseLogits)
    pooled = ops.linear_soft_target_loss(
        case.student, case.student_head.made(), largest, **options
    ).loss
    apart = ops.sparse_soft_target_loss(
        student.astype("float32"),
        largest.logits,
        largest.indices,
        largest.rest(tf.constant(TEMPERATURE)),
        TEMPERATURE,
    )
    np.testing.assert_allclose(pooled, apart, rtol=1e-5, atol=1e-5)
    assert (pooled.numpy() <= whole.numpy() + 1e-4).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_sums_in_float32(dtype):
    """Gradients of the head are sums over all rows, and keep what single chunks cannot."""
    case = HEADS["plain"]()
    rounded = Case(
        Head(np.asarray(tf.cast(tf.cast(case.student_head.kernel, dtype), "float32"))),
        case.teacher_head,
    )
    found, gradients = case.run("eager", dtype, memory_mb=memory_mb(4))
    loss, _, _, _, slopes = rounded.truth()
    limit = 0.02 if dtype == "bfloat16" else 0.004
    np.testing.assert_allclose(found.loss, loss, rtol=limit)
    assert [gradient.dtype.name for gradient in gradients] == [dtype] * 2
    for gradient, slope in zip(gradients, slopes, strict=True):
        error = np.abs(gradient.astype(np.float64) - slope).max()
        assert error < 3 * limit * np.abs(slope).max()


def test_positions_that_do_not_count_are_left_out_and_may_hold_anything():
    case = HEADS["plain"]()
    found, gradients = case.run("eager", memory_mb=memory_mb(4))
    for row in (2, 3, 7, 11):  # ignored, or of weight zero
        case.student[row] = case.teacher[row] = np.nan
    other, slopes = case.run("eager", memory_mb=memory_mb(4))
    assert other.loss == found.loss
    for gradient, slope in zip(gradients, slopes, strict=True):
        np.testing.assert_array_equal(gradient, slope)


def test_nothing_counts():
    case = HEADS["plain"]()
    case.labels[:] = IGNORED
    found, gradients = case.run("graph")
    assert found.loss == 0.0
    assert all((gradient == 0).all() for gradient in gradients)


def test_without_a_teacher_it_is_the_cross_entropy():
    case = HEADS["plain"]()
    labels = np.where(case.labels == IGNORED, 0, case.labels)
    found = ops.linear_soft_target_loss(
        case.student, case.student_head.made(), labels=labels, hard_weight=1.0
    )
    student = case.student_head.logits(case.student.astype(np.float64))
    np.testing.assert_allclose(found.loss, reference.hard_loss(student, labels).mean(), rtol=1e-6)
    assert (found.soft.numpy() == 0).all()


def test_leading_dimensions_stay():
    case = HEADS["plain"]()
    found = ops.linear_soft_target_loss(
        case.student[:22].reshape(2, 11, WIDTH),
        case.student_head.made(),
        case.teacher[:22].reshape(2, 11, TEACHER_WIDTH),
        case.teacher_head.made(),
        reduction=None,
    )
    assert {tuple(part.shape) for part in found} == {(2, 11)}


def test_a_chunk_has_the_rows_that_fit():
    assert linear.chunk_rows(64, 32000) == 128  # 64 MB / (3 * 4 * 32,000 bytes) = 174
    assert linear.chunk_rows("auto", 32000) == linear.chunk_rows("auto", 128000) == 128
    assert linear.chunk_rows("auto", 1000) == 4096
    assert linear.chunk_rows(1e-9, 32000) == 1
    assert linear.chunk_rows(64, 32000, rows=5) == 5


def test_it_takes_no_second_gradient():
    case = HEADS["plain"]()
    hidden = tf.constant(case.student)
    with tf.GradientTape() as outer:
        outer.watch(hidden)
        with tf.GradientTape() as inner:
            inner.watch(hidden)
            loss = ops.linear_soft_target_loss(
                hidden, case.student_head.made(), case.teacher, case.teacher_head.made()
            ).loss
        gradient = inner.gradient(loss, hidden)
    with pytest.raises(NotImplementedError, match="Second-order"):
        outer.gradient(gradient, hidden)


def call(**changes):
    case = HEADS["plain"]()
    given = {
        "student_hidden": case.student,
        "student_head": case.student_head.made(),
        "teacher_hidden": case.teacher,
        "teacher_head": case.teacher_head.made(),
        **changes,
    }
    return ops.linear_soft_target_loss(**given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student_head": np.ones((3, 4))}, "student_head.*LinearHead.*ndarray"),
        ({"student_hidden": np.ones((3, 5), "f")}, r"must end in the width.*\(6, 41\).*is_tied"),
        ({"student_hidden": np.ones((3, 6), "i")}, "hidden states, one of.*int32"),
        ({"teacher_hidden": np.ones((3, 9), "f")}, "the same positions.*language.label"),
        ({"teacher_hidden": None}, "`teacher_head` was given without"),
        ({"ignore_label": 0}, "needs `labels`"),
        ({"labels": np.zeros(ROWS, "f")}, "labels.*class indices"),
        ({"labels": np.zeros(4, int)}, "labels.*shape"),
        ({"temperature": 0.0}, "temperature"),
        ({"divergence": "l2"}, "divergence"),
        ({"reduction": "max"}, "reduction"),
        ({"vocabulary": "any"}, "vocabulary"),
        ({"memory_mb": 0}, "memory_mb"),
        ({"hard_weight": np.ones(4, "f")}, "hard_weight"),
        (
            {"teacher_head": random_head(TEACHER_WIDTH, 2, 50).made()},
            r"41 words, the teacher 50.*vocabulary=\"common\"",
        ),
    ],
)
def test_wrong_calls(changes, message):
    with pytest.raises(ValueError, match=message):
        call(**changes)


def test_a_label_out_of_range_is_named():
    labels = np.zeros(ROWS, int)
    labels[3] = WORDS
    with pytest.raises(tf.errors.InvalidArgumentError, match=str(WORDS)):
        call(labels=labels, hard_weight=1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": np.ones(3)}, "kernel.*matrix"),
        ({"kernel": np.ones((3, 4)), "bias": np.ones(3)}, r"bias.*\(4,\)"),
        ({"kernel": np.ones((3, 4)), "soft_cap": 0.0}, "soft_cap"),
        ({"kernel": np.ones((3, 4)), "scale": -1.0}, "scale"),
        ({"kernel": np.ones((3, 4)), "dtype": "int8"}, "dtype"),
    ],
)
def test_wrong_heads(arguments, message):
    with pytest.raises(ValueError, match=message):
        ops.LinearHead(**arguments)
