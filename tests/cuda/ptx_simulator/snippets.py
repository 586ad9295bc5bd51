"""Small kernels for the tests of the simulator."""

import struct

import numpy as np

from . import Device, load

HEADER = """
.version 8.0
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 dynamic[];
"""

REGISTERS = """
    .reg .pred %p<16>;
    .reg .b16 %h<16>;
    .reg .b32 %r<32>;
    .reg .f32 %f<32>;
    .reg .b64 %rd<32>;
    .reg .f64 %fd<16>;
"""


def kernel(body, pointers=1, declarations=""):
    """Returns a kernel whose parameters are pointers: in %rd1, %rd2 ...; the thread is in %r1.

    %rd10 is 4 bytes times the thread.
    """
    parameters = ", ".join(f".param .u64 pointer{i + 1}" for i in range(pointers))
    loads = "".join(f"    ld.param.u64 %rd{i + 1}, [pointer{i + 1}];\n" for i in range(pointers))
    text = f"""{HEADER}
.visible .entry test({parameters})
{{
{REGISTERS}{declarations}{loads}
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd10, %r1, 4;
{body}
    ret;
}}
"""
    return load(text)["test"]


def launch(device, compiled, *addresses, grid=1, block=32, shared_bytes=0):
    """Launches a kernel of `kernel`."""
    parameters = struct.pack(f"<{len(addresses)}Q", *addresses)
    device.launch(compiled, (grid,), (block,), parameters, shared_bytes)


def run(body, *arrays, grid=1, block=32, shared_bytes=0, declarations="", **options):
    """Runs a body over copies of arrays, its pointers; returns the arrays afterwards."""
    device = Device(**options)
    addresses = [device.allocate(array) for array in arrays]
    compiled = kernel(body, len(arrays), declarations)
    launch(device, compiled, *addresses, grid=grid, block=block, shared_bytes=shared_bytes)
    return [device.read(address) for address in addresses]


_KINDS = {"float32": ("f32", "%f"), "uint32": ("u32", "%r"), "int32": ("s32", "%r")}
_KINDS |= {"uint16": ("u16", "%h"), "int16": ("s16", "%h"), "float64": ("f64", "%fd")}
_KINDS |= {"uint64": ("u64", "%rd"), "int64": ("s64", "%rd")}


def each(code, *inputs, out, **options):
    """Computes `code` for each element, one a thread.

    In the code, {a}, {b}, {c} stand for the registers of the inputs and {d} for the result.
    """
    inputs = [np.asarray(value) for value in inputs]
    count = len(inputs[0])
    lines, names = [], {}
    for index, value in enumerate(inputs):
        kind, prefix = _KINDS[value.dtype.name]
        names["abc"[index]] = f"{prefix}{12 + index}"
        lines += [
            f"mul.wide.u32 %rd20, %r1, {value.dtype.itemsize};",
            f"add.s64 %rd20, %rd{index + 1}, %rd20;",
            f"ld.global.{kind} {prefix}{12 + index}, [%rd20];",
        ]
    kind, prefix = _KINDS[np.dtype(out).name]
    names["d"] = f"{prefix}15"
    lines += [
        code.format(**names),
        f"mul.wide.u32 %rd20, %r1, {np.dtype(out).itemsize};",
        f"add.s64 %rd20, %rd{len(inputs) + 1}, %rd20;",
        f"st.global.{kind} [%rd20], {prefix}15;",
    ]
    result = np.zeros(count, out)
    return run("\n".join(lines), *inputs, result, block=count, **options)[-1]
