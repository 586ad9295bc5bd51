"""Depth: the blocks of equal structure that repeat in a model, and may be left out.

`Routes` finds the tensors that every path through a graph passes, a `Step` is what lies between two
of them, and a `Run` is a sequence of equal blocks of steps.
"""

import itertools
import json
import math
from typing import Any

import numpy as np

from keras_kd.students import channels
from keras_kd.students.graph import Ref, ref_of

_SINK = ("", -1)  # stands behind all outputs


class Routes:
    """The tensors of a graph that every path passes; calls are identified by `(layer, number)`.

    Args:
        graph: The `Graph`.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._calls = {call[:2]: call for call in graph.calls()}
        self._readers: dict[tuple, list] = {key: [] for key in self._calls}
        for key, call in self._calls.items():
            for ref in call.refs:
                self._readers[ref[:2]].append((key, ref))
        self._outputs = {ref[:2] for ref in graph.outputs}
        self._next = self._meeting_points()

    def _meeting_points(self):
        """For each call the next one that all paths from it to the outputs pass."""
        following: dict[tuple, tuple] = {}
        depth = {_SINK: 0}

        def meet(one, other):
            while one != other:
                if depth[one] < depth[other]:
                    one, other = other, one
                one = following[one]
            return one

        for key in reversed(self._calls):
            readers = [reader for reader, _ in self._readers[key]]
            point = _SINK if key in self._outputs or not readers else readers[0]
            for reader in readers:
                point = meet(point, reader)
            following[key], depth[key] = point, depth[point] + 1
        return following

    def chains(self) -> "list[list[Step]]":
        """Lists of consecutive `Step`s; each begins at an input, longest first."""
        routes = [self._route(ref[:2]) for ref in self._graph.inputs]
        seen, found = set(), []
        for route in sorted(routes, key=len, reverse=True):
            new = [pair for pair in itertools.pairwise(route) if pair[0] not in seen]
            seen |= set(route)
            found.append([self._step(*pair) for pair in new])
        return found

    def _route(self, key):
        route = []
        while key != _SINK:
            route.append(key)
            key = self._next[key]
        return route

    def _step(self, start, end):
        region = self._region(start, end)
        read = {ref for key in region for ref in self._calls[key].refs}
        entries = {ref for ref in read if ref[:2] == start}
        entry = entries.pop() if len(entries) == 1 else None
        leaves = {ref for _, ref in self._readers[end]} | {
            ref for ref in self._graph.outputs if ref[:2] == end
        }
        whole = entry and leaves == {Ref(end[0], end[1], 0)} and self._is_whole(region)
        calls = [call for key, call in self._calls.items() if key in region]
        return Step(self._graph, entry if whole else None, calls)

    def _region(self, start, end):
        """What lies behind `start` up to `end`, with what is made for it alone."""
        region, waiting = {end}, [reader for reader, _ in self._readers[start]]
        while waiting:
            key = waiting.pop()
            if key not in region:
                region.add(key)
                waiting += [reader for reader, _ in self._readers[key]]
        for key in reversed(self._calls):
            readers = {reader for reader, _ in self._readers[key]}
            is_source = key == start or not self._calls[key].refs or key in self._outputs
            if readers and readers <= region and not is_source:
                region.add(key)
        return region

    def _is_whole(self, region):
        """Whether no layer of a region is called outside of it too."""
        layers = {key[0] for key in region}
        return all(key in region for key in self._calls if key[0] in layers)


class Step:
    """The region between a tensor and the next one that every path from it passes.

    Args:
        graph: The `Graph`.
        entry: `Ref` of the tensor that it reads, or `None` where the region cannot be left out.
        calls: Its calls, each behind those that it reads; the last one makes its end.
    """

    def __init__(self, graph: Any, entry: Any, calls: Any) -> None:
        self.entry, self.calls = entry, calls
        self.end = Ref(calls[-1].layer, calls[-1].number, 0)
        self.layers = list(dict.fromkeys(call.layer for call in calls))
        operations = [graph.operations[name] for name in self.layers]
        self.has_weights = any(getattr(operation, "weights", None) for operation in operations)
        # What cannot be left out equals nothing.
        self.signature = object() if entry is None else _signature(graph, entry, calls)


def _signature(graph, entry, calls):
    """A text that is equal for regions of equal structure: all but names, seeds and dropout."""
    made = {call[:2]: call for call in calls}
    numbers: dict[tuple, int] = {}
    lines, waiting = [], [calls[-1]]
    while waiting:
        call = waiting[-1]
        before = [ref[:2] for ref in call.refs if ref[:2] in made and ref[:2] not in numbers]
        if before:
            waiting.append(made[before[0]])
            continue
        waiting.pop()
        arguments = _replaced(call.arguments, lambda ref: _relative(ref, entry, numbers))
        lines.append([_structure(graph.entries[call.layer]), arguments])
        numbers[call[:2]] = len(numbers)
    return json.dumps(lines, sort_keys=True, default=repr)


def _relative(ref, entry, numbers):
    if ref == entry:
        return "entry"
    return [numbers[ref[:2]], ref.output] if ref[:2] in numbers else ["outside", *ref]


# These differ between equal blocks, or only record how a layer was built.
_NOT_STRUCTURE = ("name", "seed", "trainable", "build_config", "compile_config")


def _structure(entry):
    """A layer's class and configuration; layers of nested models by their place, not by name."""
    kept = ("module", "class_name", "registered_name", "config")
    return _without_names({key: entry.get(key) for key in kept}, {})


def _without_names(value, places):
    if isinstance(value, dict):
        if "layers" in value and "input_layers" in value:
            places = {layer["name"]: i for i, layer in enumerate(value["layers"])}
        if str(value.get("class_name")).endswith("Dropout"):
            # Stochastic depth: its rate rises from block to block, as in EfficientNet.
            value = {**value, "config": {**value["config"], "rate": None}}
        return {
            key: _without_names(inner, places)
            for key, inner in value.items()
            if key not in _NOT_STRUCTURE
        }
    if isinstance(value, (list, tuple)):
        if len(value) == 3 and isinstance(value[0], str) and value[0] in places:
            return [places[value[0]], *value[1:]]  # a tensor of a nested model
        return [_without_names(inner, places) for inner in value]
    return value


def _replaced(raw, name_of):
    """Serialized arguments in which tensors are called by `name_of(ref)`; shapes stay."""
    if isinstance(raw, dict):
        if raw.get("class_name") == "__keras_tensor__":
            return [name_of(ref_of(raw)), raw["config"]["shape"], raw["config"]["dtype"]]
        return {key: _replaced(value, name_of) for key, value in raw.items()}
    if isinstance(raw, (list, tuple)):
        return [_replaced(value, name_of) for value in raw]
    return raw


class Run:
    """Consecutive blocks of equal structure.

    Args:
        graph: The `Graph` they are in.
        blocks: A list of lists of `Step`s.
    """

    def __init__(self, graph: Any, blocks: Any) -> None:
        self.graph, self.blocks = graph, blocks

    def layers(self, block: Any) -> Any:
        """Names of the layers of a block."""
        return [name for step in self.blocks[block] for name in step.layers]

    def dropped(self, depth: Any, is_kept: Any, scores: Any = None) -> list[int]:
        """Numbers of the blocks that go.

        Args:
            depth: Share of the blocks to keep.
            is_kept: Whether the layer of a path has to stay.
            scores: A score for each block: the largest stay. `None`: evenly spread.
        """
        count = len(self.blocks)
        # Rounded half up: depth=0.5 keeps two of three blocks.
        number = max(1, math.floor(depth * count + 0.5))
        kept = {i for i in range(count) if any(map(is_kept, self.paths(i)))}
        if scores is None:
            kept |= set(channels.spread(count, number).tolist())
        else:
            # Those that have to stay count among the best ones.
            first = np.array([i in kept for i in range(count)])
            order = np.lexsort((-np.asarray(scores), ~first))
            kept |= set(order[:number].tolist())
        return [i for i in range(count) if i not in kept]

    def paths(self, block: Any) -> list[str]:
        """Paths of the layers of a block."""
        return [self.graph.path + name for name in self.layers(block)]

    def remove(self, numbers: Any) -> None:
        """Takes blocks out of the graph."""
        # From the last on: what reads a block's end is then joined to an entry that still exists.
        for i in sorted(numbers, reverse=True):
            block = self.blocks[i]
            self.graph.remove(self.layers(i), block[0].entry, block[-1].end)


def runs_of(graph: Any) -> list[Run]:
    """All runs of two or more equal blocks, including those in nested models."""
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

    Where the length is not a multiple of the period, the remainder stays in front. So blocks of
    [convolution, normalization, activation] behind a stem begin with their convolutions, although
    the stem's own normalization and activation look like a part of the next block.
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
