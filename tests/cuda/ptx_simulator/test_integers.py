"""Integers, bits, conversions and packed moves against NumPy."""

import numpy as np
import pytest

from .snippets import each

EDGES = np.array([0, 1, 2, 7, 31, 32, 33, 255, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
A = np.repeat(EDGES, len(EDGES))
B = np.tile(EDGES, len(EDGES))
SIGNED_A, SIGNED_B = A.view(np.int32), B.view(np.int32)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("add", np.add),
        ("sub", np.subtract),
        ("mul.lo", np.multiply),
        ("min", np.minimum),
        ("max", np.maximum),
    ],
)
@pytest.mark.parametrize("dtype", ["u4", "i4", "i8", "u2", "i2"])
def test_two_operands(name, function, dtype):
    a, b = A.astype(dtype), B.astype(dtype)
    kind = {"u": "u", "i": "s"}[dtype[0]] + str(8 * int(dtype[1]))
    result = each(f"{name}.{kind} {{d}}, {{a}}, {{b}};", a, b, out=dtype)
    np.testing.assert_array_equal(result, function(a, b))


def test_wide_and_high_products():
    wide = A.astype(np.uint64) * B
    np.testing.assert_array_equal(each("mul.wide.u32 {d}, {a}, {b};", A, B, out="u8"), wide)
    np.testing.assert_array_equal(each("mul.hi.u32 {d}, {a}, {b};", A, B, out="u4"), wide >> 32)
    signed = SIGNED_A.astype(np.int64) * SIGNED_B
    code = "mad.wide.s32 {d}, {a}, {b}, -3;"
    np.testing.assert_array_equal(each(code, SIGNED_A, SIGNED_B, out="i8"), signed - 3)
    high = each("mul.hi.s32 {d}, {a}, {b};", SIGNED_A, SIGNED_B, out="i4")
    np.testing.assert_array_equal(high, signed >> 32)


def test_division_is_toward_zero():
    a, b = SIGNED_A[SIGNED_B != 0], SIGNED_B[SIGNED_B != 0]
    inside = ~((a == -(2**31)) & (b == -1))
    a, b = a[inside].astype(np.int64), b[inside].astype(np.int64)
    quotient = np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))
    a, b = a.astype(np.int32), b.astype(np.int32)
    np.testing.assert_array_equal(each("div.s32 {d}, {a}, {b};", a, b, out="i4"), quotient)
    rest = each("rem.s32 {d}, {a}, {b};", a, b, out="i4")
    np.testing.assert_array_equal(rest, a - quotient * b)


def test_shifts_beyond_the_width():
    amount = np.minimum(B.astype(np.uint64), 63)
    left = (A.astype(np.uint64) << amount) & np.where(B < 32, 0xFFFFFFFF, 0).astype(np.uint64)
    np.testing.assert_array_equal(each("shl.b32 {d}, {a}, {b};", A, B, out="u4"), left)
    right = A.astype(np.uint64) >> amount
    np.testing.assert_array_equal(each("shr.u32 {d}, {a}, {b};", A, B, out="u4"), right)
    signed = SIGNED_A.astype(np.int64) >> amount.astype(np.int64)
    result = each("shr.s32 {d}, {a}, {b};", SIGNED_A, B, out="i4")
    np.testing.assert_array_equal(result, signed)
    result = each("shr.s32 {d}, {a}, 40;", SIGNED_A, out="i4")
    np.testing.assert_array_equal(result, SIGNED_A >> 31)


def test_logic_and_bit_fields():
    code = "not.b32 %r2, {a}; xor.b32 %r3, %r2, {b}; and.b32 {d}, %r3, 0xff00ff;"
    np.testing.assert_array_equal(each(code, A, B, out="u4"), (~A ^ B) & 0xFF00FF)
    fields = each("bfe.u32 {d}, {a}, 4, 8;", A, out="u4")
    np.testing.assert_array_equal(fields, A >> 4 & 255)
    rotated = each("shf.l.wrap.b32 {d}, {a}, {a}, 8;", A, out="u4")
    np.testing.assert_array_equal(rotated, A << np.uint32(8) | A >> np.uint32(24))


def test_permuted_bytes():
    a, b = np.array([0x44338211], np.uint32), np.array([0x88776655], np.uint32)
    for selector, expected in ((0x7610, 0x88778211), (0x0123, 0x11823344), (0x9999, 0xFFFFFFFF)):
        result = each(f"prmt.b32 {{d}}, {{a}}, {{b}}, {selector:#x};", a, b, out="u4")
        assert result[0] == expected


def test_widening_keeps_the_sign():
    x = np.array([0, 1, 127, 128, 255, 32768, 65535], np.uint16)
    np.testing.assert_array_equal(
        each("cvt.s32.s16 {d}, {a};", x, out="i4"), x.view(np.int16).astype(np.int32)
    )
    np.testing.assert_array_equal(each("cvt.u64.u16 {d}, {a};", x, out="u8"), x)
    low = each("cvt.s32.s8 {d}, {a};", x, out="i4")
    np.testing.assert_array_equal(low, x.astype(np.uint8).view(np.int8))


def test_float_to_integer_saturates():
    x = np.array([1.5, 2.5, -1.5, -0.5, 3e9, -3e9, np.inf, np.nan], np.float32)
    rounded = [2, 2, -2, 0, 2**31 - 1, -(2**31), 2**31 - 1, 0]
    np.testing.assert_array_equal(each("cvt.rni.s32.f32 {d}, {a};", x, out="i4"), rounded)
    cut = [1, 2, 0, 0, 3_000_000_000, 0, 2**32 - 1, 0]
    np.testing.assert_array_equal(each("cvt.rzi.u32.f32 {d}, {a};", x, out="u4"), cut)


def test_integer_to_float_rounds():
    expected = SIGNED_A.astype(np.float32)
    np.testing.assert_array_equal(each("cvt.rn.f32.s32 {d}, {a};", SIGNED_A, out="f4"), expected)


def test_half_both_ways():
    x = np.array([0, -0.0, 1, 1 + 2**-11, 1 + 3 * 2**-11, 65504, 65520, 1e-7, 6e-8, np.inf], "f4")
    with np.errstate(all="ignore"):
        expected = x.astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(each("cvt.rn.f16.f32 {d}, {a};", x, out="u2"), expected)
    every = np.arange(0, 65536, 67, dtype=np.uint16)
    wide = each("cvt.f32.f16 {d}, {a};", every, out="f4")
    np.testing.assert_array_equal(wide, every.view(np.float16).astype(np.float32))
    assert each("cvt.rn.f16.f32 {d}, {a};", np.array([np.nan], "f4"), out="u2")[0] == 0x7FFF


def test_bfloat_both_ways():
    bits = np.array([0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF, 0x80000001], "u4")
    expected = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x7F80, 0x8000]
    x = np.append(bits, np.uint32(0x7F800001)).view(np.float32)
    result = each("cvt.rn.bf16.f32 {d}, {a};", x, out="u2")
    np.testing.assert_array_equal(result, [*expected, 0x7FFF])
    for code in ("cvt.f32.bf16 {d}, {a};", "mov.b32 {d}, {{0, {a}}};"):
        wide = each(code, np.array(expected, np.uint16), out="f4")
        np.testing.assert_array_equal(wide.view("u4"), np.array(expected, np.uint32) << 16)


def test_pairs_put_the_first_operand_on_top():
    a, b = np.array([1.0], np.float32), np.array([-2.0], np.float32)
    assert each("cvt.rn.bf16x2.f32 {d}, {a}, {b};", a, b, out="u4")[0] == 0x3F80C000
    assert each("cvt.rn.f16x2.f32 {d}, {a}, {b};", a, b, out="u4")[0] == 0x3C00C000


def test_packed_moves():
    code = "mov.b32 {{%h1, %h2}}, {a}; mov.b32 {d}, {{%h2, %h1}};"
    np.testing.assert_array_equal(each(code, A, out="u4"), A << np.uint32(16) | A >> np.uint32(16))
    code = "mov.b64 %rd21, {{{a}, {b}}}; mov.b64 {{_, %r5}}, %rd21; mov.u32 {d}, %r5;"
    np.testing.assert_array_equal(each(code, A, B, out="u4"), B)
    code = "mov.b32 %r5, {a}; mov.b32 {d}, %r5;"
    x = np.array([1.5, -3.0], np.float32)
    np.testing.assert_array_equal(each(code, x, out="f4"), x)
