"""The same bits for any number of threads, after a fork and from many callers at once."""

import concurrent.futures
import os
import time
import warnings

import numpy as np
import pytest

from tests import logits, matrix, reference
from tests import op_mode as ways_in

# Large enough that work is shared: many short rows, whole rows, few long rows.
SHAPES = [(20_000, 10), (1024, 1000), (3, 131072)]


@pytest.fixture
def threads(native):
    before = native.num_threads()
    yield native.set_num_threads
    native.set_num_threads(before)


def _compute(native, student, teacher, divergence="forward_kl"):
    return native.soft_target_loss(student, teacher, 2.0, divergence, gradient=True)


def _assert_same_bits(actual, expected):
    for left, right in zip(actual, expected, strict=True):
        assert left.tobytes() == right.tobytes()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("divergence", reference.DIVERGENCES)
def test_any_number_of_threads(native, threads, instruction_set, shape, divergence):
    student, teacher = logits.near_teacher(*shape)
    threads(1)
    expected = _compute(native, student, teacher, divergence)
    for count in (1, 2, 3):
        threads(count)
        assert native.num_threads() == count
        for _ in range(2):
            _assert_same_bits(_compute(native, student, teacher, divergence), expected)


def test_labels_and_any_number_of_threads(native, threads, instruction_set):
    student, teacher = logits.near_teacher(20_000, 10)
    labels = np.arange(20_000) % 10
    threads(1)
    expected = native.hard_and_soft_loss(student, teacher, labels, 2.0, gradient=True)
    for count in (2, 3):
        threads(count)
        actual = native.hard_and_soft_loss(student, teacher, labels, 2.0, gradient=True)
        _assert_same_bits(actual, expected)


def test_a_row_does_not_depend_on_its_place(native, instruction_set):
    """Else a batch split over replicas would train differently from the whole."""
    for rows, classes in ((37, 10), (20, 150)):
        student, teacher = logits.near_teacher(rows, classes)
        loss, gradient = _compute(native, student, teacher)
        for first in (1, 5, 16, rows - 1):
            part = _compute(native, student[first:], teacher[first:])
            _assert_same_bits(part, (loss[first:], gradient[first:]))


@pytest.mark.parametrize("mode", ["eager", "graph", "dynamic", "xla", "xla_dynamic"])
@pytest.mark.parametrize("classes", [logits.SHORT, logits.LONG])
def test_every_way_in_gives_the_bits_of_the_native_kernel(native, mode, classes):
    student, teacher = logits.near_teacher(logits.ROWS, classes)
    actual = ways_in.OpMode("native", mode).soft(student, teacher, 2.0)
    _assert_same_bits(actual, _compute(native, student, teacher))


@pytest.mark.parametrize("mode", matrix.modes("graph", "xla"))
def test_every_digit_of_the_mixing_weight_arrives(native, mode):
    student, teacher = logits.far_apart(logits.ROWS, logits.SHORT)
    weight = 0.123456789
    actual = ways_in.OpMode("native", mode).soft(student, teacher, 2.0, "jsd", weight)
    expected = native.soft_target_loss(student, teacher, 2.0, "jsd", weight, gradient=True)
    _assert_same_bits(actual, expected)


def test_repeats(op_mode):
    student, teacher = logits.near_teacher(logits.ROWS, logits.LONG)
    expected = op_mode.soft(student, teacher, 2.0)
    for _ in range(3):
        _assert_same_bits(op_mode.soft(student, teacher, 2.0), expected)


def test_many_callers_at_once(native, threads):
    threads(2)
    batches = [logits.near_teacher(600 + 7 * i, (10, 150, 1000)[i % 3], seed=i) for i in range(12)]
    expected = [_compute(native, *batch) for batch in batches]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        for _ in range(4):
            results = list(pool.map(lambda batch: _compute(native, *batch), batches))
            for actual, wanted in zip(results, expected, strict=True):
                _assert_same_bits(actual, wanted)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_computes_after_the_parent_used_its_threads(native, threads):
    """The pool's threads do not exist in the child; waiting for them would hang it."""
    threads(2)
    student, teacher = logits.near_teacher(1024, 1000)
    expected = _compute(native, student, teacher)
    for _ in range(2):
        assert _in_child(lambda: _assert_same_bits(_compute(native, student, teacher), expected))
    _assert_same_bits(_compute(native, student, teacher), expected)


def _in_child(check, seconds=30.0):
    """Whether `check()` passes in a forked child before the time is up."""
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork under threads: that is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            check()
            os._exit(0)
        finally:
            os._exit(1)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return status == 0
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def test_the_child_check_can_fail():
    def fail():
        raise ZeroDivisionError

    assert not _in_child(fail)
    assert not _in_child(lambda: time.sleep(5), seconds=0.2)
