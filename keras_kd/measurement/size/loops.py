"""How often a loop runs, where that is written in its graph.

Both TensorFlow and LiteRT keep a recurrent layer as a loop whose condition compares a counter with
the number of time steps. The few scalars that lead to the condition are computed here; everything
else of the body is left alone.
"""

from collections.abc import Callable

import numpy as np

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


def steps(program, graph, node):
    """How often the body of a loop runs; `None` where its graph does not tell.

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

    def of(self, names):
        """A list of arrays, with `None` for values that are not known."""
        return [None if name is None else self.one(name) for name in names]

    def one(self, name):
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
