"""Counted traffic and exponentials of each kernel, as limits that a change may not exceed.

Counted where warps do the work: an instruction of a warp counts for 32 lanes, even where fewer
have something to do.
"""

import pytest

from tests.cuda import ptx_device
from tests.cuda.counting import Case, count

pytestmark = pytest.mark.skipif(bool(ptx_device.missing()), reason=ptx_device.missing() or "-")

BYTES = {"float32": 4, "bfloat16": 2}
REGISTERS = [33, 64, 65, 100, 128, 200, 300, 512, 1000, 1001, 1024]
SHARED = [1025, 2000, 8000]


def limit(dtype, classes, hard=False):
    """Bytes an element: student, teacher and gradient once, and what else there is of a row."""
    # The loss, and the temperature once for each warp; a label too, its loss and its logit.
    warps = 16 if classes > 1024 else 1
    per_row = 4 + 4 * warps + hard * (4 + 4 + 8 * warps)
    return 3 * BYTES[dtype] + per_row / classes + 0.01


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("classes", REGISTERS + SHARED)
def test_with_gradient(classes, dtype):
    """Each logit is read once and each gradient written once, in one launch."""
    cost = count(Case(dtype, classes))
    assert cost.launches == 1
    assert cost.moved <= min(limit(dtype, classes), 3 * BYTES[dtype] + 0.3)
    assert cost.mufu <= (6.4 if classes > 1024 else 3.3)
    assert cost.bank_conflicts <= 0.02
    if classes % 8 == 0:  # rows begin at multiples of 16 bytes
        assert cost.wide >= 0.99 * 3 * BYTES[dtype]


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("classes", REGISTERS + SHARED)
def test_with_labels(classes, dtype):
    """A third exponential a class; 3.3 where no thread is left without columns."""
    cost = count(Case(dtype, classes, hard=True))
    assert cost.launches == 1
    assert cost.moved <= limit(dtype, classes, hard=True)
    full = classes in (64, 128, 512, 1000, 1001, 1024)
    assert cost.mufu <= (8.2 if classes > 1024 else 3.3 if full else 4.8)
    if classes == 8000:
        assert cost.mufu <= 6.4


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("classes", [10, 32])
def test_short_rows(classes, dtype):
    cost = count(Case(dtype, classes))
    # A warp's lanes that belong to one row read the same places once; of unaligned rows the ends
    # are read element by element.
    assert cost.moved <= limit(dtype, classes) + 0.05
    assert cost.mufu <= (2.3 if classes == 32 else 4.1)


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("classes", [1000, 8000])
def test_without_gradient(classes, dtype):
    assert count(Case(dtype, classes, gradient=False)).moved <= 2 * BYTES[dtype] + 0.02


@pytest.mark.parametrize("dtype", BYTES)
def test_streamed_rows(dtype):
    """Two sweeps read the logits; the second may find them in L2."""
    cost = count(Case(dtype, 32003, shared_memory=99 << 10))
    assert cost.launches == 1
    assert cost.moved <= 5 * BYTES[dtype] + 0.01
