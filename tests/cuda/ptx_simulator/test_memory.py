"""Bounds, alignment, initialization: each check fires on a fault and is silent without."""

import numpy as np
import pytest

from . import Device, Fault, load
from .snippets import HEADER, REGISTERS, kernel, launch, run

COPY = """
    add.s64 %rd11, %rd1, %rd10; add.s64 %rd12, %rd2, %rd10;
    ld.global.f32 %f1, [%rd11]; st.global.f32 [%rd12], %f1;
"""
FLOATS = np.arange(32, dtype=np.float32)


def test_copy():
    result = run(COPY, FLOATS, np.zeros_like(FLOATS))[1]
    np.testing.assert_array_equal(result, FLOATS)


@pytest.mark.parametrize("short", [0, 1])
def test_one_byte_past_the_end(short):
    arrays = [FLOATS, np.zeros_like(FLOATS)]
    arrays[short] = arrays[short].view(np.uint8)[:-1].copy()
    what = "ld.global" if short == 0 else "st.global"
    with pytest.raises(Fault, match=rf"thread 31: out of bounds: bytes 124 to 127 .*{what}"):
        run(COPY, *arrays)


def test_the_message_names_line_and_block():
    body = "ld.global.f32 %f1,\n [%rd1+-4];"
    with pytest.raises(Fault, match=r"block 0 thread 0: .*PTX line \d+: ld\.global\.f32 %f1, \["):
        run(body, FLOATS)


def test_wild_address():
    with pytest.raises(Fault, match="lies in no buffer"):
        run("mov.u64 %rd5, 0; ld.global.f32 %f1, [%rd5];", FLOATS)


@pytest.mark.parametrize(("offset", "good"), [(0, True), (16, True), (8, False), (4, False)])
def test_vectors_must_be_aligned(offset, good):
    device = Device()
    address = device.allocate(FLOATS, offset=offset)
    compiled = kernel("ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1];")
    assert address % 256 == offset
    if good:
        launch(device, compiled, address)
    else:
        with pytest.raises(Fault, match="misaligned: 16 bytes"):
            launch(device, compiled, address)


def test_a_buffer_that_begins_misaligned_keeps_its_bounds():
    device = Device()
    address = device.allocate(FLOATS, offset=4)
    with pytest.raises(Fault, match="bytes -4 to -1"):
        launch(device, kernel("ld.global.f32 %f1, [%rd1+-4];"), address)
    launch(device, kernel("ld.global.f32 %f1, [%rd1+124];"), address)
    np.testing.assert_array_equal(device.read(address), FLOATS)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_widths_and_vectors(width):
    kind, register = {1: ("u8", "h"), 2: ("u16", "h"), 4: ("u32", "r"), 8: ("u64", "rd")}[width]
    dtype = np.dtype(f"u{width}")
    data = np.arange(7, 7 + 64, dtype=dtype)
    first, second = f"%{register}13", f"%{register}14"
    body = f"""
        mul.wide.u32 %rd10, %r1, {2 * width};
        add.s64 %rd11, %rd1, %rd10; add.s64 %rd12, %rd2, %rd10;
        ld.global.v2.{kind} {{{first}, {second}}}, [%rd11];
        st.global.v2.{kind} [%rd12], {{{second}, {first}}};
    """
    result = run(body, data, np.zeros_like(data))[1]
    np.testing.assert_array_equal(result, data.reshape(-1, 2)[:, ::-1].ravel())


def test_narrow_loads_extend():
    data = np.full(32, 0xFE, np.uint8)
    body = """
        add.s64 %rd12, %rd2, %rd10;
        ld.global.s8 %h1, [%rd1]; ld.global.u8 %h2, [%rd1];
        mov.b32 %r2, {%h1, %h2}; st.global.u32 [%rd12], %r2;
    """
    assert run(body, data, np.zeros(32, np.uint32))[1][0] == 0x00FEFFFE


def test_memory_nobody_wrote():
    device = Device()
    compiled = kernel(COPY, 2)
    target = device.allocate_uninitialized(128)
    source = device.allocate(FLOATS)
    with pytest.raises(ValueError, match="byte 0 of global buffer 0 was not written"):
        device.read(target, all_written=True)
    with pytest.raises(Fault, match="nobody wrote"):
        launch(device, compiled, target, target)
    launch(device, compiled, source, target)
    launch(device, compiled, target, source)
    result = device.read(target, all_written=True).view(np.float32)
    np.testing.assert_array_equal(result, FLOATS)


def test_parameters():
    text = f"""{HEADER}
        .visible .entry one(.param .u64 out, .param .align 8 .b8 pack[16], .param .f32 last)
        {{ {REGISTERS}
            ld.param.u64 %rd1, [out];
            ld.param.v2.u8 {{%h1, %h2}}, [pack+2];
            ld.param.u32 %r2, [pack+8]; ld.param.f32 %f1, [last];
            mov.b32 %r3, {{%h1, %h2}};
            st.global.v2.u32 [%rd1], {{%r3, %r2}}; st.global.f32 [%rd1+8], %f1;
            ret;
        }}"""
    one = load(text)["one"]
    assert [each.offset for each in one.parameters.values()] == [0, 8, 24]
    device = Device()
    out = device.allocate(np.zeros(3, np.uint32))
    pack = np.array([0, 0, 5, 6, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0], np.uint8)
    values = np.uint64(out).tobytes() + pack.tobytes() + np.float32(1).tobytes()
    device.launch(one, (1,), (1,), values)
    np.testing.assert_array_equal(device.read(out), [0x60005, 9, 0x3F800000])
    with pytest.raises(ValueError, match="27 bytes of parameters"):
        device.launch(one, (1,), (1,), values[:-1])


@pytest.mark.parametrize("offset", [0, 8, 16])
def test_parameters_through_an_address(offset):
    """One address for all threads, and one that differs between them."""
    common = f"""
        mov.b64 %rd5, pointer1; add.s64 %rd11, %rd1, %rd10; add.s64 %rd11, %rd11, {offset - 8};
        {{}}
        ld.param.u32 %r2, [%rd5+{offset}]; st.global.u32 [%rd11], %r2;
    """
    differing = "setp.gt.u32 %p1, %r1, 3; selp.b64 %rd6, 4, 0, %p1; add.s64 %rd5, %rd5, %rd6;"
    device = Device()
    out, other = device.allocate(np.zeros(40, np.uint32)), device.allocate(FLOATS)
    words = np.array([out + 8, other], np.uint64).view(np.uint32)
    for code, index in (("", np.zeros(32, int)), (differing, (np.arange(32) > 3) * 1)):
        compiled = kernel(common.format(code), 2)
        if offset == 16:
            with pytest.raises(Fault, match="out of bounds: byte 16 of 16 of parameters"):
                launch(device, compiled, out + 8, other)
        else:
            launch(device, compiled, out + 8, other)
            got = device.read(out)[offset // 4 :][:32]
            np.testing.assert_array_equal(got, words[offset // 4 + index])


# Shared memory.

SHARED = ".shared .align 4 .b8 fixed[128];"
SHARED_COPY = """
    add.s64 %rd11, %rd1, %rd10; mov.u32 %r2, {name}; shl.b32 %r3, %r1, 2; add.u32 %r2, %r2, %r3;
    ld.global.f32 %f1, [%rd11]; st.shared.f32 [%r2+{offset}], %f1;
    ld.shared.f32 %f2, [%r2+{offset}];
    add.f32 %f2, %f2, %f2; st.global.f32 [%rd11], %f2;
"""


def shared_copy(name, offset=0, **options):
    body = SHARED_COPY.format(name=name, offset=offset)
    return run(body, FLOATS, declarations=SHARED, **options)[0]


def test_static_and_dynamic_shared_memory():
    np.testing.assert_array_equal(shared_copy("fixed"), 2 * FLOATS)
    np.testing.assert_array_equal(shared_copy("dynamic", shared_bytes=128), 2 * FLOATS)


def test_shared_memory_out_of_bounds():
    with pytest.raises(Fault, match="thread 31: out of bounds: 4 bytes of shared memory"):
        shared_copy("fixed", 4)
    with pytest.raises(Fault, match="thread 31: out of bounds"):
        shared_copy("dynamic", shared_bytes=124)
    with pytest.raises(Fault, match="out of bounds"):  # not into the variable before
        shared_copy("dynamic", -4, shared_bytes=128)


def test_shared_memory_misaligned():
    with pytest.raises(Fault, match="misaligned: 4 bytes"):
        shared_copy("fixed", 2)


def test_shared_memory_nobody_wrote():
    body = "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.f32 [fixed{}], 0f00000000;"
    body += "ld.shared.f32 %f1, [fixed];"
    run(body.format(""), FLOATS, declarations=SHARED, check_races=False)
    with pytest.raises(Fault, match="thread 0: reads shared memory at address .* nobody wrote"):
        run(body.format("+4"), FLOATS, declarations=SHARED, check_races=False)
