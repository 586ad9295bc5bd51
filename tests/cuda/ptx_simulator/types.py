"""PTX types and the NumPy types that hold them."""

import re

import numpy as np

# The type of an instruction, to the type in which it computes. 16-bit floats travel as their bits.
NUMPY = {
    "pred": np.dtype(np.bool_),
    "b8": np.dtype(np.uint8),
    "u8": np.dtype(np.uint8),
    "s8": np.dtype(np.int8),
    "b16": np.dtype(np.uint16),
    "u16": np.dtype(np.uint16),
    "s16": np.dtype(np.int16),
    "f16": np.dtype(np.uint16),
    "bf16": np.dtype(np.uint16),
    "b32": np.dtype(np.uint32),
    "u32": np.dtype(np.uint32),
    "s32": np.dtype(np.int32),
    "f16x2": np.dtype(np.uint32),
    "bf16x2": np.dtype(np.uint32),
    "f32": np.dtype(np.float32),
    "b64": np.dtype(np.uint64),
    "u64": np.dtype(np.uint64),
    "s64": np.dtype(np.int64),
    "f64": np.dtype(np.float64),
}

UNSIGNED = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16), 4: np.dtype(np.uint32)}
UNSIGNED[8] = np.dtype(np.uint64)


def is_float(kind):
    """Whether instructions of this type do float arithmetic in NumPy."""
    return kind in ("f32", "f64")


def register_dtype(kind):
    """Returns how a register of this type is kept.

    One form for each width, whatever the sign: 64-bit registers hold mostly addresses and signed
    indices, narrower ones mostly bits, so these forms need the fewest reinterpretations.
    """
    dtype = NUMPY[kind]
    if dtype.kind in "fb":
        return dtype
    return np.dtype(np.int64) if dtype.itemsize == 8 else UNSIGNED[dtype.itemsize]


def python_name(register):
    """Returns the name of a register in generated code."""
    return "v_" + re.sub(r"\W", "_", register.lstrip("%"))
