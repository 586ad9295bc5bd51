"""Routes: the tensors that every path through a graph passes, and what lies between two of them."""

import itertools

from keras_kd.students.graph import Ref
from keras_kd.students.steps import Step

_SINK = ("", -1)  # stands behind all outputs


class Routes:
    """Of a graph, whose calls are known by `(layer, number)`.

    Args:
        graph: The `Graph`.
    """

    def __init__(self, graph):
        self._graph = graph
        self._calls = {call[:2]: call for call in graph.calls()}
        self._readers = {key: [] for key in self._calls}
        for key, call in self._calls.items():
            for ref in call.refs:
                self._readers[ref[:2]].append((key, ref))
        self._outputs = {ref[:2] for ref in graph.outputs}
        self._next = self._meeting_points()

    def _meeting_points(self):
        """For each call the next one that all paths from it to the outputs pass."""
        following, depth = {}, {_SINK: 0}

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

    def chains(self):
        """Lists of `Step`s, one behind another; each begins at an input, longest first."""
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
        whole = entry and leaves == {Ref(*end, 0)} and self._is_whole(region)
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
