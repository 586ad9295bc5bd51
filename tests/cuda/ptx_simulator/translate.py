"""A basic block of PTX to a Python function over the lanes of a launch.

Registers are local variables of the function. Each holds an array with a value for every lane, or
one NumPy scalar for all lanes; neither is ever changed in place, so that `mov` copies nothing.
Lanes that are elsewhere compute garbage along with the others; only at the end are the registers
that outlive the block merged under the mask of the lanes that were here.
"""

import collections
import re

import numpy as np

from . import arithmetic, blocks, conversions, flushing, rules_float, rules_integer, rules_memory
from .parameters import PARAMETER_BASE
from .types import NUMPY, UNSIGNED, python_name, register_dtype

RULES = {**rules_integer.RULES, **rules_float.RULES, **rules_memory.RULES}
_SPECIAL = re.compile(r"%(tid|ntid|ctaid|nctaid)\.[xyz]$|%laneid$")


class Translator:
    """Translates the blocks of one kernel."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.registers = kernel.registers
        self.flushed = flushing.flushed_registers(kernel.code, kernel.registers)
        shared = {**kernel.static_shared, **kernel.dynamic_shared}
        self.addresses = {name: variable.offset for name, variable in shared.items()}
        for name, variable in kernel.parameters.items():
            self.addresses[name] = PARAMETER_BASE + variable.offset
        self.names = {"np": np, "where": np.where, "A": arithmetic, "C": conversions}
        self.names |= {f"np_{dtype.name}": dtype for dtype in NUMPY.values()}

    def translate(self, block):
        """Fills in the block's function and its counts of instructions by class."""
        writer = BlockWriter(self, block)
        counts = collections.Counter()
        for instruction in block.instructions:
            kind = rules_float.class_of(instruction)
            writer.instruction(instruction, kind)
            if not instruction.guard:
                counts[kind] += 1
        if block.end is not None:
            check_end(block.end)
            counts["barrier" if blocks.is_block_barrier(block.end) else "control"] += 1
        block.counts = counts
        block.function = LazyFunction(writer.source(), self.names)

    def constant(self, value):
        """Returns the name under which generated code finds a value."""
        if isinstance(value, np.generic):
            name = f"k_{value.dtype.name}_{value.tobytes().hex()}"
        else:
            name = f"k_{len(self.names)}"
        self.names[name] = value
        return name


class LazyFunction:
    """A function compiled when it is first called: most blocks of a kernel never run."""

    def __init__(self, source, names):
        self.source, self.names, self.function = source, names, None

    def __call__(self, *arguments):
        if self.function is None:
            scope = {}
            exec(compile(self.source, "<PTX block>", "exec"), self.names, scope)
            self.function = scope["block"]
        return self.function(*arguments)


def check_end(instruction):
    """Refuses jumps and barriers of kinds that the scheduler does not know."""
    plain = {"bra": ({"uni"}, 1), "ret": ({"uni"}, 0), "exit": (set(), 0)}
    known, count = plain.get(instruction.name, ({"sync", "aligned", "cta"}, 1))
    barrier = instruction.name in ("bar", "barrier")
    wrong = set(instruction.modifiers) - known or len(instruction.operands) != count
    if wrong or (barrier and "sync" not in instruction.modifiers):
        raise unknown(instruction)
    if barrier and instruction.operands[0].startswith("%"):
        raise unknown(instruction)


def unknown(instruction, why=""):
    """Returns the error for an instruction outside of what is simulated."""
    return NotImplementedError(f"PTX line {instruction.line}: {instruction.text} {why}".rstrip())


class BlockWriter:
    """Writes the function of one block, instruction by instruction, for the rules."""

    def __init__(self, translator, block):
        self.translator, self.block = translator, block
        self.registers, self.constant = translator.registers, translator.constant
        self.lines, self.loaded, self.written = [], [], {}
        self.flushed_copies = {}
        self.temporaries = 0
        self.current, self.guard = None, None

    # What the rules use.

    def instruction(self, instruction, kind):
        """Writes one instruction."""
        rule = RULES.get(instruction.name)
        if rule is None:
            raise unknown(instruction)
        self.current, self.guard = instruction, self._guard(instruction)
        if self.guard:
            self.lines.append(f"on = active.only({self.guard})")
            self.lines.append(f"run.counters.instruction({kind!r}, on)")
        try:
            rule(self, instruction)
        except (KeyError, IndexError, ValueError) as error:
            # Rules look operands and modifiers up; what they do not find they do not know.
            raise unknown(instruction, f"({error!r})") from error

    def allow(self, *modifiers):
        """Refuses the instruction if it has a modifier that is not named: it would matter."""
        for each in self.current.modifiers:
            if each not in modifiers and each not in NUMPY:
                raise unknown(self.current, f"(.{each})")

    def refuse(self, why=""):
        """Raises the error for an instruction of an unknown form."""
        raise unknown(self.current, why)

    @property
    def active(self):
        """The lanes that execute the instruction, as an expression."""
        return "on" if self.guard else "active"

    def read(self, operand, dtype):
        """Returns an expression for an operand as an array or scalar of a NumPy type."""
        dtype = np.dtype(dtype)
        if operand in self.registers:
            return self._cast(self._local(operand), self.storage(operand), dtype)
        if _SPECIAL.match(operand):
            return self._cast(f"run.special[{operand!r}]", np.dtype(np.uint32), dtype)
        if operand == "WARP_SZ":
            return self.constant(dtype.type(32))
        return self.constant(self.literal(operand, dtype))

    def read_bits(self, operand, kind):
        """As `read`, in the form in which registers of the type are kept: no reinterpretation."""
        return self.read(operand, register_dtype(kind))

    def read_flushed(self, operand, kind):
        """As `read`, with subnormals flushed."""
        expression = self.read(operand, NUMPY[kind])
        if operand not in self.registers:
            return self.constant(arithmetic.flush(self.translator.names[expression]))
        if operand in self.translator.flushed:
            return expression
        if operand not in self.flushed_copies:
            self.flushed_copies[operand] = self.temporary(f"A.flush({expression})")
        return self.flushed_copies[operand]

    def predicate(self, operand):
        """Returns an expression for a predicate operand, perhaps negated."""
        if operand.startswith("!"):
            return f"~{self._local(operand[1:].strip())}"
        return self.read(operand, np.bool_)

    def write(self, operand, expression, dtype):
        """Assigns an expression of a NumPy type to a register."""
        if operand == "_":
            return
        if operand not in self.registers:
            self.refuse(f"({operand})")
        value = self._cast(f"({expression})", np.dtype(dtype), self.storage(operand), widen=True)
        if self.guard:
            value = f"where({self.guard}, {value}, {self._local(operand)})"
        name = python_name(operand)
        self.lines.append(f"{name} = {value}")
        self.written[operand] = name
        self.flushed_copies.pop(operand, None)

    def temporary(self, expression, count=None):
        """Assigns an expression to a new variable, or to `count` of them."""
        names = [f"t{self.temporaries + i}" for i in range(count or 1)]
        self.temporaries += len(names)
        self.lines.append(f"{', '.join(names)}{',' if count else ''} = {expression}")
        return names if count else names[0]

    def statement(self, line):
        """Adds a line."""
        self.lines.append(line)

    def storage(self, register):
        """Returns the NumPy type in which a register is kept."""
        return register_dtype(self.registers[register])

    def literal(self, operand, dtype):
        """Returns a literal, or the address of a variable, as a NumPy scalar."""
        lower = operand.lower()
        if operand in self.translator.addresses:
            bits = self.translator.addresses[operand]
        elif re.fullmatch(f"0[fd][0-9a-f]{{{2 * dtype.itemsize}}}", lower):
            bits = int(lower[2:], 16)
        elif re.fullmatch(r"-?(0x[0-9a-f]+|\d+)u?", lower) and dtype.kind in "iub":
            bits = int(lower.rstrip("u"), 0) if not re.match("0[0-7]", lower) else int(lower, 8)
        else:
            self.refuse(f"({operand})")
        if dtype.kind == "b":
            return np.bool_(bits)
        size = dtype.itemsize
        return UNSIGNED[size].type(bits & ((1 << 8 * size) - 1)).view(dtype)

    # The function around it.

    def source(self):
        """Returns the text of the function; its result says which lanes take the jump."""
        condition = self._guard(self.block.end) if self.block.end is not None else None
        outliving = [
            name for register, name in self.written.items() if register not in self.block.local
        ]
        lines = [f"{name} = R.{name}" for name in self.loaded] + self.lines
        if outliving:
            lines += ["if active.alone:"] + [f"    R.{name} = {name}" for name in outliving]
            lines += ["else:", "    mask = active.mask"]
            lines += [f"    R.{name} = where(mask, {name}, R.{name})" for name in outliving]
        lines.append(f"return {condition}")
        return "def block(R, run, active):\n" + "".join(f"    {line}\n" for line in lines)

    def _guard(self, instruction):
        if not instruction.guard:
            return None
        return ("~" if instruction.negated else "") + self._local(instruction.guard)

    def _local(self, register):
        name = python_name(register)
        if register not in self.written and name not in self.loaded:
            self.loaded.append(name)
        return name

    def _cast(self, expression, have, want, widen=False):
        if have == want:
            return expression
        if have.kind == "b" or want.kind == "b":
            self.refuse("(a predicate as a number)")
        if have.itemsize == want.itemsize:
            return f"{expression}.view(np_{want.name})"
        if have.itemsize < want.itemsize and not widen:
            self.refuse("(an operand narrower than the instruction)")
        if "f" in (have.kind, want.kind):
            self.refuse("(a float of another width)")
        return f"{expression}.astype(np_{want.name})"
