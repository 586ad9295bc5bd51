"""`Shrinkage`: how a functional or sequential model is shrunk, and what its `plan` shows.

See `hub.shrinkage` for models of KerasHub.
"""

import difflib
from collections.abc import Iterator
from typing import Any

import keras

from keras_kd._utils import tables, validation
from keras_kd._utils.validation import invalid
from keras_kd.students import (
    blocks,
    budgets,
    channels,
    costs,
    fitting,
    graph,
    shape_rules,  # noqa: F401 (its rules are registered)
    weight_rules,  # noqa: F401 (its rules are registered)
    width,
)
from keras_kd.students.activation import Activation, input_batches
from keras_kd.students.channels import Choice
from keras_kd.students.fitting import Cut, Plan
from keras_kd.students.graph import graph_of
from keras_kd.students.hub.selection import numbers_of
from keras_kd.students.importance import Magnitude
from keras_kd.students.options import Options
from keras_kd.students.width import Widths, is_named

COLUMNS = ("layer", "teacher_shape", "student_shape", "how")


class Shrinkage:
    """How a teacher is shrunk.

    Args:
        teacher: A functional or sequential model.
        options: The `Options`.
    """

    def __init__(self, teacher: Any, options: Options) -> None:
        self._teacher, self._options = teacher, options
        self._graph = graph_of(teacher)
        self._keep = _checked_keep(self._graph, options.keep)
        self._all = dict(_layers_with_weights(self._graph))
        self._runs: Any = None
        self._whole: Any = None
        self._ranking: Any = None
        self._macs: dict = {}
        self._terms: Any = None
        if options.rank != "position" or options.budget is not None:
            self._runs = blocks.runs_of(self._graph)
            self._whole = Widths(self._graph, self._keep)
            self._ranking = self._ranked()
        self._sample = self._one_sample()
        if self._sample is not None:
            self._macs = budgets.macs_by_layer(teacher, self._sample)
        self._plan = self._given() if options.budget is None else self._fitted()

    def _ranked(self):
        rank = self._options.rank
        if rank == "magnitude":
            return Magnitude(self._whole, self._runs)
        if rank == "activation":
            return Activation(self._teacher, self._whole, self._runs, self._options.data)
        return None

    def _one_sample(self):
        """Inputs of one sample, where something is counted or timed on it."""
        if not self._options.shows_costs:
            return None
        data, limits = self._options.data, self._options.budget
        if data is not None:
            return budgets.sample_of(self._teacher, input_batches(self._teacher, data))
        has_open = any(None in tuple(x.shape)[1:] for x in self._teacher.inputs)
        if has_open and (limits is None or not limits.reads_inputs):
            return None
        return budgets.sample_of(self._teacher, None)

    # What is cut.

    def _given(self):
        """The plan by depth and width."""
        options = self._options
        if options.layers is not None:
            dropped = self._by_number()
        elif options.share("depth") < 1:
            dropped = self._by_share(options.depth)
            if not any(dropped):
                raise ValueError(_no_blocks(self._teacher, options.depth, self._known_runs()))
        else:
            dropped = ()
        cut = self._cut(dropped)
        share = options.share("width")
        plan = Plan(cut, Choice(share, options.copy == "average", scores=cut.scores))
        cut.widths.check(plan.choice)
        if share < 1:
            self._check_narrowed(plan)
        return plan

    def _fitted(self):
        """The plan that meets the budget."""
        options = self._options
        if options.layers is not None:
            cuts = [self._cut(self._by_number())]
        else:
            cuts = fitting.cuts_of(self._runs, options.depth, self._cut, self._by_share)
        return fitting.fitted(
            cuts,
            options.width,
            options.copy == "average",
            options.budget,
            options.rank != "position",
            self._teacher.name,
            lambda plan: self._made(plan, None),
            self._sample,
        )

    def _known_runs(self):
        if self._runs is None:
            self._runs = blocks.runs_of(self._graph)
        return self._runs

    def _by_share(self, depth):
        runs = self._known_runs()
        scores = [None] * len(runs) if self._ranking is None else self._ranking.blocks
        pairs = zip(runs, scores, strict=True)
        return tuple(
            tuple(run.dropped(depth, lambda path: is_named(path, self._keep), of_run))
            for run, of_run in pairs
        )

    def _by_number(self):
        runs = self._known_runs()
        _check_one_run(self._teacher, runs)
        count = len(runs[0].blocks)
        kept = numbers_of(self._options.layers, count)
        return (tuple(i for i in range(count) if i not in kept),)

    def _cut(self, dropped):
        widths = Widths(self._without(dropped), self._keep)
        scores = {} if self._ranking is None else self._ranking.scores(widths)
        shares = [1 - self._lost(i, numbers) for i, numbers in enumerate(dropped)]
        terms = costs.terms_of(widths, self._macs)
        return Cut(dropped, widths, scores, budgets.channel_share(shares), terms)

    def _without(self, dropped):
        """A new graph of the teacher, which may be changed."""
        whole = graph_of(self._teacher)
        if any(dropped):
            for run, numbers in zip(blocks.runs_of(whole), dropped, strict=True):
                run.remove(numbers)
        return whole

    def _lost(self, number, dropped):
        """The share of a run's importance that goes with blocks."""
        scores = None if self._ranking is None else self._ranking.blocks[number]
        if scores is None or not scores.sum():
            return len(dropped) / len(self._runs[number].blocks)
        return float(scores[list(dropped)].sum() / scores.sum())

    def _check_narrowed(self, plan):
        layers = plan.cut.widths.layers.values()
        if not any(_narrows(layer, plan.choice) for layer in layers):
            raise ValueError(
                f"Nothing of model {self._teacher.name!r} can be narrowed to "
                f"width={plan.choice.width}: all channels belong to its inputs, its outputs, or "
                "layers in `keep`. Pass width=1.0, or name fewer layers to keep."
            )

    # What it makes, and what it shows.

    def student(self, name: str | None) -> Any:
        """The model, with the weights it takes from the teacher."""
        return self._made(self._plan, name)

    def _made(self, plan, name):
        cut, choice = plan.cut, plan.choice
        small = self._without(cut.dropped)
        for path, layer in cut.widths.layers.items():
            graph.edit(small, path, layer.edits, choice)
        student = graph.revived_model(small, name or f"{self._teacher.name}_student")
        weighty = [x for x in cut.widths.layers.values() if width.weights_of(x.layer)]
        for layer in weighty:
            width.check_shapes(student, layer, choice)
            if self._takes_weights(layer):
                width.copy_weights(student, layer, choice)
        return student

    def _takes_weights(self, layer):
        return self._options.copy is not None or isinstance(layer.layer, keras.layers.Normalization)

    def rows(self) -> tables.Rows:
        """What `plan` returns."""
        planned = self._plan.cut.widths.layers
        columns = COLUMNS + (budgets.COLUMNS if self._options.shows_costs else ())
        rows = []
        for path, layer in self._all.items():
            shapes = [tuple(weight.shape) for weight in layer.weights]
            kept = planned.get(path)
            student = kept and width.student_shapes(kept, self._plan.choice)
            row = [path, shapes, student, self._how(kept)]
            if self._options.shows_costs:
                row += self._costs(path)
            rows.append(dict(zip(columns, row, strict=True)))
        return tables.Rows(rows, columns, _text)

    def _how(self, layer):
        if layer is None:
            return "removed"
        if not self._takes_weights(layer):
            return "new"
        if not _narrows(layer, self._plan.choice):
            return "copied"
        return "averaged" if self._options.copy == "average" else "sliced"

    def _costs(self, path):
        """Of a layer: bytes and multiply-adds before and after, and the importance that goes."""
        whole = Choice(1.0, False)
        before = costs.total([t for t in self._whole_terms() if t.path == path], whole)
        terms = [term for term in self._plan.cut.terms if term.path == path]
        after = costs.total(terms, self._plan.choice)
        figures = [round(before.bytes), round(after.bytes), None, None]
        if self._sample is not None:
            figures[2:] = [round(before.macs), round(after.macs)]
        return [*figures, round(self._importance_lost(path), 4)]

    def _whole_terms(self):
        if self._terms is None:
            self._terms = costs.terms_of(self._whole, self._macs)
        return self._terms

    def _importance_lost(self, path):
        """Of a block that goes its share of all blocks, else of the channels that a layer makes."""
        layer = self._plan.cut.widths.layers.get(path)
        if layer is None:
            return next(
                self._lost(i, [number])
                for i, numbers in enumerate(self._plan.cut.dropped)
                for number in numbers
                if path in _inside(self._runs[i], number)
            )
        made = [axis for axes in layer.weights for axis in axes]
        axes = [axis for axis in made if not isinstance(axis, channels.Summed)]
        units = dict.fromkeys(unit for axis in axes for unit in channels.units(axis))
        kept = [fitting.kept_share(self._plan.choice, each) for each in units if not each.fixed]
        return 1 - budgets.channel_share(kept)

    def table(self, student: Any) -> Iterator[str]:
        """The lines of the table of `plan`, and of the parameters that are left."""
        yield from tables.lines_of(self.rows().cells())
        counts = self._teacher.count_params(), student.count_params()
        yield "parameters: {:,} -> {:,}".format(*counts)
        if self._options.shows_costs:
            yield from budgets.lines(self._teacher, student, self._sample)


def _narrows(layer, choice):
    weights = [tuple(weight.shape) for weight in width.weights_of(layer.layer)]
    return width.student_shapes(layer, choice) != weights


def _inside(run, number):
    """Paths of the layers of a block, and of those nested in them."""
    found = set()
    for path in run.paths(number):
        found.add(path)
        name = path.removeprefix(run.graph.path)
        if name in run.graph.nested:
            found |= set(_paths(run.graph.nested[name]))
    return found


def _text(value):
    if isinstance(value, list):
        return ", ".join("x".join(map(str, shape)) or "scalar" for shape in value)
    if validation.is_integer(value):
        return f"{value:,}"
    return "" if value is None else str(value)


def _checked_keep(graph, keep):
    keep = (keep,) if isinstance(keep, str) else keep
    is_several = isinstance(keep, (list, tuple, set, frozenset))
    if not is_several or not all(isinstance(each, str) for each in keep):
        raise invalid("keep", "names or paths of layers", repr(keep))
    known = list(_paths(graph))
    for name in keep:
        if not any(is_named(path, [name]) for path in known):
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


def _check_one_run(model, runs):
    if len(runs) != 1:
        found = [(run.paths(0)[0], len(run.blocks)) for run in runs]
        raise ValueError(
            f"`layers` are numbers of the repeated blocks of model {model.name!r}, and it "
            f"has {len(runs)} kinds of them instead of one. Found (first layer, blocks): {found}. "
            "Pass `depth`, which shortens all, or build the student yourself."
        )


def _no_blocks(model, depth, runs):
    if not runs:
        return (
            f"Nothing of model {model.name!r} can be removed for depth={depth}: no two blocks of "
            "equal structure and shape follow each other on the way that every path to the "
            "output takes. Pass depth=1.0 and use `width`, or build the student yourself."
        )
    counts = {run.paths(0)[0]: len(run.blocks) for run in runs}
    return (
        f"Nothing of model {model.name!r} can be removed for depth={depth}: of the repeated blocks "
        f"all would stay. Found (first layer: blocks): {counts}. Pass a smaller depth, or keep "
        "fewer layers."
    )
