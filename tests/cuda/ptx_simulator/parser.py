"""PTX text to entries, and an entry's body to instructions."""

import dataclasses
import re

from .types import NUMPY

_LABEL = re.compile(r"([\w$]+)\s*:(?!:)\s*")
_INSTRUCTION = re.compile(r"(?:@(!?)([%\w$]+)\s+)?([a-z]\w*)((?:\.[\w:]+)*)\s*(.*)$", re.S)
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.*)$", re.S)
_REGISTER = re.compile(r"([%\w$]+)(?:<(\d+)>)?$")
_SHARED = re.compile(r"\.shared\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d*)\])?$")
_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+"
    r"(?:\.ptr\s+(?:\.\w+\s+)?(?:\.align\s+\d+\s+)?)?([\w$]+)(?:\[(\d+)\])?$"
)
_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*(?:\((.*?)\))?\s*((?:\.\w+[^{;]*)?)\{", re.S)
_NAME = re.compile(r"[%\w$]+")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction: `@guard name.modifiers operands`."""

    name: str
    modifiers: tuple
    operands: tuple
    guard: str | None
    negated: bool
    text: str
    line: int

    @property
    def type(self):
        """The last modifier, nearly always the type computed in."""
        return self.modifiers[-1] if self.modifiers else ""


@dataclasses.dataclass(frozen=True)
class Variable:
    """A parameter or a shared variable; `size` 0 for shared memory sized by the launch."""

    name: str
    offset: int
    size: int
    align: int


@dataclasses.dataclass
class Entry:
    """The text of one kernel, cut out but not parsed yet."""

    name: str
    parameters: dict
    parameter_bytes: int
    body: str
    first_line: int
    dynamic_shared: list


@dataclasses.dataclass
class Body:
    """A parsed body; `labels` give the index of the instruction that follows them."""

    instructions: list
    labels: dict
    registers: dict
    shared: list


def without_comments(text):
    """Returns the text with comments blanked; line numbers stay right."""
    text = re.sub(r"/\*.*?\*/", lambda match: "\n" * match[0].count("\n"), text, flags=re.S)
    return re.sub(r"//[^\n]*", "", text)


def entries(text):
    """Yields an `Entry` for every kernel of a PTX module."""
    text = without_comments(text)
    outside = re.findall(r"\.extern\s+(\.shared[^;]*?\[\s*\])\s*;", text)
    dynamic = [shared_variable(statement) for statement in outside]
    line, seen = 1, 0
    for match in _ENTRY.finditer(text):
        line, seen = line + text.count("\n", seen, match.end()), match.end()
        parameters, size = _parameters(match[2] or "")
        body = text[match.end() : _closing_brace(text, match.end())]
        yield Entry(match[1], parameters, size, body, line, dynamic)


def _closing_brace(text, start):
    depth = 1
    for match in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    raise ValueError("a kernel has no closing brace")


def _parameters(text):
    """Returns the parameters with the offsets of the driver's layout, and the bytes of all."""
    found, offset = {}, 0
    for declaration in filter(None, (part.strip() for part in text.split(","))):
        match = _PARAMETER.match(declaration)
        if not match:
            raise NotImplementedError(f"PTX parameter: {declaration}")
        item = NUMPY[match[2]].itemsize
        align, size = int(match[1] or item), item * int(match[4] or 1)
        offset = -(-offset // align) * align
        found[match[3]] = Variable(match[3], offset, size, align)
        offset += size
    return found, offset


def shared_variable(statement):
    """Returns the `Variable` that a `.shared` statement declares, at no offset yet."""
    match = _SHARED.match(" ".join(statement.split()))
    if not match:
        raise NotImplementedError(f"PTX declaration: {statement}")
    item = NUMPY[match[2]].itemsize
    count = 1 if match[4] is None else int(match[4] or 0)
    return Variable(match[3], 0, item * count, int(match[1] or item))


def operands_of(text):
    """Splits operands at the commas outside of brackets; `p|q` becomes two."""
    parts, depth, part = [], 0, ""
    for character in text:
        depth += (character in "{[") - (character in "}]")
        if character == "," and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += character
    if part.strip():
        parts.append(part.strip())
    if parts and "|" in parts[0]:
        parts[:1] = [name.strip() for name in parts[0].split("|")]
    return tuple(parts)


class BodyParser:
    """Walks the statements of a body, keeping the scopes of inline assembly apart."""

    def __init__(self, entry):
        self.entry = entry
        self.instructions, self.labels = [], {}
        self.registers, self.shared = {}, []
        self.scopes = [{}]  # inner names to the body's own, innermost scope last
        self.opened = 0

    def parse(self):
        """Returns the `Body`."""
        line = self.entry.first_line
        statement, depth = "", 0
        for piece in re.split(r"([;{}\n])", self.entry.body):
            if piece == "\n":
                line += 1
                statement += " "
            elif piece == "{" and not statement.strip():
                self.opened += 1
                self.scopes.append({})
            elif piece == "}" and not statement.strip() and depth == 0:
                self.scopes.pop()
            elif piece == ";":
                self._statement(statement.strip(), line)
                statement = ""
            else:
                depth += (piece == "{") - (piece == "}")
                statement = self._labels(statement + piece)
        return Body(self.instructions, self.labels, self.registers, self.shared)

    def _labels(self, statement):
        while match := _LABEL.match(statement.lstrip()):
            self.labels[self._own(match[1])] = len(self.instructions)
            statement = statement.lstrip()[match.end() :]
        return statement

    def _own(self, name):
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return name

    def _statement(self, statement, line):
        if statement.startswith(".reg"):
            self._declare(statement)
        elif statement.startswith(".shared"):
            self.shared.append(shared_variable(statement))
        elif statement.split()[:1] in ([".loc"], [".pragma"], [".file"]):
            pass
        elif statement.startswith("."):
            raise NotImplementedError(f"PTX line {line}: {statement}")
        elif statement:
            self._instruction(statement, line)

    def _declare(self, statement):
        kind, names = _REGISTERS.match(statement).groups()
        for name in names.split(","):
            base, count = _REGISTER.match(name.strip()).groups()
            for each in [base] if count is None else [f"{base}{i}" for i in range(int(count))]:
                own = each if len(self.scopes) == 1 else f"{each}__{self.opened}"
                self.scopes[-1][each] = own
                self.registers[own] = kind

    def _instruction(self, statement, line):
        if len(self.scopes) > 1:
            statement = _NAME.sub(lambda match: self._own(match[0]), statement)
        text = " ".join(statement.split())
        match = _INSTRUCTION.match(text)
        if not match:
            raise NotImplementedError(f"PTX line {line}: {text}")
        negated, guard, name, modifiers, operands = match.groups()
        modifiers = tuple(modifiers.split(".")[1:])
        self.instructions.append(
            Instruction(name, modifiers, operands_of(operands), guard, negated == "!", text, line)
        )
