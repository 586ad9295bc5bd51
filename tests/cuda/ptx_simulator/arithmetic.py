"""What PTX arithmetic computes, on NumPy arrays of all lanes or on scalars that all lanes share.

Functions never change their arguments: a register's array may be another register's too.
NaN come out as NaN; their payload bits are NumPy's, a GPU makes them 0x7fffffff.
"""

import numpy as np

SMALLEST_NORMAL = np.float32(2.0**-126)
_ZERO = np.float32(0)


def flush(value):
    """Returns float32 with subnormal numbers replaced by zeros of their sign (`.ftz`)."""
    tiny = np.abs(value) < SMALLEST_NORMAL  # true for zeros too, which the product keeps
    if np.ndim(value) == 0:
        return value * _ZERO if tiny else value
    # Counting is NumPy's fastest test for "any", and in most calls there is nothing to do.
    if np.count_nonzero(tiny) == 0:
        return value
    result = value.copy()
    np.multiply(value, _ZERO, out=result, where=tiny)
    return result


def fma(a, b, c):
    """Returns a * b + c of float32, rounded once, or nearly so.

    The product of two float32 is exact in float64; the sum is rounded to float64 and then to
    float32. Both roundings act together only where the exact sum lies within 2^-53 (relative) of
    the middle between two float32: about one random operation in 2^28, and then the result is
    off by at most (1/2 + 2^-29) ulp instead of 1/2 ulp.
    """
    return (a.astype(np.float64) * b + c).astype(np.float32)


def maximum(a, b):
    """Returns the larger number; a NaN only if both are; +0 is larger than -0."""
    result = np.fmax(a, b)
    both = (result == 0) & (a == b)
    # Zeros: a + b is -0 only if both are.
    return np.where(both, a + b, result) if np.count_nonzero(both) else result


def minimum(a, b):
    """Returns the smaller number; a NaN only if both are; -0 is smaller than +0."""
    result = np.fmin(a, b)
    both = (result == 0) & (a == b)
    return np.where(both, -(-a - b), result) if np.count_nonzero(both) else result


def maximum_nan(a, b):
    """`max.NaN`: NaN if either is."""
    return np.where(np.isnan(a) | np.isnan(b), np.float32(np.nan), maximum(a, b))


def minimum_nan(a, b):
    """`min.NaN`: NaN if either is."""
    return np.where(np.isnan(a) | np.isnan(b), np.float32(np.nan), minimum(a, b))


def saturate(value):
    """`.sat`: clamps to [0, 1]; NaN becomes 0."""
    return np.fmin(np.fmax(value, value.dtype.type(0)), value.dtype.type(1))


def divide_approximately(a, b):
    """`div.approx`: a / b, but 0 for a divisor beyond 2^126, whose reciprocal is flushed."""
    huge = (np.abs(b) > np.float32(2.0**126)) & np.isfinite(b)
    return np.where(huge, a * np.copysign(_ZERO, b), a / b)


def through_double(function):
    """Returns the float32 function that computes `function` in float64 and rounds once."""

    def rounded(value):
        return function(value.astype(np.float64)).astype(np.float32)

    return rounded


UNARY = {
    "ex2": through_double(np.exp2),
    "lg2": through_double(np.log2),
    "rcp": lambda value: np.float32(1) / value,
    "sqrt": np.sqrt,
    "rsqrt": through_double(lambda value: 1 / np.sqrt(value)),
    "sin": through_double(np.sin),
    "cos": through_double(np.cos),
    "tanh": through_double(np.tanh),
}


class Noise:
    """Moves results of approximate instructions by up to `ulp` units in the last place.

    Hardware may be off by that much; a kernel must not depend on the bits that NumPy makes.
    0, infinities and NaN stay: those the hardware gives exactly. So does ex2(+-0) = 1: a GPU
    reduces the argument to a table entry and a remainder that are both exact there, and PTX
    documents ex2.approx(+-0) as +1.0.
    """

    def __init__(self, ulp, seed):
        self.ulp = int(ulp)
        self.random = np.random.default_rng(seed)

    def __call__(self, result):
        """Returns the result, disturbed."""
        if not self.ulp:
            return result
        return self._move(result, np.isfinite(result) & (result != 0))

    def ex2(self, result, argument):
        """As a call, but leaves 2 to the power 0 alone."""
        if not self.ulp:
            return result
        return self._move(result, np.isfinite(result) & (result != 0) & (argument != 0))

    def _move(self, result, which):
        steps = self.random.integers(-self.ulp, self.ulp + 1, np.shape(result), dtype=np.int8)
        # Floats of one sign are ordered as their bits are.
        moved = (result.view(np.int32) + steps).astype(np.int32).view(np.float32)
        # Not over the edge to infinity, nor to a subnormal or a NaN.
        stays = np.isfinite(moved) & (np.abs(moved) >= SMALLEST_NORMAL)
        return np.where(which & stays, moved, result)


def shift_left(value, amount):
    """`shl`: amounts of the width or more give 0."""
    bits = value.dtype.itemsize * 8
    kept = np.minimum(amount, np.uint32(bits - 1)).astype(value.dtype)
    shifted = value << kept
    return np.where(amount >= bits, value.dtype.type(0), shifted).astype(value.dtype)


def shift_right(value, amount):
    """`shr`: amounts of the width or more give 0, or the sign of a signed number."""
    bits = value.dtype.itemsize * 8
    kept = np.minimum(amount, np.uint32(bits - 1)).astype(value.dtype)
    shifted = value >> kept
    if value.dtype.kind == "i":
        return shifted
    return np.where(amount >= bits, value.dtype.type(0), shifted).astype(value.dtype)


def multiply_high(a, b):
    """`mul.hi` of up to 32 bits: the upper half of the product."""
    wide = {"i": np.int64, "u": np.uint64}[a.dtype.kind]
    bits = a.dtype.itemsize * 8
    return ((a.astype(wide) * b.astype(wide)) >> wide(bits)).astype(a.dtype)


def multiply_wide(a, b):
    """`mul.wide`: the whole product, twice as wide."""
    wide = np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}")
    return a.astype(wide) * b.astype(wide)


def divide(a, b):
    """Integer `div`: toward zero; by zero gives all ones, as hardware does."""
    safe = np.where(b == 0, b.dtype.type(1), b)
    quotient = a // safe
    if a.dtype.kind == "i":  # NumPy rounds down
        quotient = quotient + ((a % safe != 0) & ((a < 0) != (safe < 0)))
    return np.where(b == 0, ~a.dtype.type(0), quotient).astype(a.dtype)


def remainder(a, b):
    """Integer `rem`: has the sign of the dividend; by zero gives the dividend."""
    safe = np.where(b == 0, b.dtype.type(1), b)
    return np.where(b == 0, a, np.fmod(a, safe)).astype(a.dtype)


def permute_bytes(a, b, selector):
    """`prmt` without a mode: four bytes out of the eight of a and b, each perhaps as its sign."""
    both = a.astype(np.uint64) | (b.astype(np.uint64) << np.uint64(32))
    result = np.uint32(0)
    for index in range(4):
        code = (selector >> np.uint32(4 * index)) & np.uint32(15)
        shift = ((code & np.uint32(7)) * np.uint32(8)).astype(np.uint64)
        byte = ((both >> shift) & np.uint64(255)).astype(np.uint32)
        sign = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
        byte = np.where(code & np.uint32(8), sign, byte).astype(np.uint32)
        result = result | (byte << np.uint32(8 * index))
    return result


def funnel_shift(low, high, amount, left, wrap):
    """`shf`: shifts the 64 bits high:low and returns the upper (left) or lower half."""
    amount = amount & np.uint32(31) if wrap else np.minimum(amount, np.uint32(32))
    both = (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)
    wide = amount.astype(np.uint64)
    shifted = (both << wide) >> np.uint64(32) if left else both >> wide
    return (shifted & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def extract_bits(value, start, length):
    """`bfe.u32`: `length` bits from `start`; bits above the 32nd are 0."""
    start = np.minimum(start & np.uint32(255), np.uint32(32)).astype(np.uint64)
    length = np.minimum(length & np.uint32(255), np.uint32(32)).astype(np.uint64)
    field = (value.astype(np.uint64) >> start) & ((np.uint64(1) << length) - np.uint64(1))
    return field.astype(np.uint32)
