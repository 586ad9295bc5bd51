"""Counts the multiply-accumulates of a program."""

import collections

from keras_kd.measurement.size import loops
from keras_kd.measurement.size.program import MAIN


def count(program):
    """The multiply-accumulates of one run, and what is not in them.

    Returns:
        `(macs, notes)`: a whole number, and a list of sentences about operations that multiply
        and could not be counted.
    """
    counter = _Counter(program)
    macs = counter.of(MAIN)
    return macs, counter.notes()


class _Counter:
    def __init__(self, program):
        self._program = program
        self._missed = collections.Counter()
        self._notes = []

    def of(self, name):
        graph = self._program[name]
        return sum(self._node(graph, node) for node in graph.needed())

    def _node(self, graph, node):
        if node.loop:
            return self._loop(graph, node)
        if node.branches:
            return self._branches(node)
        if node.macs is None:
            self._missed[node.label] += 1
        return node.macs or 0

    def _loop(self, graph, node):
        once = sum(self.of(name) for name in node.loop)
        steps = loops.steps(self._program, graph, node)
        if steps is not None:
            return once * steps
        if once:
            self._notes.append(
                f"macs: the loop {node.label} does not tell how many steps it makes; its body is "
                "counted once."
            )
        return once

    def _branches(self, node):
        macs = [self.of(name) for name in node.branches]
        if len(set(macs)) > 1:
            self._notes.append(
                f"macs: of the branches of {node.label} the largest is counted: {macs}."
            )
        return max(macs)

    def notes(self):
        missed = [f"{label} ({times})" for label, times in sorted(self._missed.items())]
        if missed:
            self._notes.append(
                "macs: not counted, though they multiply: " + ", ".join(missed) + "."
            )
        return list(dict.fromkeys(self._notes))
