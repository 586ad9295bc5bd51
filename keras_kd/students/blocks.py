"""Blocks: what repeats along the way that every path through a model takes, and may be left out."""

import math

from keras_kd.students import channels
from keras_kd.students.routes import Routes


class Run:
    """Blocks of equal structure, one behind another.

    Args:
        graph: The `Graph` they are in.
        blocks: A list of lists of `Step`s.
    """

    def __init__(self, graph, blocks):
        self.graph, self.blocks = graph, blocks

    def layers(self, block):
        """Names of the layers of a block."""
        return [name for step in self.blocks[block] for name in step.layers]

    def dropped(self, depth, is_kept):
        """Numbers of the blocks that go.

        Args:
            depth: Share of the blocks to keep.
            is_kept: Whether the layer of a path has to stay.
        """
        count = len(self.blocks)
        # Rounded half up: of three blocks depth=0.5 keeps two.
        kept = set(channels.spread(count, max(1, math.floor(depth * count + 0.5))).tolist())
        kept |= {i for i in range(count) if any(map(is_kept, self.paths(i)))}
        return [i for i in range(count) if i not in kept]

    def paths(self, block):
        """Paths of the layers of a block."""
        return [self.graph.path + name for name in self.layers(block)]

    def remove(self, numbers):
        """Takes blocks out of the graph."""
        # From the last on: what reads a block's end is then joined to an entry that still exists.
        for i in sorted(numbers, reverse=True):
            block = self.blocks[i]
            self.graph.remove(self.layers(i), block[0].entry, block[-1].end)


def runs_of(graph):
    """All runs of two or more equal blocks, those in nested models too."""
    found, inside = [], set()
    for steps in Routes(graph).chains():
        for start, end, period in _periodic(steps):
            blocks = [steps[i : i + period] for i in range(start, end, period)]
            found.append(Run(graph, blocks))
            inside |= {name for step in steps[start:end] for name in step.layers}
    for name, nested in graph.nested.items():
        if name not in inside:
            found += runs_of(nested)
    return found


def _periodic(steps, first=0, last=None):
    """`(start, end, period)` of stretches of steps that repeat, the longest ones first."""
    last = len(steps) if last is None else last
    candidates = [
        (count * period, -period, end)
        for period in range(1, (last - first) // 2 + 1)
        for end, count in _stretches(steps, first, last, period)
    ]
    if not candidates:
        return []
    length, period, end = max(candidates)
    start = end - length
    return [
        *_periodic(steps, first, start),
        (start, end, -period),
        *_periodic(steps, end, last),
    ]


def _stretches(steps, first, last, period):
    """`(end, repeats)` of the stretches in which each step equals the one a period later.

    What is left over where the length is no multiple of the period stays in front: of
    [convolution, normalization, activation] blocks behind a stem, whose own normalization and
    activation look like a part of the next block, each block begins with its convolution so.
    """
    start = first
    for i in range(first, last - period + 1):
        if i < last - period and steps[i].signature == steps[i + period].signature:
            continue
        repeats = (i + period - start) // period
        end = i + period
        if repeats > 1 and any(step.has_weights for step in steps[end - period : end]):
            yield end, repeats
        start = i + 1
