"""`shrink` makes a smaller model from a teacher; `plan` lists what it will do."""

import difflib
from typing import Any

import keras
import numpy as np

from keras_kd._utils import tables, validation
from keras_kd._utils.validation import invalid
from keras_kd.students import (
    blocks,
    graph,
    shape_rules,  # noqa: F401 (its rules are registered)
    weight_rules,  # noqa: F401 (its rules are registered)
    width,
)
from keras_kd.students.channels import Choice
from keras_kd.students.graph import graph_of
from keras_kd.students.width import Widths, is_named

COPIES = ("slice", "average", None)
COLUMNS = ("layer", "teacher_shape", "student_shape", "how")


def shrink(
    teacher: Any,
    depth: float = 1.0,
    width: float = 1.0,
    copy: str | None = "slice",
    keep: Any = (),
    name: str | None = None,
    print_fn: Any = print,
) -> keras.Model:
    """Makes a student: the teacher with fewer blocks, narrower layers, and the teacher's weights.

    Blocks are what repeats along the way that every path through the model takes: residual or
    transformer blocks, equal dense layers or convolutions in a row with what belongs to them, equal
    custom layers or nested models. Names, seeds and rates of dropout may differ. Of `r` equal ones
    `max(1, round(depth * r))` stay (halves rounded up), evenly spread from the first one on: 0, 2
    and 4 of six at `depth=0.5`, as in DistilBERT.

    `width` is the share of units, filters, heads, recurrent units and embedding channels that stay,
    rounded up. Inputs and outputs keep their shapes, and what is added to them its width; the
    summands of an addition (a residual stream) keep the same channels. Of `n` channels `m` stay:

    - `copy="slice"`: channel `floor(i * n / m)` becomes channel `i`; the others are dropped.
    - `copy="average"`: neighbors become one: a layer that makes them averages them, one that reads
      them sums its weights. Where they are equal the function stays the same, but for
      normalizations over channels if the groups have different sizes (`n` no multiple of `m`).
    - `copy=None`: new weights. Those of `keras.layers.Normalization`, which come from data, are
      always copied.

    With `depth=1, width=1` it is an exact copy. The teacher does not change and shares no weights
    with the student. The student's layers keep the names of the teacher's, so that one name or path
    gives a pair for a hint, and are all trainable, even where the teacher's are frozen.

    Args:
        teacher: A functional or sequential model, with models nested in it or not.
        depth: Share of the blocks to keep, above 0 and at most 1.
        width: Share of the channels to keep, above 0 and at most 1.
        copy: `"slice"`, `"average"` or `None`.
        keep: Names or paths of layers, or of nested models, whose width and blocks stay.
        name: Name of the student; default: the teacher's name and `_student`.
        print_fn: A function that prints a line of the table of `plan`; `None` prints nothing.

    Returns:
        A `keras.Model` of the teacher's layers, with its dtype policies; not compiled.

    Raises:
        ValueError: An argument is wrong, nothing repeats although `depth < 1`, nothing can be
            narrowed although `width < 1`, or a layer without a rule would have to be narrowed
            (custom layers, convolutions with groups): the message names it.

    Example:

    ```python
    import keras
    import keras_kd as kd

    hidden = [keras.layers.Dense(64, activation="relu", name=f"hidden_{i}") for i in range(4)]
    teacher = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
    student = kd.students.shrink(teacher, depth=0.5, width=0.25)
    assert [layer.name for layer in student.layers[:2]] == ["hidden_0", "hidden_2"]
    distiller = kd.Distiller(teacher, student)
    ```

    References:
        Sanh et al., "DistilBERT, a distilled version of BERT", https://arxiv.org/abs/1910.01108
    """
    validation.layer_name("name", name)
    validation.function("print_fn", print_fn, ["line"], optional=True)
    shrinkage = Shrinkage(teacher, depth, width, copy, keep)
    student = shrinkage.student(name)
    if print_fn is not None:
        for line in shrinkage.table(student):
            print_fn(line)
    return student


def plan(
    teacher: Any, depth: float = 1.0, width: float = 1.0, copy: str | None = "slice", keep: Any = ()
) -> list[dict[str, Any]]:
    """What `shrink` with these arguments does with each layer that has weights.

    Args:
        teacher: See `shrink`.
        depth: See `shrink`.
        width: See `shrink`.
        copy: See `shrink`.
        keep: See `shrink`.

    Returns:
        A list of dicts, one for each layer: `layer`, its path in the teacher and in the student;
        `teacher_shape` and `student_shape`, lists of its weights' shapes (the student's is `None`
        for a layer that goes); `how`: `"copied"`, `"sliced"`, `"averaged"`, `"new"`, `"removed"`.
        `print` and a notebook show it as a table.

    Raises:
        ValueError: See `shrink`.

    Example:

    ```python
    import keras
    import keras_kd as kd

    layers = [keras.Input((8,)), keras.layers.Dense(16, name="hidden"), keras.layers.Dense(4)]
    rows = kd.students.plan(keras.Sequential(layers), width=0.5)
    assert rows[0]["student_shape"] == [(8, 8), (8,)]
    assert rows[0]["how"] == "sliced"
    ```
    """
    return Shrinkage(teacher, depth, width, copy, keep).rows()


class Shrinkage:
    """How a teacher is shrunk; see `shrink` for the arguments."""

    def __init__(self, teacher: Any, depth: Any, width: Any, copy: Any, keep: Any) -> None:
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
        return width.student_shapes(layer, self._choice) != weights

    def rows(self) -> tables.Rows:
        """What `plan` returns."""
        rows = []
        for path, layer in self._all.items():
            shapes = [tuple(weight.shape) for weight in layer.weights]
            planned = self._widths.layers.get(path)
            student = planned and width.student_shapes(planned, self._choice)
            row = (path, shapes, student, self._how(planned))
            rows.append(dict(zip(COLUMNS, row, strict=True)))
        return tables.Rows(rows, COLUMNS, _text)

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

    def student(self, name: str | None) -> Any:
        """The model, with the weights it takes from the teacher."""
        for path, layer in self._widths.layers.items():
            graph.edit(self._graph, path, layer.edits, self._choice)
        student = graph.revived_model(self._graph, name or f"{self._teacher.name}_student")
        weighty = [x for x in self._widths.layers.values() if getattr(x.layer, "weights", [])]
        for layer in weighty:
            width.check_shapes(student, layer, self._choice)
            if self._takes_weights(layer):
                width.copy_weights(student, layer, self._choice)
        return student

    def table(self, student: Any) -> Any:
        """The lines of the table of `plan`, and of the parameters that are left."""
        yield from tables.lines_of(self.rows().cells())
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


def _remove_blocks(graph, depth, keep):
    runs = blocks.runs_of(graph)
    dropped = [run.dropped(depth, lambda path: is_named(path, keep)) for run in runs]
    if not any(dropped):
        raise ValueError(_no_blocks(graph.model, depth, runs))
    for run, numbers in zip(runs, dropped, strict=True):
        run.remove(numbers)


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
