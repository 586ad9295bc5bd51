"""A model's graphs as a program whose multiply-adds are counted, loops included.

TensorFlow's graphs and `.tflite` files are both read into this form: nodes, and values between
them.
"""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Node:
    """An operation.

    Attributes:
        kind: Its name in lower case without underscores, such as `"logicaland"`.
        label: Its kind and name as a user knows them.
        inputs: Names of the values it reads; `None` for one that is left out.
        outputs: Names of the values it makes.
        macs: Its multiply-accumulates; `None` where it has some that are not known.
        loop: Names of the graphs `(condition, body)` of a loop.
        branches: Names of the graphs of a branch (one of them runs), or of the one that is called.
    """

    kind: str
    label: str
    inputs: list
    outputs: list
    macs: int | None = 0
    loop: tuple = ()
    branches: tuple = ()


@dataclasses.dataclass(frozen=True)
class Graph:
    """Operations in an order in which they can run.

    Attributes:
        inputs: Names of values.
        outputs: Names of values.
        nodes: A list of `Node`.
        constant: A function from the name of a value to its array, or `None` if it is not constant.
    """

    inputs: list
    outputs: list
    nodes: list
    constant: Callable[[str], np.ndarray | None]

    def producers(self) -> dict[str, Node]:
        """`{value: the node that makes it}`."""
        return {output: node for node in self.nodes for output in node.outputs}

    def needed(self) -> list[Node]:
        """The nodes on which the outputs depend, in order."""
        producers, found = self.producers(), set()
        waiting = [producers[value] for value in self.outputs if value in producers]
        while waiting:
            node = waiting.pop()
            if id(node) not in found:
                found.add(id(node))
                waiting += [producers[value] for value in node.inputs if value in producers]
        return [node for node in self.nodes if id(node) in found]


# Names of graphs to `Graph`s. The main one is called MAIN.
Program = dict[str, Graph]
MAIN = ""


def count(program: Program) -> tuple[int, list[str]]:
    """The multiply-accumulates of one run, and what is not in them.

    Returns:
        `(macs, notes)`: a whole number, and a list of sentences about operations that multiply
        and could not be counted.
    """
    counter = _Counter(program)
    macs = counter.count_graph(MAIN)
    return macs, counter.notes()


def count_by_node(program: Program) -> dict[str, int]:
    """The multiply-accumulates of each node of the main graph, by the first value that it makes."""
    graph, counter = program[MAIN], _Counter(program)
    return {node.outputs[0]: counter.count_node(graph, node) for node in graph.needed()}


class _Counter:
    def __init__(self, program):
        self._program = program
        self._missed: collections.Counter[str] = collections.Counter()
        self._notes = []

    def count_graph(self, name: str) -> int:
        graph = self._program[name]
        return sum(self.count_node(graph, node) for node in graph.needed())

    def count_node(self, graph: Graph, node: Node) -> int:
        if node.loop:
            return self._loop(graph, node)
        if node.branches:
            return self._branches(node)
        if node.macs is None:
            self._missed[node.label] += 1
        return node.macs or 0

    def _loop(self, graph, node):
        once = sum(self.count_graph(name) for name in node.loop)
        steps = loop_steps(self._program, graph, node)
        if steps is not None:
            return once * steps
        if once:
            self._notes.append(
                f"macs: the loop {node.label} does not show how many steps it makes; its body is "
                "counted once."
            )
        return once

    def _branches(self, node):
        macs = [self.count_graph(name) for name in node.branches]
        if len(set(macs)) > 1:
            self._notes.append(
                f"macs: of the branches of {node.label} the largest is counted: {macs}."
            )
        return max(macs)

    def notes(self) -> list[str]:
        missed = [f"{label} ({times})" for label, times in sorted(self._missed.items())]
        if missed:
            self._notes.append(
                "macs: not counted, though they multiply: " + ", ".join(missed) + "."
            )
        return list(dict.fromkeys(self._notes))


# How often a loop runs, where its graph shows it.
#
# Both TensorFlow and LiteRT keep a recurrent layer as a loop whose condition compares a counter
# with the number of time steps. The few scalars that lead to the condition are computed here;
# everything else of the body is left alone.

# A loop of more steps is taken for one that never ends.
MOST_STEPS = 100_000

_OPERATIONS: dict[str, Callable] = {
    "add": np.add,
    "addv2": np.add,
    "cast": lambda x: x,
    "equal": np.equal,
    "greater": np.greater,
    "greaterequal": np.greater_equal,
    "identity": lambda x: x,
    "less": np.less,
    "lessequal": np.less_equal,
    "logicaland": np.logical_and,
    "logicalnot": np.logical_not,
    "logicalor": np.logical_or,
    "max": lambda x, axes: np.max(x, axis=tuple(np.ravel(axes))),
    "maximum": np.maximum,
    "minimum": np.minimum,
    "mul": np.multiply,
    "notequal": np.not_equal,
    "range": np.arange,
    "sub": np.subtract,
}


def loop_steps(program: Program, graph: Graph, node: Node) -> int | None:
    """How often the body of a loop runs; `None` where its graph does not show it.

    Args:
        program: All graphs.
        graph: The one that the loop is in.
        node: The loop.
    """
    condition, body = (program[name] for name in node.loop)
    state = Values(graph, {}).of(node.inputs)
    for step in range(MOST_STEPS):
        goes_on = Values(condition, _known(condition.inputs, state)).one(condition.outputs[0])
        if goes_on is None:
            return None
        if not goes_on:
            return step
        values = Values(body, _known(body.inputs, state))
        # A value that was not known will not be: nothing of the layer itself is computed.
        wanted = [
            None if old is None else new for new, old in zip(body.outputs, state, strict=True)
        ]
        state = values.of(wanted)
    return None


def _known(names, values):
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


class Values:
    """Values of a graph, as far as they follow from its constants and from some inputs."""

    def __init__(self, graph, inputs):
        self._graph, self._found = graph, dict(inputs)
        self._producers = graph.producers()

    def of(self, names: list) -> list:
        """A list of arrays, with `None` for values that are not known."""
        return [None if name is None else self.one(name) for name in names]

    def one(self, name: str) -> Any:
        """The array of a value, or `None`."""
        if name not in self._found:
            self._found[name] = self._computed(name)
        return self._found[name]

    def _computed(self, name):
        node = self._producers.get(name)
        if node is None or node.kind not in _OPERATIONS:
            return self._graph.constant(name)
        inputs = self.of(node.inputs)
        if node.kind == "logicaland" and any(x is not None and not np.any(x) for x in inputs):
            return np.False_
        if any(x is None for x in inputs):
            return None
        return _OPERATIONS[node.kind](*inputs)
