"""What an entry of the tables says of an argument, and which arguments there are."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Counts:
    """An argument that is honored.

    Attributes:
        value: One away from its default, or away from the entry's `base`.
        also: Other arguments that it needs.
        against: What it is compared with has these instead; default: `also`.
        probe: What shows the change, a function of the object; default: the entry's.
        kept: Whether the configuration has it; one that says how an object is made may not.
    """

    value: Any
    also: dict = dataclasses.field(default_factory=dict)
    against: dict | None = None
    probe: Callable | None = None
    kept: bool = True


@dataclasses.dataclass(frozen=True)
class Refused:
    """An argument that the class does not take: a value, and a part of the error's message."""

    value: Any
    message: str
    also: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Waiting:
    """An entry that does not hold yet. It may even name an argument that does not exist yet."""

    entry: Any
    reason: str


def of(subject):
    """The arguments of a class or function, by name: `{name: where it is declared}`.

    A constructor's `**kwargs` are those of the next class that has a constructor. A class that
    passes no `**kwargs` on ends the list.
    """
    classes = subject.__mro__ if inspect.isclass(subject) else [subject]
    found = {}
    for owner in classes:
        function = owner.__dict__.get("__init__") if inspect.isclass(subject) else owner
        if function is None or owner is object:
            continue
        parameters = list(inspect.signature(function).parameters.values())
        for parameter in parameters[1:] if inspect.isclass(subject) else parameters:
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                found.setdefault(parameter.name, owner.__name__)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def base_of(entry):
    """What an argument that counts is compared with."""
    return entry.also if entry.against is None else entry.against


def missing(subject, known):
    """The arguments without an entry, as `"Class(argument=)"`."""
    return [f"{subject.__name__}({name}=)" for name in of(subject) if name not in known]


def ended(subject, known):
    """The entries of arguments that no longer exist; refused ones need not exist."""
    there = of(subject)
    return [name for name, each in known.items() if name not in there and type(each) is Counts]


def resolved(entry):
    """`(entry, reason)`: without its `Waiting`, and why it waits, or `None`."""
    return (entry.entry, entry.reason) if isinstance(entry, Waiting) else (entry, None)
