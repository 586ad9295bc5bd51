"""Races: each is found, and is silent once the accesses are ordered."""

import numpy as np
import pytest

from . import Fault
from .snippets import run

ZEROS = np.zeros(256, np.float32)
SHARED = ".shared .align 16 .b8 fixed[1024];"

# Each thread writes its word and reads that of another: `distance` threads on.
EXCHANGE = """
    shl.b32 %r2, %r1, 2; mov.u32 %r3, fixed; add.u32 %r2, %r2, %r3;
    mov.u32 %r5, %ntid.x; sub.u32 %r5, %r5, 1;
    add.u32 %r4, %r1, {distance}; and.b32 %r4, %r4, %r5; shl.b32 %r4, %r4, 2; add.u32 %r4, %r4, %r3;
    {first} [%r{a}]{value};
    {barrier}
    {second} [%r{b}]{other};
"""
STORE, LOAD = "st.shared.f32", "ld.shared.f32 %f1,"


def exchange(order, barrier, distance, block=64, **options):
    """Write then read ("wr") or the other way."""
    parts = {"w": (STORE, ", 0f00000000"), "r": (LOAD, "")}
    (first, value), (second, other) = (parts[each] for each in order)
    body = EXCHANGE.format(
        first=first, second=second, value=value, other=other, a=2, b=4,
        barrier=barrier, distance=distance,
    )  # fmt: skip
    if order[0] == "r":  # something must be there to read
        body = body.replace(f"    {LOAD}", "    st.shared.f32 [%r2], 0f00000000;\n    " + LOAD, 1)
    run(body, ZEROS, declarations=SHARED, block=block, **options)


@pytest.mark.parametrize("order", ["wr", "rw", "ww"])
def test_shared_memory_between_warps(order):
    exchange(order, "bar.sync 0;", 32)
    with pytest.raises(Fault, match="race: .*no barrier between"):
        exchange(order, "", 32)
    with pytest.raises(Fault, match="race"):  # a warp's barrier orders no other warp
        exchange(order, "bar.warp.sync -1;", 32)
    exchange(order, "", 32, check_races=False)


@pytest.mark.parametrize("order", ["wr", "rw", "ww"])
def test_shared_memory_within_a_warp(order):
    exchange(order, "bar.warp.sync 0xffffffff;", 1, block=32)
    with pytest.raises(Fault, match="race"):
        exchange(order, "", 1, block=32)


def test_a_shuffle_is_no_barrier():
    shuffle = "shfl.sync.bfly.b32 %r6, %r2, 1, 31, -1;"
    with pytest.raises(Fault, match="race"):
        exchange("wr", shuffle, 1, block=32)


def test_each_thread_keeps_to_its_own():
    exchange("wr", "", 0)
    exchange("ww", "", 0)


def test_two_lanes_store_to_one_place_at_once():
    body = "st.shared.f32 [fixed], 0f00000000;"
    with pytest.raises(Fault, match="race: stores where block 0 thread"):
        run(body, ZEROS, declarations=SHARED)
    guarded = "setp.eq.u32 %p1, %r1, 0; @%p1 " + body
    run(guarded, ZEROS, declarations=SHARED)


def test_a_missing_barrier_before_the_slots_are_used_again():
    """All threads read a slot; the one that writes it next must wait for the last reader."""
    body = """
        setp.eq.u32 %p1, %r1, 0;
        @%p1 st.shared.f32 [fixed], 0f00000000;
        bar.sync 0;
        ld.shared.f32 %f1, [fixed];
        {}
        @%p1 st.shared.f32 [fixed], 0f3F800000;
    """
    for block in (32, 64):
        run(body.format("bar.sync 0;"), ZEROS, declarations=SHARED, block=block)
        with pytest.raises(Fault, match="race: overwrites what block 0 thread .* read"):
            run(body.format(""), ZEROS, declarations=SHARED, block=block)


GLOBAL = """
    mov.u32 %r2, %ctaid.x; mad.lo.u32 %r3, %r2, {stride}, %r1;
    mul.wide.u32 %rd11, %r3, 4; add.s64 %rd11, %rd1, %rd11;
    {code}
"""


@pytest.mark.parametrize("stride", [64, 63])
def test_global_memory_between_blocks(stride):
    for code in (
        "st.global.f32 [%rd11], 0f00000000;",
        "ld.global.f32 %f1, [%rd11]; st.global.f32 [%rd11], %f1;",
    ):
        body = GLOBAL.format(stride=stride, code=code)
        if stride == 64:
            run(body, ZEROS, grid=2, block=64)
        else:
            with pytest.raises(Fault, match=r"race: .*block [01] thread (0|63)"):
                run(body, ZEROS, grid=2, block=64)


def test_a_barrier_orders_no_other_block():
    code = """
        bar.sync 0;
        setp.eq.u32 %p1, %r2, 0;
        @%p1 st.global.f32 [%rd11], 0f00000000;
        bar.sync 0;
        @!%p1 ld.global.f32 %f1, [%rd11];
    """
    with pytest.raises(Fault, match="race: reads what block 0 thread 0 wrote"):
        run(GLOBAL.format(stride=0, code=code), ZEROS, grid=2)


def test_global_memory_within_a_block():
    body = """
        add.s64 %rd11, %rd1, %rd10; xor.b32 %r2, %r1, 32;
        mul.wide.u32 %rd12, %r2, 4; add.s64 %rd12, %rd1, %rd12;
        st.global.f32 [%rd11], 0f00000000;
        {}
        ld.global.f32 %f1, [%rd12];
    """
    run(body.format("bar.sync 0;"), ZEROS, block=64)
    with pytest.raises(Fault, match="race: reads what block 0 thread .* wrote"):
        run(body.format(""), ZEROS, block=64)


def test_neighbors_in_one_word_are_no_race():
    body = """
        mul.wide.u32 %rd11, %r1, 2; add.s64 %rd11, %rd1, %rd11; mov.u16 %h1, 7;
        {}
        st.global.u16 [%rd11], %h1;
    """
    wide = "setp.eq.u32 %p1, %r1, 0; @%p1 ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd1];"
    run(body.format(""), np.zeros(32, np.uint16))
    with pytest.raises(Fault, match="race: overwrites what block 0 thread 0 read"):
        run(body.format(wide), np.zeros(32, np.uint16))
    run(body.format(wide + "bar.sync 0;"), np.zeros(32, np.uint16))


@pytest.mark.parametrize("first", ["load", "store"])
def test_read_only_loads_of_memory_that_the_launch_writes(first):
    load, store = "ld.global{} %f1, [%rd11];", "st.global.f32 [%rd11], 0f00000000;"
    code = load + store if first == "load" else store + load
    body = "add.s64 %rd11, %rd1, %rd10;" + code
    run(body.format(".f32"), ZEROS)
    with pytest.raises(Fault, match="as read-only memory"):
        run(body.format(".nc.f32"), ZEROS)
    run("add.s64 %rd11, %rd1, %rd10; ld.global.nc.f32 %f1, [%rd11];", ZEROS)
