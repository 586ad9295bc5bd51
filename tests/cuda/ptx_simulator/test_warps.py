"""Shuffles, votes and barriers: values, and faults of those who are not there."""

import numpy as np
import pytest

from . import Fault
from .snippets import each, run

LANE = np.arange(32, dtype=np.uint32)
ZEROS = np.zeros(64, np.float32)


@pytest.mark.parametrize(
    ("mode", "amount", "clamp", "source"),
    [
        ("bfly", 16, 31, LANE ^ 16),
        ("bfly", 1, 31, LANE ^ 1),
        ("bfly", 2, 0x1C1F, LANE ^ 2),  # in groups of four
        ("down", 4, 31, np.where(LANE < 28, LANE + 4, LANE)),
        ("down", 1, 0x1C1F, np.where(LANE % 4 < 3, LANE + 1, LANE)),
        ("up", 4, 0, np.where(LANE >= 4, LANE - 4, LANE)),
        ("up", 1, 0x1C00, np.where(LANE % 4 > 0, LANE - 1, LANE)),
        ("idx", 5, 31, np.full(32, 5)),
        ("idx", 1, 0x1C1F, LANE // 4 * 4 + 1),
    ],
)
def test_shuffles(mode, amount, clamp, source):
    values = LANE * 3 + 1
    code = f"shfl.sync.{mode}.b32 {{d}}, {{a}}, {amount}, {clamp}, -1;"
    np.testing.assert_array_equal(each(code, values, out="u4"), values[source])
    code = f"shfl.sync.{mode}.b32 %r5|%p1, {{a}}, {amount}, {clamp}, -1; selp.u32 {{d}}, 1, 0, %p1;"
    in_range = (source != LANE) | (mode in ("bfly", "idx"))
    np.testing.assert_array_equal(each(code, values, out="u4"), in_range)


def test_shuffle_from_a_lane_that_varies():
    code = "sub.u32 %r5, 31, {a}; shfl.sync.idx.b32 {d}, {a}, %r5, 31, -1;"
    np.testing.assert_array_equal(each(code, LANE, out="u4"), LANE[::-1])


def test_reduction_over_a_warp():
    code = "mov.f32 {d}, {a};"
    for step in (16, 8, 4, 2, 1):
        code += f"mov.b32 %r5, {{d}}; shfl.sync.bfly.b32 %r6, %r5, {step}, 31, -1;"
        code += "mov.b32 %f2, %r6; add.f32 {d}, {d}, %f2;"
    values = np.arange(64, dtype=np.float32)
    expected = np.repeat(values.reshape(2, 32).sum(1), 32)
    np.testing.assert_array_equal(each(code, values, out="f4"), expected)


HALF = "setp.lt.u32 %p1, %r1, 16; @%p1 bra LOW; {high} bra.uni END; LOW: {low} END: {end}"
SHUFFLE = "shfl.sync.bfly.b32 %r2, %r1, {lane}, 31, {mask};"


def halves(low="", high="", end=""):
    return run(HALF.format(low=low, high=high, end=end), ZEROS)


def test_shuffle_in_a_branch():
    good = SHUFFLE.format(lane=8, mask="0xffff")
    halves(low=good, end=SHUFFLE.format(lane=8, mask="-1"))
    with pytest.raises(
        Fault, match="thread 16: is named in the mask of shfl.sync.bfly but is else"
    ):
        halves(low=SHUFFLE.format(lane=8, mask="-1"))
    with pytest.raises(Fault, match="is elsewhere"):  # two shuffles do not meet
        halves(low=SHUFFLE.format(lane=8, mask="-1"), high=SHUFFLE.format(lane=8, mask="-1"))


def test_shuffle_with_an_exited_lane():
    with pytest.raises(Fault, match="has exited"):
        halves(high="ret;", end=SHUFFLE.format(lane=8, mask="-1"))
    halves(high="ret;", end=SHUFFLE.format(lane=8, mask="0xffff"))


def test_shuffle_without_the_own_lane():
    with pytest.raises(Fault, match="thread 16: is not in its own mask"):
        run(SHUFFLE.format(lane=8, mask="0xffff"), ZEROS)


def test_shuffle_from_a_lane_that_takes_no_part():
    with pytest.raises(Fault, match="shuffle from lane 16, which takes no part"):
        halves(low=SHUFFLE.format(lane=16, mask="0xffff"))


def test_masks_must_agree():
    code = "selp.b32 %r3, -1, 0xffff, %p1; " + SHUFFLE.format(lane=1, mask="%r3")
    with pytest.raises(Fault, match="mask"):
        run("setp.lt.u32 %p1, %r1, 8; " + code, ZEROS)


def test_votes():
    code = "setp.lt.u32 %p1, {{a}}, {}; vote.sync.{}.pred %p2, %p1, -1; selp.u32 {{d}}, 1, 0, %p2;"
    lanes = np.tile(LANE, 2)
    lanes[:32] += 32
    for limit in (0, 32, 50, 64):
        rows = (lanes < limit).reshape(2, 32)
        got = each(code.format(limit, "any"), lanes, out="u4")
        np.testing.assert_array_equal(got, np.repeat(rows.any(1), 32))
        got = each(code.format(limit, "all"), lanes, out="u4")
        np.testing.assert_array_equal(got, np.repeat(rows.all(1), 32))
    ballot = "setp.lt.u32 %p1, {a}, 36; vote.sync.ballot.b32 {d}, %p1, -1;"
    np.testing.assert_array_equal(
        each(ballot, lanes, out="u4"), np.repeat(np.array([15, 2**32 - 1]), 32)
    )


def test_warp_barrier_in_a_branch():
    halves(low="bar.warp.sync 0xffff;", end="bar.warp.sync -1;")
    with pytest.raises(Fault, match=r"mask of bar\.warp\.sync but is elsewhere"):
        halves(low="bar.warp.sync -1;")


def test_block_barrier():
    body = "setp.lt.u32 %p1, %r1, 32; {} bar.sync 0;"
    run(body.format(""), ZEROS, block=64, grid=3)
    with pytest.raises(
        Fault, match=r"thread 32: missed the barrier of block 0 thread 0.*bar\.sync"
    ):
        run(body.format("@%p1"), ZEROS, block=64)
    with pytest.raises(Fault, match="missed the barrier"):
        run(body.format("@!%p1 ret;"), ZEROS, block=64)
    run(body.format("@!%p1 ret;"), ZEROS, block=64, exited_threads_count=True)


def test_different_block_barriers():
    both = "bar.sync 0;"
    with pytest.raises(Fault, match="waits at another barrier than block 0 thread"):
        halves(low=both, high=both)
    halves(end=both)


def test_blocks_may_wait_at_different_barriers():
    body = """
        mov.u32 %r2, %ctaid.x; setp.eq.u32 %p1, %r2, 0; @%p1 bra FIRST;
        bar.sync 0; bra.uni END;
        FIRST: bar.sync 0; bar.sync 0;
        END:
    """
    run(body, ZEROS, grid=2, block=64)
