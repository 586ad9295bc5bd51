"""Counters against what small kernels plainly do."""

import numpy as np
import pytest

from . import Device
from .snippets import kernel, launch

SHARED = ".shared .align 16 .b8 fixed[16384];"


def count(body, grid=1, block=32, size=1 << 15):
    device = Device()
    address = device.allocate(np.zeros(size, np.uint8))
    launch(device, kernel(body, declarations=SHARED), address, grid=grid, block=block)
    return device.counters


@pytest.mark.parametrize(
    ("width", "stride", "sectors"),
    [(4, 4, 4), (4, 32, 32), (4, 128, 32), (4, 0, 1), (16, 16, 16), (2, 2, 2), (8, 8, 8)],
)
def test_bytes_and_sectors(width, stride, sectors):
    load = {
        2: "ld.global.u16 %h1",
        4: "ld.global.f32 %f1",
        8: "ld.global.v2.f32 {%f1, %f2}",
        16: "ld.global.v4.f32 {%f1, %f2, %f3, %f4}",
    }[width]
    body = f"mul.wide.u32 %rd11, %r1, {stride}; add.s64 %rd11, %rd1, %rd11; {load}, [%rd11];"
    counters = count(body, block=64)
    assert counters["global.load.bytes"] == 64 * width
    assert counters[f"global.load.bytes.by{width}"] == 64 * width
    assert counters["global.load.requests"] == 2
    assert counters["global.load.sectors"] == 2 * sectors
    assert counters["global.store.bytes"] == 0


def test_only_active_lanes_count():
    body = """
        setp.lt.u32 %p1, %r1, 8; add.s64 %rd11, %rd1, %rd10; @!%p1 bra END;
        st.global.f32 [%rd11], 0f00000000; mul.f32 %f1, %f1, %f1;
        END:
    """
    counters = count(body, block=64)
    assert counters["global.store.bytes"] == 32
    assert counters["lanes.fp32"] == 8
    assert counters["warps.fp32"] == 1
    assert counters["lanes.memory"] == 8


def test_guarded_instructions_count_where_they_run():
    counters = count("setp.lt.u32 %p1, %r1, 8; @%p1 add.f32 %f1, %f1, %f1;", block=64)
    assert counters["lanes.fp32"] == 8
    assert counters["warps.fp32"] == 1


def test_classes():
    body = """
        add.f32 %f1, %f2, %f3; fma.rn.f32 %f1, %f1, %f2, %f3; setp.lt.f32 %p1, %f1, %f2;
        ex2.approx.ftz.f32 %f4, %f1; div.rn.f32 %f5, %f4, %f1; rcp.rn.f32 %f5, %f4;
        shl.b32 %r2, %r1, 1; cvt.rn.f32.u32 %f6, %r2;
        shfl.sync.bfly.b32 %r3, %r2, 1, 31, -1;
        bar.sync 0; bar.warp.sync -1;
    """
    counters = count(body, grid=2)
    per_lane = {
        name.removeprefix("lanes."): number / 64
        for name, number in counters.items()
        if name.startswith("lanes.")
    }
    assert per_lane == {
        "fp32": 3,
        "mufu": 3,
        "integer": 2,  # with the multiplication of the prologue
        "conversion": 1,
        "shuffle": 1,
        "barrier": 2,
        "move": 2,  # a parameter and %tid.x
        "control": 1,
    }
    assert counters["warps.mufu"] == 6
    assert counters["launches"] == 1


@pytest.mark.parametrize(
    ("code", "stride", "extra"),
    [
        ("st.shared.f32 [%r2], %f1;", 4, 0),
        ("st.shared.f32 [%r2], %f1;", 8, 1),
        ("st.shared.f32 [%r2], %f1;", 128, 31),
        ("st.shared.f32 [%r2], %f1;", 132, 0),
        ("st.shared.v2.f32 [%r2], {%f1, %f1};", 8, 0),
        ("st.shared.v4.f32 [%r2], {%f1, %f1, %f1, %f1};", 16, 0),
        ("st.shared.v4.f32 [%r2], {%f1, %f1, %f1, %f1};", 32, 4),
    ],
)
def test_bank_conflicts(code, stride, extra):
    body = f"mov.u32 %r3, fixed; mad.lo.u32 %r2, %r1, {stride}, %r3; {code}"
    assert count(body)["shared.extra_cycles"] == extra


def test_one_word_for_all_lanes_is_no_conflict():
    body = """
        setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.f32 [fixed], 0f00000000; bar.sync 0;
        ld.shared.f32 %f1, [fixed];
    """
    counters = count(body)
    assert counters["shared.extra_cycles"] == 0
    assert counters["shared.load.bytes"] == 128
    assert counters["shared.store.bytes"] == 4


def test_counters_add_up_and_clear():
    device = Device()
    address = device.allocate(np.zeros(32, np.float32))
    compiled = kernel("ld.global.f32 %f1, [%rd1];")
    for _ in range(3):
        launch(device, compiled, address)
    assert device.counters["global.load.bytes"] == 3 * 128
    device.counters.clear()
    assert not device.counters
