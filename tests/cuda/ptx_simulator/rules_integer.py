"""Translation of integer, logic, move and select instructions."""

import numpy as np

from .blocks import has_combined_predicate
from .types import NUMPY, UNSIGNED, is_float, register_dtype

RULES = {}

COMPARE = {
    "eq": "{a} == {b}",
    "ne": "{a} != {b}",
    "lt": "{a} < {b}",
    "le": "{a} <= {b}",
    "gt": "{a} > {b}",
    "ge": "{a} >= {b}",
    "lo": "{a} < {b}",
    "ls": "{a} <= {b}",
    "hi": "{a} > {b}",
    "hs": "{a} >= {b}",
}
# Of floats, the plain comparisons are false with a NaN, those ending in u are true.
COMPARE_FLOAT = {
    **{name: COMPARE[name] for name in ("eq", "lt", "le", "gt", "ge")},
    "ne": "({a} < {b}) | ({a} > {b})",
    "equ": "~(({a} < {b}) | ({a} > {b}))",
    "neu": "{a} != {b}",
    "ltu": "~({a} >= {b})",
    "leu": "~({a} > {b})",
    "gtu": "~({a} <= {b})",
    "geu": "~({a} < {b})",
    "num": "({a} == {a}) & ({b} == {b})",
    "nan": "({a} != {a}) | ({b} != {b})",
}


def rule(*names):
    """Registers a translation under the names of its instructions."""

    def register(function):
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def any_sign(writer, instruction, template):
    """Writes an operation whose bits do not depend on the sign of the type."""
    kind = instruction.type
    values = [writer.read_bits(operand, kind) for operand in instruction.operands[1:]]
    writer.write(instruction.operands[0], template.format(*values), register_dtype(kind))


def of_type(writer, instruction, template):
    """Writes an operation on values of the instruction's type."""
    dtype = NUMPY[instruction.type]
    values = [writer.read(operand, dtype) for operand in instruction.operands[1:]]
    writer.write(instruction.operands[0], template.format(*values), dtype)


@rule("and", "or", "xor", "not")
def logic(writer, instruction):
    """Bits or predicates."""
    writer.allow()
    symbols = {"and": "{} & {}", "or": "{} | {}", "xor": "{} ^ {}", "not": "~{}"}
    if instruction.type == "pred":
        values = [writer.predicate(operand) for operand in instruction.operands[1:]]
        text = symbols[instruction.name].format(*values)
        return writer.write(instruction.operands[0], text, np.bool_)
    return any_sign(writer, instruction, symbols[instruction.name])


def add_or_subtract(writer, instruction):
    """`add` and `sub` of integers."""
    writer.allow()
    any_sign(writer, instruction, {"add": "{} + {}", "sub": "{} - {}"}[instruction.name])


def multiply(writer, instruction):
    """`mul` and `mad` of integers: lo, hi or wide."""
    writer.allow("lo", "hi", "wide")
    mode, dtype, operands = instruction.modifiers[0], NUMPY[instruction.type], instruction.operands
    a, b = (writer.read(operand, dtype) for operand in operands[1:3])
    if mode == "hi" and dtype.itemsize == 8:
        writer.refuse()
    text = {
        "lo": f"{a} * {b}",
        "hi": f"A.multiply_high({a}, {b})",
        "wide": f"A.multiply_wide({a}, {b})",
    }[mode]
    if mode == "wide":
        dtype = np.dtype(f"{dtype.kind}{2 * dtype.itemsize}")
    if instruction.name == "mad":
        text = f"{text} + {writer.read(operands[3], dtype)}"
    writer.write(operands[0], text, dtype)


def integer_only(function_text):
    """Returns a translation that calls a function on values of the instruction's type."""

    def translated(writer, instruction):
        writer.allow()
        of_type(writer, instruction, function_text)

    return translated


INTEGER = {
    "add": add_or_subtract,
    "sub": add_or_subtract,
    "mul": multiply,
    "mad": multiply,
    "min": integer_only("np.minimum({}, {})"),
    "max": integer_only("np.maximum({}, {})"),
    "neg": integer_only("-{}"),
    "abs": integer_only("np.abs({})"),
    "div": integer_only("A.divide({}, {})"),
}
RULES["rem"] = integer_only("A.remainder({}, {})")


@rule("shl", "shr")
def shift(writer, instruction):
    """A shift; amounts known here, nearly all, take NumPy's operator."""
    writer.allow()
    target, value, amount = instruction.operands
    dtype = NUMPY[instruction.type]
    bits = 8 * dtype.itemsize
    text = writer.read(value, dtype)
    if amount not in writer.registers and int(amount, 0) < bits:
        symbol = {"shl": "<<", "shr": ">>"}[instruction.name]
        text = f"{text} {symbol} {writer.read(amount, dtype)}"
    else:
        function = {"shl": "A.shift_left", "shr": "A.shift_right"}[instruction.name]
        text = f"{function}({text}, {writer.read(amount, np.uint32)})"
    writer.write(target, text, dtype)


@rule("shf")
def funnel(writer, instruction):
    """`shf.l` or `shf.r`, wrapping or clamping."""
    writer.allow("l", "r", "wrap", "clamp")
    values = ", ".join(writer.read(each, np.uint32) for each in instruction.operands[1:])
    left, wrap = "l" in instruction.modifiers, "wrap" in instruction.modifiers
    writer.write(instruction.operands[0], f"A.funnel_shift({values}, {left}, {wrap})", np.uint32)


@rule("prmt", "bfe")
def bytes_or_bits(writer, instruction):
    """`prmt.b32` without a mode; `bfe.u32`."""
    writer.allow()
    if instruction.type not in ("b32", "u32"):
        writer.refuse()
    function = {"prmt": "A.permute_bytes", "bfe": "A.extract_bits"}[instruction.name]
    of_type(writer, instruction, function + "({}, {}, {})")


@rule("selp")
def select(writer, instruction):
    """Chooses by a predicate."""
    writer.allow()
    target, a, b, predicate = instruction.operands
    a, b = (writer.read_bits(operand, instruction.type) for operand in (a, b))
    text = f"where({writer.predicate(predicate)}, {a}, {b})"
    writer.write(target, text, register_dtype(instruction.type))


@rule("setp")
def compare(writer, instruction):
    """Compares, perhaps combines with a predicate, perhaps writes the opposite too."""
    kind, operands = instruction.type, list(instruction.operands)
    combined = has_combined_predicate(instruction)
    writer.allow("ftz", *instruction.modifiers[: 2 if combined else 1])
    third = writer.predicate(operands.pop()) if combined else None
    read = writer.read_flushed if "ftz" in instruction.modifiers else _read_plain(writer)
    b, a = read(operands.pop(), kind), read(operands.pop(), kind)
    table = COMPARE_FLOAT if is_float(kind) else COMPARE
    outcome = table[instruction.modifiers[0]].format(a=a, b=b)
    if len(operands) == 2 or combined:
        outcome = writer.temporary(outcome)
    for target, value in zip(operands, (outcome, f"~{outcome}"), strict=False):
        if combined:
            symbol = {"and": "&", "or": "|", "xor": "^"}[instruction.modifiers[1]]
            value = f"{value} {symbol} {third}"
        writer.write(target, value, np.bool_)


def _read_plain(writer):
    return lambda operand, kind: writer.read(operand, NUMPY[kind])


@rule("mov")
def move(writer, instruction):
    """Copies, packs `{a, b}` into one register, or unpacks."""
    writer.allow()
    target, source = instruction.operands
    kind = instruction.type
    if target.startswith("{"):
        return _unpack(writer, target, writer.read(source, UNSIGNED[NUMPY[kind].itemsize]))
    if source.startswith("{"):
        return _pack(writer, target, source, UNSIGNED[NUMPY[kind].itemsize])
    if kind == "pred":
        return writer.write(target, writer.predicate(source), np.bool_)
    return writer.write(target, writer.read_bits(source, kind), register_dtype(kind))


def _parts(text):
    return [part.strip() for part in text.strip("{} ").split(",")]


def _pack(writer, target, source, dtype):
    parts = _parts(source)
    size = dtype.itemsize // len(parts)
    terms = []
    for index, part in enumerate(parts):
        if part in writer.registers or int(part, 0) != 0:
            text = f"{writer.read(part, UNSIGNED[size])}.astype(np_{dtype.name})"
            shift_by = writer.constant(dtype.type(8 * size * index))
            terms.append(f"({text} << {shift_by})" if index else text)
    writer.write(target, " | ".join(terms) or writer.constant(dtype.type(0)), dtype)


def _unpack(writer, target, value):
    parts = _parts(target)
    whole = writer.temporary(value)
    size = NUMPY[writer.current.type].itemsize
    bits = 8 * size // len(parts)
    narrow = UNSIGNED[bits // 8]
    for index, part in enumerate(parts):
        shift_by = writer.constant(UNSIGNED[size].type(bits * index))
        text = f"({whole} >> {shift_by})" if index else whole
        writer.write(part, f"{text}.astype(np_{narrow.name})", narrow)


@rule("cvta")
def convert_address(writer, instruction):
    """Global addresses are generic addresses already."""
    writer.allow("to", "global")
    if "global" not in instruction.modifiers:
        writer.refuse()
    any_sign(writer, instruction, "{}")
