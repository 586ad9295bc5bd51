"""A kernel of a module: its instructions, registers, parameters and shared memory."""

import functools

from . import blocks, parser
from .translate import Translator
from .types import python_name, register_dtype

# Shared memory begins above 0, so that a null pointer is out of bounds, and its variables lie
# apart, so that running over the end of one is out of bounds too.
SHARED_BASE = 1024
SHARED_GAP = 64


class Kernel:
    """One `.entry`. Everything beyond its name and parameters is parsed when first needed."""

    def __init__(self, entry):
        self._entry = entry
        self.name = entry.name
        self.parameters = entry.parameters  # name to Variable: offset, size, align
        self.parameter_bytes = entry.parameter_bytes

    def __repr__(self):
        return f"Kernel({self.name})"

    @functools.cached_property
    def _body(self):
        return parser.BodyParser(self._entry).parse()

    @property
    def code(self):
        """The instructions, in the order of the text."""
        return self._body.instructions

    @property
    def registers(self):
        """Register name to PTX type."""
        return self._body.registers

    @functools.cached_property
    def fresh_registers(self):
        """Name in generated code to a zero of the type in which the register is kept."""
        return {
            python_name(name): register_dtype(kind).type(0) for name, kind in self.registers.items()
        }

    @functools.cached_property
    def static_shared(self):
        """Shared variables of known size, name to Variable."""
        return self._place([each for each in self._body.shared if each.size])

    @functools.cached_property
    def dynamic_shared(self):
        """Shared variables that the launch sizes; they all begin at the same address."""
        found = [each for each in self._body.shared if not each.size] + self._entry.dynamic_shared
        start = self._end_of_static
        align = max([16] + [each.align for each in found])
        start = -(-start // align) * align
        return {v.name: parser.Variable(v.name, start, 0, v.align) for v in found}

    @property
    def _end_of_static(self):
        ends = [each.offset + each.size + SHARED_GAP for each in self.static_shared.values()]
        return max([SHARED_BASE] + ends)

    @staticmethod
    def _place(variables):
        placed, offset = {}, SHARED_BASE
        for each in variables:
            align = max(each.align, 16)
            offset = -(-offset // align) * align
            placed[each.name] = parser.Variable(each.name, offset, each.size, each.align)
            offset += each.size + SHARED_GAP
        return placed

    def shared_spans(self, shared_bytes):
        """Returns [begin, end) of each piece of shared memory that a block may touch."""
        spans = [(each.offset, each.offset + each.size) for each in self.static_shared.values()]
        if shared_bytes:
            start = next(iter(self.dynamic_shared.values())).offset if self.dynamic_shared else None
            if start is not None:
                spans.append((start, start + shared_bytes))
        return spans

    @functools.cached_property
    def program(self):
        """The basic blocks, translated. Raises NotImplementedError for an unknown instruction."""
        found = blocks.split(self._body)
        translator = Translator(self)
        for block in found:
            translator.translate(block)
        return found


def load(text):
    """Returns the kernels of a PTX module: mangled name to `Kernel`."""
    return {entry.name: Kernel(entry) for entry in parser.entries(text)}
