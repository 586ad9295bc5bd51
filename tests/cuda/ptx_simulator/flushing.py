"""Finds float registers that never hold a subnormal number.

`.ftz` flushes what goes in and what comes out. Most inputs are outputs of such instructions, so
that flushing them again would change nothing and cost a third of a launch's time.
"""

ARITHMETIC = {"add", "sub", "mul", "fma", "mad", "min", "max", "abs", "neg", "div"}
ARITHMETIC |= {"ex2", "lg2", "rcp", "sqrt", "rsqrt", "sin", "cos", "tanh"}


def is_subnormal_literal(operand):
    """Whether the operand is a float literal that `.ftz` would change."""
    if operand[:2].lower() != "0f":
        return False
    bits = int(operand[2:], 16) & 0x7FFFFFFF
    return 0 < bits < 0x00800000


def flushed_registers(instructions, registers):
    """Returns the f32 registers whose every assignment is free of subnormals."""
    flushed = {name for name, kind in registers.items() if kind == "f32"}
    sized = None
    while sized != len(flushed):  # a register that falls takes along those copied from it
        sized = len(flushed)
        for instruction in instructions:
            if instruction.name == "st" or not instruction.operands:
                continue
            if not _is_flushed(instruction, flushed):
                written = instruction.operands[0].strip("{} ").split(",")
                flushed.difference_update(name.strip() for name in written)
    return flushed


def _is_flushed(instruction, flushed):
    """Whether the results of the instruction are, given the registers believed to be."""
    name, modifiers = instruction.name, instruction.modifiers
    if name in ARITHMETIC:
        return "ftz" in modifiers
    if name == "cvt":
        # Halves and integers are normal numbers, or zero, as f32. bfloat16 need not be.
        exact = modifiers[-1] == "f16" or modifiers[-1][0] in "us"
        return "ftz" in modifiers or (modifiers[-2] == "f32" and exact)
    if name in ("mov", "selp") and modifiers[-1] == "f32":
        sources = instruction.operands[1:3]  # a or b; of mov the only one
        return all(
            each in flushed or (each[0] != "%" and not is_subnormal_literal(each))
            for each in sources
        )
    return False
