"""Every way into every op gives what its kernel gives eagerly, on one batch that holds it all.

These run in each mode in every run. The other tests of the ops say what is right, of eager calls
above all; the quick matrix (`tests/matrix.py`) takes few of their other modes, because of these.
"""

import numpy as np
import pytest

from tests import logits, reference
from tests.op_mode import OpMode

INF, NAN = np.inf, np.nan
MAX = np.finfo(np.float32).max
ROWS, CLASSES, KEPT = logits.ROWS, logits.SHORT, 3
TEMPERATURE, MIXING = 2.0, 0.3
CLEAN = np.arange(ROWS) >= 28
WITH_DIVERGENCES = pytest.mark.parametrize("divergence", reference.DIVERGENCES)


def dense(is_clean=False):
    """Student and teacher logits. Rows from 28 on are usual ones."""
    student, teacher = logits.near_teacher(ROWS, CLASSES, TEMPERATURE)
    if is_clean:
        return student, teacher
    student[0, 0], teacher[1, 9], student[2, 3] = NAN, NAN, INF
    teacher[3, 4], student[4], teacher[5] = INF, -INF, -INF
    student[6, 2] = -INF  # a class that only the teacher allows, and the other way around
    teacher[7, 2] = -INF
    student[8, 1:] = teacher[8, 1:] = -INF  # one class is left
    student[9, 5] = teacher[9, 5] = -INF
    student[10, 7], teacher[11, 7], student[12] = 1e30, MAX, MAX
    student[13], teacher[13] = np.resize([MAX, -MAX, 0], CLASSES), np.resize([-MAX, MAX], CLASSES)
    student[14] *= 1e4
    student[15], teacher[16], student[17] = 0.0, 1.5, teacher[17]  # ties, equal models
    student[18] = student[18] * np.float32(1e-40)  # denormal
    teacher[19], teacher[19, 3] = 0.0, 80.0  # certain
    student[20] += 1000.0
    student[21, 0] = teacher[22, 1] = NAN  # of weight zero
    student[23] = INF
    student[25] = np.array(0xFFE12345, np.uint32).view(np.float32)  # a NaN with sign and payload
    return student, teacher


def weights():
    """Per row; rows 21 to 24 have weight 0."""
    weight = np.linspace(0.5, 2.0, ROWS, dtype=np.float32)
    weight[21:25] = 0.0
    return weight


def upstream(seed):
    values = np.random.default_rng(seed).standard_normal(ROWS).astype(np.float32)
    values[26], values[27] = 0.0, 100.0
    return values


def soft(mode, divergence, is_clean=False):
    return mode.soft(
        *dense(is_clean), TEMPERATURE, divergence, MIXING, weights(), upstream=upstream(1)
    )


def sparse(mode, divergence, is_clean=False):
    _, teacher = dense(is_clean=True)
    values, indices, tail = logits.keep_largest(teacher, KEPT, TEMPERATURE)
    student, broken = dense(is_clean)
    if not is_clean:
        some = [1, 3, 5, 7, 8, 9, 11, 13, 16, 19, 22]
        values[some] = np.take_along_axis(broken, indices, -1)[some]
        tail[[5, 8]], tail[12], tail[18] = -INF, NAN, INF
        indices[23, 0], indices[24, 0] = CLASSES, indices[24, 1]  # of weight zero
    return mode.sparse(
        student,
        values,
        indices,
        tail,
        TEMPERATURE,
        divergence,
        MIXING,
        weights(),
        upstream=upstream(1),
    )


def labels():
    return np.arange(ROWS) % CLASSES


def hard_and_soft(mode, divergence, is_clean=False):
    given = labels()
    given[[21, 26]] = -100
    return mode.hard_and_soft(
        *dense(is_clean),
        given,
        TEMPERATURE,
        divergence,
        ignore_label=-100,
        sample_weight=weights(),
        hard_upstream=upstream(1),
        soft_upstream=upstream(2),
    )


def combined(mode, divergence, is_clean=False):
    hard, of_soft = weights(), weights()[::-1].copy()
    of_soft[21:25] = 0.0
    of_soft[[0, 2]] = 0.0  # a part alone may weigh nothing
    return mode.combined(
        *dense(is_clean),
        labels(),
        hard,
        of_soft,
        TEMPERATURE,
        divergence,
        MIXING,
        upstream=upstream(1),
    )


OPS = {each.__name__: each for each in (soft, sparse, hard_and_soft, combined)}


@pytest.mark.every_mode
@pytest.mark.parametrize("op", OPS)
def test_it_gives_what_eager_calls_give(op_mode, op):
    _check(op_mode, op, "jsd")  # whose parts are the other two divergences


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl"])
@pytest.mark.parametrize("op", OPS)
def test_so_it_does_for_the_other_divergences(op_mode, op, divergence):
    _check(op_mode, op, divergence)


def _check(mode, op, divergence):
    expected = OPS[op](OpMode(mode.kernel, "eager"), divergence)
    for actual, wanted in zip(OPS[op](mode, divergence), expected, strict=True):
        assert actual.dtype == wanted.dtype
        if mode.kernel == "native":
            # The same code gives the same bits; XLA may round the sum of `combined` once less.
            rtol = 2.5e-7 if op == "combined" else 0
            np.testing.assert_allclose(actual, wanted, rtol=rtol, atol=0)
            continue
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(wanted))
        usual = np.abs(wanted) < 1e6
        np.testing.assert_allclose(actual[usual], wanted[usual], rtol=2e-5, atol=1e-5)
        np.testing.assert_allclose(actual[~usual], wanted[~usual], rtol=2e-5)


@WITH_DIVERGENCES
@pytest.mark.parametrize("op", OPS)
def test_what_is_in_the_other_rows_changes_not_a_bit(arithmetic, op, divergence):
    both = [OPS[op](arithmetic, divergence, is_clean) for is_clean in (False, True)]
    for spoilt, clean in zip(*both, strict=True):
        assert np.isnan(spoilt[~CLEAN]).any()
        assert spoilt[CLEAN].tobytes() == clean[CLEAN].tobytes()
        assert np.isfinite(clean).all()
