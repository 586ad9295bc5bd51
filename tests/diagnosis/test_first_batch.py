"""The checks of one batch: what they notice, and that they do not cry wolf."""

import math

import numpy as np
import pytest

import keras_kd as kd
from keras_kd._utils import statistics
from tests import reference
from tests.diagnosis import made_up

found_in = kd.diagnosis.first_batch_findings


def messages(*args, **kwargs):
    return " ".join(finding.message for finding in found_in(*args, **kwargs))


def batch(rows=64, classes=10, accuracy=0.9, seed=0):
    labels = np.random.default_rng([seed, rows]).integers(classes, size=rows)
    return made_up.answers(labels, classes, accuracy, seed=seed), labels


def test_nothing_is_wrong_with_a_healthy_batch():
    logits, labels = batch()
    assert found_in(logits, logits[::-1], labels) == []
    assert found_in(logits, None, None) == []
    assert found_in(logits, logits, np.eye(10)[labels]) == []
    probabilities = np.exp(reference.log_softmax(logits))
    assert found_in(probabilities, probabilities, labels, from_logits=False) == []


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_probabilities_and_logits(role):
    logits, labels = batch()
    probabilities = np.exp(reference.log_softmax(logits))
    pair = {"teacher": logits, "student": logits, role: probabilities}
    text = messages(pair["teacher"], pair["student"], labels)
    assert f"The {role} ends in softmax" in text
    assert text.count("ends in") == 1
    pair = {"teacher": probabilities, "student": probabilities, role: logits}
    text = messages(pair["teacher"], pair["student"], labels, from_logits=False)
    assert f"The {role} returns no probabilities" in text
    assert text.count("returns") == 1


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(role, bad):
    logits, labels = batch()
    broken = logits.copy()
    broken[3, 3] = bad
    pair = {"teacher": logits, "student": logits, role: broken}
    assert f"1 of 64 rows of the {role}'s outputs hold NaN" in messages(*pair.values(), labels)


def test_all_rows_may_be_nan():
    logits, labels = batch()
    text = messages(np.full_like(logits, np.nan), logits, labels)
    assert "64 of 64 rows of the teacher's outputs" in text


def test_uninformative_outputs():
    logits, labels = batch()
    same = np.tile(logits[:1], (64, 1))
    assert "same outputs for all 64 rows" in messages(same, logits, labels)
    # Inputs may be equal, as in a test of a training loop; then labels are too.
    assert found_in(same, logits, np.full(64, same[0].argmax())) == []
    # A student that begins at zero learns.
    assert found_in(logits, np.zeros_like(logits), labels) == []


@pytest.mark.parametrize(("rows", "classes"), [(64, 10), (64, 100), (256, 2), (256, 4)])
def test_a_teacher_that_guesses(rows, classes):
    """Accused in at least half of such batches, on these sizes; a useful one is not."""
    accused = healthy = 0
    for seed in range(40):
        logits, labels = batch(rows, classes, accuracy=1 / classes, seed=seed)
        accused += "may be guessing" in messages(logits, None, labels)
        logits, labels = batch(rows, classes, 1 / classes + 0.35 * (1 - 1 / classes), seed)
        healthy += "may be guessing" in messages(logits, None, labels)
    assert accused > 20
    assert healthy == 0


def test_few_rows_accuse_nobody():
    logits, labels = batch(17, 10, accuracy=0.0)
    assert found_in(logits, None, labels) == []
    logits, labels = batch(18, 10, accuracy=0.0)
    assert "may be guessing" in messages(logits, None, labels)


def test_a_batch_of_one_class_accuses_nobody():
    labels = np.zeros(64, int)
    labels[:5] = 1
    logits = made_up.answers(labels, 10, 0.0)
    assert found_in(logits, None, labels) == []


@pytest.mark.parametrize(
    "labels",
    [np.full(64, -1), np.full(64, 11), np.linspace(0, 1, 64), np.ones((64, 3)), np.ones((64, 10))],
    ids=["no labels", "out of range", "numbers", "another width", "several at once"],
)
def test_labels_that_are_not_classes_are_not_checked(labels):
    logits, _ = batch(accuracy=0.0)
    assert found_in(logits, logits, labels) == []


def test_positions_of_sequences_are_rows():
    logits, labels = batch(64, 10, accuracy=0.0)
    shaped = logits.reshape(8, 8, 10), labels.reshape(8, 8)
    assert "may be guessing" in messages(shaped[0], None, shaped[1])
    assert "may be guessing" in messages(shaped[0], None, shaped[1][..., None])


def test_what_it_cannot_judge():
    with pytest.raises(ValueError, match="The teacher has 2 outputs in a list"):
        found_in([np.zeros((2, 3))] * 2)
    with pytest.raises(ValueError, match=r"The student gives outputs of shape \(4, 1\)"):
        found_in(np.zeros((4, 3)), np.zeros((4, 1)))


@pytest.mark.parametrize("rows", [1, 7, 64, 400])
@pytest.mark.parametrize("probability", [0.01, 0.325, 0.9])
def test_binomial(rows, probability):
    exact = [
        math.comb(rows, i) * probability**i * (1 - probability) ** (rows - i) for i in range(rows)
    ]
    for right in sorted({0, 1, rows // 3, rows - 1}):
        expected = math.fsum(exact[: right + 1]) if right < rows else 1.0
        assert statistics.binomial_cdf(right, rows, probability) == pytest.approx(
            expected, rel=1e-9
        )
    assert statistics.binomial_cdf(-1, rows, probability) == 0.0
    assert statistics.binomial_cdf(rows, rows, probability) == 1.0


def test_binomial_of_a_million_rows():
    assert statistics.binomial_cdf(500_000, 1_000_000, 0.5) == pytest.approx(0.5004, abs=1e-4)
