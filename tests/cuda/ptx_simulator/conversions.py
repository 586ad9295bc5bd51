"""`cvt`: between the integer widths, float, and the 16-bit floats, which travel as their bits."""

import numpy as np

from .types import NUMPY

ROUND = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def half_bits(value):
    """float32 to float16, to nearest even; any NaN to 0x7fff, as hardware makes them."""
    bits = value.astype(np.float16).view(np.uint16)
    return np.where(np.isnan(value), np.uint16(0x7FFF), bits)


def half_value(bits):
    """float16 to float32, exactly."""
    return bits.view(np.float16).astype(np.float32)


def bfloat_bits(value):
    """float32 to bfloat16, to nearest even; any NaN to 0x7fff."""
    bits = value.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + (np.uint32(0x7FFF) + odd)) >> np.uint32(16)
    return np.where(np.isnan(value), np.uint32(0x7FFF), rounded).astype(np.uint16)


def bfloat_value(bits):
    """bfloat16 to float32, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def pair(high, low):
    """Two 16-bit values in 32 bits; the first operand of the instruction is the upper half."""
    return (high.astype(np.uint32) << np.uint32(16)) | low.astype(np.uint32)


def half_pair(high, low):
    """`cvt.rn.f16x2.f32`."""
    return pair(half_bits(high), half_bits(low))


def bfloat_pair(high, low):
    """`cvt.rn.bf16x2.f32`."""
    return pair(bfloat_bits(high), bfloat_bits(low))


def to_integer(value, rounding, kind):
    """float to integer: out of range saturates, NaN becomes 0 (the sign bit for 64 bits)."""
    dtype = NUMPY[kind]
    limits = np.iinfo(dtype)
    rounded = ROUND[rounding](value.astype(np.float64))
    # The largest 64-bit integers are no float64: compare, do not clip.
    low, high = rounded <= float(limits.min), rounded >= float(limits.max)
    inside = np.where(low | high | np.isnan(rounded), 0.0, rounded).astype(dtype)
    result = np.where(low, dtype.type(limits.min), np.where(high, dtype.type(limits.max), inside))
    nan = dtype.type(0) if dtype.itemsize < 8 else np.uint64(1 << 63).astype(dtype)
    return np.where(np.isnan(rounded), nan, result).astype(dtype)


def saturated_integer(value, kind):
    """Integer to integer with `.sat`."""
    limits = np.iinfo(NUMPY[kind])
    wide = value.astype(np.int64)
    return np.clip(wide, limits.min, min(limits.max, np.iinfo(np.int64).max)).astype(NUMPY[kind])
