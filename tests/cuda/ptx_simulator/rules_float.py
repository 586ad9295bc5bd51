"""Translation of float arithmetic and of conversions, and the classes in which all are counted."""

import numpy as np

from .rules_integer import INTEGER
from .types import NUMPY, is_float

RULES = {}
MUFU = {"ex2", "lg2", "rcp", "sqrt", "rsqrt", "sin", "cos", "tanh"}
_OWN_CLASS = {
    **dict.fromkeys(MUFU, "mufu"),
    **dict.fromkeys(("ld", "st"), "memory"),
    **dict.fromkeys(("shfl", "vote"), "shuffle"),
    **dict.fromkeys(("mov", "cvta"), "move"),
    **dict.fromkeys(("bar", "barrier"), "barrier"),
    "cvt": "conversion",
}


def class_of(instruction):
    """Returns the class in which an instruction is counted.

    A division counts as one `mufu`: what else the compiler makes of it is not in the PTX. Moves
    and loads of parameters are a class of their own, since most vanish in the compiler.
    """
    name = instruction.name
    if name == "ld" and "param" in instruction.modifiers:
        return "move"
    if name in _OWN_CLASS:
        return _OWN_CLASS[name]
    if is_float(instruction.type):
        return "mufu" if name == "div" else "fp32" if instruction.type == "f32" else "fp64"
    return "integer"


def float_values(writer, instruction):
    """Returns the operands of a float instruction, flushed where it says so."""
    kind = instruction.type
    if "ftz" in instruction.modifiers:
        return [writer.read_flushed(operand, kind) for operand in instruction.operands[1:]]
    return [writer.read(operand, NUMPY[kind]) for operand in instruction.operands[1:]]


def finish(writer, instruction, text):
    """Writes a float result, clamped and flushed where the instruction says so."""
    if "sat" in instruction.modifiers:
        text = f"A.saturate({text})"
    elif "ftz" in instruction.modifiers:
        text = f"A.flush({text})"
    writer.write(instruction.operands[0], text, NUMPY[instruction.type])


def float_operation(template, *modifiers):
    """Returns a translation to a template of the operands."""

    def translated(writer, instruction):
        writer.allow("ftz", *modifiers)
        values = float_values(writer, instruction)
        finish(writer, instruction, template.format(*values))

    return translated


def fused(writer, instruction):
    """`fma.rn.f32`."""
    writer.allow("rn", "ftz", "sat")
    if instruction.type != "f32":  # nothing here is wide enough to round float64 once
        writer.refuse()
    finish(writer, instruction, f"A.fma({', '.join(float_values(writer, instruction))})")


def extreme(writer, instruction):
    """`min` and `max`, with NaN lost or kept; the result is one of two flushed values."""
    writer.allow("ftz", "NaN")
    function = {"min": "A.minimum", "max": "A.maximum"}[instruction.name]
    function += "_nan" if "NaN" in instruction.modifiers else ""
    text = f"{function}({', '.join(float_values(writer, instruction))})"
    writer.write(instruction.operands[0], text, NUMPY[instruction.type])


def sign_change(writer, instruction):
    """`neg` and `abs`."""
    writer.allow("ftz")
    (value,) = float_values(writer, instruction)
    text = {"neg": f"-{value}", "abs": f"np.abs({value})"}[instruction.name]
    writer.write(instruction.operands[0], text, NUMPY[instruction.type])


def division(writer, instruction):
    """`div`: rounded, or approximate with noise."""
    writer.allow("rn", "full", "approx", "ftz")
    a, b = float_values(writer, instruction)
    text = f"{a} / {b}"
    if "approx" in instruction.modifiers:
        text = f"run.noise(A.divide_approximately({a}, {b}))"
    elif "full" in instruction.modifiers:
        text = f"run.noise({text})"
    finish(writer, instruction, text)


FLOAT = {
    "add": float_operation("{} + {}", "rn", "sat"),
    "sub": float_operation("{} - {}", "rn", "sat"),
    "mul": float_operation("{} * {}", "rn", "sat"),
    "fma": fused,
    "mad": fused,
    "min": extreme,
    "max": extreme,
    "neg": sign_change,
    "abs": sign_change,
    "div": division,
}


def either(name):
    """Returns the translation of a name that serves both integers and floats."""

    def translated(writer, instruction):
        table = FLOAT if is_float(instruction.type) else INTEGER
        table[name](writer, instruction)

    return translated


RULES.update({name: either(name) for name in FLOAT})


def special_function(writer, instruction):
    """`ex2`, `lg2`, `rcp` and the like: rounded, or approximate with noise."""
    name = instruction.name
    writer.allow("ftz", "approx", *(("rn",) if name in ("rcp", "sqrt") else ()))
    if instruction.type != "f32":
        writer.refuse()
    (value,) = float_values(writer, instruction)
    text = f"A.UNARY[{name!r}]({value})"
    if name == "ex2":
        text = f"run.noise.ex2({text}, {value})"
    elif "approx" in instruction.modifiers:
        text = f"run.noise({text})"
    finish(writer, instruction, text)


RULES.update(dict.fromkeys(MUFU, special_function))

SIXTEEN = {"f16": "half", "bf16": "bfloat"}
ROUNDINGS = {"rn", "rz", "rni", "rzi", "rmi", "rpi"}


def convert(writer, instruction):
    """`cvt.to.from`."""
    to, source = instruction.modifiers[-2:]
    rounding = next((each for each in instruction.modifiers if each in ROUNDINGS), None)
    flags = set(instruction.modifiers[:-2]) - {rounding}
    if flags - {"ftz", "sat"} or rounding == "rz":
        writer.refuse()
    if to in ("f16x2", "bf16x2") and source == "f32" and rounding == "rn" and not flags:
        return of_pair(writer, instruction, SIXTEEN[to[:-2]])
    target, operand = instruction.operands
    if source in SIXTEEN:
        if to != "f32" or rounding or flags - {"ftz"}:
            writer.refuse()
        value = f"C.{SIXTEEN[source]}_value({writer.read(operand, np.uint16)})"
        # A bfloat16 may be subnormal in float32 too; a half never is.
        value = f"A.flush({value})" if "ftz" in flags and source == "bf16" else value
        return writer.write(target, value, np.float32)
    if to in SIXTEEN:
        if source != "f32" or rounding != "rn" or flags - {"ftz"}:
            writer.refuse()
        value = writer.read_flushed(operand, "f32") if flags else writer.read(operand, "f4")
        return writer.write(target, f"C.{SIXTEEN[to]}_bits({value})", np.uint16)
    value, text = _source(writer, operand, source, flags), None
    if is_float(source):
        text = _from_float(writer, value, to, source, rounding, flags)
    elif is_float(to):
        text = f"{value}.astype(np_{NUMPY[to].name})" if rounding == "rn" else None
    elif rounding is None:
        saturated = f"C.saturated_integer({value}, {to!r})"
        text = saturated if "sat" in flags else f"{value}.astype(np_{NUMPY[to].name})"
    if text is None:
        writer.refuse()
    return writer.write(target, text, NUMPY[to])


def of_pair(writer, instruction, name):
    """Two float32 to two 16-bit floats in one register."""
    target, high, low = instruction.operands
    values = ", ".join(writer.read(operand, np.float32) for operand in (high, low))
    writer.write(target, f"C.{name}_pair({values})", np.uint32)


def _source(writer, operand, kind, flags):
    if kind == "f32" and "ftz" in flags:
        return writer.read_flushed(operand, kind)
    return writer.read(operand, NUMPY[kind])


def _from_float(writer, value, to, source, rounding, flags):
    """float to float or to integer; None where the form is not known."""
    if not is_float(to):
        return f"C.to_integer({value}, {rounding!r}, {to!r})" if rounding else None
    if rounding in ("rni", "rzi", "rmi", "rpi"):
        if to != source:
            return None
        value = f"C.ROUND[{rounding!r}]({value})"
    elif to == "f32" and source == "f64" and rounding != "rn":
        return None
    text = f"{value}.astype(np_{NUMPY[to].name})" if to != source else value
    text = f"A.saturate({text})" if "sat" in flags else text
    return f"A.flush({text})" if "ftz" in flags and to == "f32" else text


RULES["cvt"] = convert
