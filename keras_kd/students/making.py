"""What becomes of a teacher: the blocks and channels that stay, and the student made of them."""

import difflib

import keras
import numpy as np

from keras_kd.ops.arguments import invalid
from keras_kd.students import blocks, configuring, copying
from keras_kd.students.channels import Choice
from keras_kd.students.graph import graph_of
from keras_kd.students.widths import Widths, is_in

COPIES = ("slice", "average", None)
COLUMNS = ("layer", "teacher_shape", "student_shape", "how")


class Shrinkage:
    """What becomes of a teacher; see `shrink` for the arguments."""

    def __init__(self, teacher, depth, width, copy, keep):
        _check_share("depth", depth)
        _check_share("width", width)
        if copy not in COPIES:
            raise invalid("copy", f"one of {COPIES}", repr(copy))
        self._graph = graph_of(teacher)
        self._teacher, self._copy = teacher, copy
        self._choice = Choice(width, copy == "average")
        keep = _checked_keep(self._graph, keep)
        self._all = dict(_layers_with_weights(self._graph))
        if depth < 1:
            _remove_blocks(self._graph, depth, keep)
        self._widths = Widths(self._graph, keep)
        self._widths.check(self._choice)
        if width < 1:
            self._check_narrowed()

    def _check_narrowed(self):
        if not any(map(self._narrows, self._widths.layers.values())):
            raise ValueError(
                f"Nothing of model {self._teacher.name!r} can be narrowed to "
                f"width={self._choice.width}: all channels belong to its inputs, its outputs, or "
                "layers in `keep`. Pass width=1.0, or name fewer layers to keep."
            )

    def _narrows(self, layer):
        weights = [tuple(weight.shape) for weight in layer.layer.weights]
        return copying.shapes(layer, self._choice) != weights

    def rows(self):
        """What `plan` returns."""
        rows = []
        for path, layer in self._all.items():
            shapes = [tuple(weight.shape) for weight in layer.weights]
            planned = self._widths.layers.get(path)
            student = planned and copying.shapes(planned, self._choice)
            row = (path, shapes, student, self._how(planned))
            rows.append(dict(zip(COLUMNS, row, strict=True)))
        return rows

    def _how(self, layer):
        if layer is None:
            return "removed"
        if not self._takes_weights(layer):
            return "new"
        if not self._narrows(layer):
            return "copied"
        return "averaged" if self._copy == "average" else "sliced"

    def _takes_weights(self, layer):
        return self._copy is not None or isinstance(layer.layer, keras.layers.Normalization)

    def student(self, name):
        """The model, with the weights it takes from the teacher."""
        for path, layer in self._widths.layers.items():
            configuring.edit(self._graph, path, layer.edits, self._choice)
        student = configuring.revived(self._graph, name or f"{self._teacher.name}_student")
        weighty = [x for x in self._widths.layers.values() if getattr(x.layer, "weights", [])]
        for layer in weighty:
            copying.check(student, layer, self._choice)
            if self._takes_weights(layer):
                copying.copy(student, layer, self._choice)
        return student

    def table(self, student):
        """Lines that tell the rows, and how many parameters are left."""
        table = [COLUMNS] + [tuple(map(_text, row.values())) for row in self.rows()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for line in table:
            cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
            yield "  ".join(cells).rstrip()
        counts = self._teacher.count_params(), student.count_params()
        yield "parameters: {:,} -> {:,}".format(*counts)


def _text(value):
    if isinstance(value, list):
        return ", ".join("x".join(map(str, shape)) or "scalar" for shape in value)
    return "" if value is None else value


def _check_share(name, value):
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (is_number and 0 < value <= 1):
        raise invalid(name, "a number above 0 and at most 1", repr(value))


def _checked_keep(graph, keep):
    keep = (keep,) if isinstance(keep, str) else keep
    is_several = isinstance(keep, (list, tuple, set, frozenset))
    if not is_several or not all(isinstance(each, str) for each in keep):
        raise invalid("keep", "names or paths of layers", repr(keep))
    known = list(_paths(graph))
    for name in keep:
        if not any(is_in(path, [name]) for path in known):
            close = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or known[:20]
            raise ValueError(
                f"`keep` names {name!r}, but model {graph.model.name!r} has no such layer. Close "
                f"to it: {close}."
            )
    return tuple(keep)


def _paths(graph):
    for name in graph.operations:
        yield graph.path + name
        if name in graph.nested:
            yield from _paths(graph.nested[name])


def _layers_with_weights(graph):
    """`(path, layer)`, in the order in which they run."""
    for name in dict.fromkeys(call.layer for call in graph.calls()):
        if name in graph.nested:
            yield from _layers_with_weights(graph.nested[name])
        elif getattr(graph.operations[name], "weights", None):
            yield graph.path + name, graph.operations[name]


def _remove_blocks(graph, depth, keep):
    runs = blocks.runs_of(graph)
    dropped = [run.dropped(depth, lambda path: is_in(path, keep)) for run in runs]
    if not any(dropped):
        raise ValueError(_no_blocks(graph.model, depth, runs))
    for run, numbers in zip(runs, dropped, strict=True):
        run.remove(numbers)


def _no_blocks(model, depth, runs):
    if not runs:
        return (
            f"Nothing of model {model.name!r} can be removed for depth={depth}: no two blocks of "
            "equal structure and shape lie behind one another on the way that every path to the "
            "output takes. Pass depth=1.0 and use `width`, or build the student yourself."
        )
    counts = {run.paths(0)[0]: len(run.blocks) for run in runs}
    return (
        f"Nothing of model {model.name!r} can be removed for depth={depth}: of the repeated blocks "
        f"all would stay. Found (first layer: blocks): {counts}. Pass a smaller depth, or keep "
        "fewer layers."
    )
