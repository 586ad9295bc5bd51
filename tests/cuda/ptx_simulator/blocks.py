"""Basic blocks: runs of instructions that are entered at the top and left at the bottom."""

import dataclasses
import re

from .parser import Instruction

_NAMES = re.compile(r"[%\w$]+")
LEAVES = ("bra", "ret", "exit")
NO_DESTINATION = (*LEAVES, "st", "bar", "barrier")


def is_block_barrier(instruction):
    """Whether all threads of a block meet here (`bar.warp.sync` is a matter of one warp)."""
    return instruction.name in ("bar", "barrier") and "warp" not in instruction.modifiers


@dataclasses.dataclass
class Block:
    """Instructions up to and with one that changes where threads go on (`end`, or None).

    `local` are the registers that are of no use outside of the block. `function` and `counts`
    are filled in by the translator.
    """

    instructions: list
    end: Instruction | None
    target: int | None = None
    local: frozenset = frozenset()
    function: object = None
    counts: dict = dataclasses.field(default_factory=dict)


def split(body):
    """Returns the blocks of a body, in the order of the text; jumps give their indices."""
    starts = {0} | set(body.labels.values())
    for index, instruction in enumerate(body.instructions):
        if instruction.name in LEAVES or is_block_barrier(instruction):
            starts.add(index + 1)
    count = len(body.instructions)
    starts = sorted(start for start in starts if start < count)
    found = [_block(body, a, b) for a, b in zip(starts, starts[1:] + [count], strict=True)]
    index_of = {start: index for index, start in enumerate(starts)}
    for block in found:
        if block.end is not None and block.end.name == "bra":
            label = block.end.operands[0]
            # A label behind the last instruction: the thread runs off the end, which exits.
            block.target = index_of.get(body.labels[label], len(found))
    _find_local_registers(found, body.registers)
    return found


def _block(body, start, stop):
    last = body.instructions[stop - 1]
    ends = last.name in LEAVES or is_block_barrier(last)
    instructions = body.instructions[start : stop - 1 if ends else stop]
    return Block(instructions, last if ends else None)


def destination_count(instruction):
    """Returns how many of the operands, the first ones, are written."""
    name, operands = instruction.name, instruction.operands
    if name in NO_DESTINATION or not operands:
        return 0
    if name == "setp":
        return len(operands) - (3 if has_combined_predicate(instruction) else 2)
    if name == "shfl":
        return len(operands) - 4
    return 1


def has_combined_predicate(instruction):
    """Whether a `setp` combines its outcome with another predicate."""
    return instruction.modifiers[1] in ("and", "or", "xor")


def written_and_read(instruction, registers):
    """Returns two lists of register names."""
    count = destination_count(instruction)
    names = [_NAMES.findall(operand) for operand in instruction.operands]
    written = [each for some in names[:count] for each in some if each in registers]
    read = [each for some in names[count:] for each in some if each in registers]
    if instruction.guard:
        read.append(instruction.guard)
    return written, read


def _find_local_registers(found, registers):
    """Finds registers that one block alone uses, and writes before it reads.

    Such a register needs no mask when threads are apart: those that are elsewhere never look.
    """
    users, exposed = {}, set()
    for index, block in enumerate(found):
        defined = set()
        for instruction in block.instructions + ([block.end] if block.end else []):
            written, read = written_and_read(instruction, registers)
            exposed.update(each for each in read if each not in defined)
            # Under a guard the register keeps its old value for some threads.
            (exposed if instruction.guard else defined).update(
                each for each in written if each not in defined
            )
            for each in read + written:
                users.setdefault(each, set()).add(index)
    local = [set() for _ in found]
    for register, where in users.items():
        if len(where) == 1 and register not in exposed:
            local[where.pop()].add(register)
    for block, registers_of_one in zip(found, local, strict=True):
        block.local = frozenset(registers_of_one)
