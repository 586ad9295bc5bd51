"""What TensorFlow's graphs and `.tflite` files have in common: nodes, and values between them."""

import dataclasses
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Node:
    """An operation.

    Attributes:
        kind: Its name in lower case without underscores, such as `"logicaland"`.
        label: Its kind and name as a user knows them.
        inputs: Names of values; `None` for one that is left out.
        outputs: Likewise.
        macs: Its multiply-accumulates; `None` where it has some that are not known.
        loop: `(condition, body)`, names of graphs, of a loop.
        branches: Names of graphs of which one runs, or of the only one that does.
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
        outputs: Likewise.
        nodes: A list of `Node`.
        constant: A function from the name of a value to its array, or `None` if it is no constant.
    """

    inputs: list
    outputs: list
    nodes: list
    constant: Callable[[str], np.ndarray | None]

    def producers(self):
        """`{value: the node that makes it}`."""
        return {output: node for node in self.nodes for output in node.outputs}

    def needed(self):
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
