"""Translation of loads, stores, and what the lanes of a warp do together."""

import dataclasses
import re

import numpy as np

from .parser import Instruction
from .types import NUMPY, UNSIGNED

RULES = {}
_ADDRESS = re.compile(r"\[\s*([%\w$]+)\s*(?:([+-])\s*(-?\d+))?\s*\]$")
# They choose caches, not values. (`volatile` and `weak` mean the same here: see the README.)
HINTS = {"ca", "cg", "cs", "lu", "cv", "wb", "wt", "weak", "volatile"}
VECTORS = {"v2": 2, "v4": 4}


@dataclasses.dataclass(frozen=True)
class Access:
    """A load or store: `count` elements of `dtype` at once."""

    instruction: Instruction
    dtype: np.dtype
    count: int
    offset: int
    store: bool
    read_only: bool

    @property
    def size(self):
        """Bytes of all elements, to which the address must be aligned."""
        return self.dtype.itemsize * self.count


def memory(writer, instruction):
    """`ld` and `st` of global and shared memory, and `ld.param`."""
    store = instruction.name == "st"
    space, *rest = instruction.modifiers
    count = next((VECTORS[each] for each in rest if each in VECTORS), 1)
    known = HINTS | set(VECTORS) | ({"nc"} if space == "global" and not store else set())
    for each in rest[:-1]:
        if each not in known and not each.startswith(("L1::", "L2::")):
            writer.refuse(f"(.{each})")
    bracket, registers = instruction.operands[:: 1 if store else -1]
    match = _ADDRESS.match(bracket)
    if not match or instruction.type not in NUMPY:
        writer.refuse()
    base, sign, number = match.groups()
    offset = int(number or 0) * (-1 if sign == "-" else 1)
    names = [each.strip() for each in registers.strip("{} ").split(",")]
    access = Access(instruction, NUMPY[instruction.type], count, offset, store, "nc" in rest)
    if len(names) != count:
        writer.refuse()
    if space == "param" and not store:
        return _load_parameter(writer, base, names, access)
    return _access(writer, space, base, names, access)


RULES.update(ld=memory, st=memory)


def _load_parameter(writer, base, names, access):
    kernel = writer.translator.kernel
    if base in writer.registers:
        address = writer.read(base, np.int64)
        call = f"run.parameters.load({writer.active}, {address}, {writer.constant(access)})"
        results = writer.temporary(call, access.count)
        for name, result in zip(names, results, strict=True):
            writer.write(name, result, access.dtype)
        return
    if base not in kernel.parameters:
        writer.refuse("(not a parameter of the kernel)")
    parameter = kernel.parameters[base]
    if not 0 <= access.offset <= parameter.size - access.size:
        writer.refuse("(outside of the parameter)")
    for index, name in enumerate(names):
        at = parameter.offset + access.offset + index * access.dtype.itemsize
        value = f"run.parameters.constant({at}, np_{access.dtype.name})"
        writer.write(name, value, access.dtype)


def _access(writer, space, base, names, access):
    if space not in ("global", "shared"):
        writer.refuse("(only global, shared and param memory)")
    address = _address(writer, space, base)
    call = f"({writer.active}, {address}, {writer.constant(access)}"
    if access.store:
        values = ", ".join(writer.read(name, access.dtype) for name in names)
        return writer.statement(f"run.{space}_memory.store{call}, ({values},))")
    results = writer.temporary(f"run.{space}_memory.load{call})", access.count)
    for name, result in zip(names, results, strict=True):
        writer.write(name, result, access.dtype)
    return None


def _address(writer, space, base):
    wide = base in writer.registers and writer.storage(base).itemsize == 8
    if space == "shared" and not wide:
        return f"{writer.read(base, np.uint32)}.astype(np_int64)"
    return writer.read(base, np.int64)


def shuffle(writer, instruction):
    """`shfl.sync`, with or without the predicate that says whether the source was in range."""
    writer.allow("sync", "up", "down", "bfly", "idx")
    if instruction.type != "b32":
        writer.refuse()
    *targets, value, lane, clamp, mask = instruction.operands
    words = ", ".join(writer.read(each, np.uint32) for each in (value, lane, clamp, mask))
    mode, this = instruction.modifiers[1], writer.constant(instruction)
    value, in_range = writer.temporary(
        f"run.warps.shuffle({writer.active}, {this}, {mode!r}, {words})", 2
    )
    writer.write(targets[0], value, np.uint32)
    if len(targets) == 2:
        writer.write(targets[1], in_range, np.bool_)


def vote(writer, instruction):
    """`vote.sync`: all, any or ballot."""
    writer.allow("sync", "all", "any", "ballot")
    target, predicate, mask = instruction.operands
    mode, this = instruction.modifiers[1], writer.constant(instruction)
    dtype = UNSIGNED[4] if mode == "ballot" else np.bool_
    values = f"{writer.predicate(predicate)}, {writer.read(mask, np.uint32)}"
    writer.write(target, f"run.warps.vote({writer.active}, {this}, {mode!r}, {values})", dtype)


def warp_barrier(writer, instruction):
    """`bar.warp.sync`; barriers of a block end a basic block and never come here."""
    writer.allow("warp", "sync")
    mask = writer.read(instruction.operands[0], np.uint32)
    this = writer.constant(instruction)
    writer.statement(f"run.warps.barrier({writer.active}, {this}, {mask})")


RULES.update(shfl=shuffle, vote=vote, bar=warp_barrier, barrier=warp_barrier)
