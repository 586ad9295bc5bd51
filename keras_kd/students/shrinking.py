"""`shrink` makes a smaller model from a teacher; `plan` lists what it will do.

`trim_vocabulary` leaves out words. KerasHub's models go their own way, through the configuration of
their backbones: see `hub`.
"""

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
from keras_kd.students.hub import axes
from keras_kd.students.hub.families import is_hub
from keras_kd.students.hub.selection import numbers_of
from keras_kd.students.hub.shrinkage import HubShrinkage
from keras_kd.students.vocabulary import VocabularyMap
from keras_kd.students.width import Widths, is_named

COPIES = ("slice", "average", None)
RANKS = ("position", "activation")
COLUMNS = ("layer", "teacher_shape", "student_shape", "how")


def shrink(
    teacher: Any,
    depth: float = 1.0,
    width: float = 1.0,
    copy: str | None = "slice",
    keep: Any = (),
    name: str | None = None,
    print_fn: Any = print,
    *,
    layers: Any = None,
    rank: str = "position",
    data: Any = None,
    vocabulary: VocabularyMap | None = None,
    lora_rank: int | None = None,
) -> keras.Model:
    """Makes a student: the teacher with fewer blocks, narrower layers, and the teacher's weights.

    Blocks are what repeats along the way that every path through the model takes: residual or
    transformer blocks, equal dense layers or convolutions in a row with what belongs to them, equal
    custom layers or nested models. Names, seeds and rates of dropout may differ. Of `r` equal ones
    `max(1, round(depth * r))` stay (halves rounded up), evenly spread from the first one on: 0, 2
    and 4 of six at `depth=0.5`, as in DistilBERT. `layers` names them one by one.

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

    A model of KerasHub, a backbone or a task, becomes one of its own class, by the configuration of
    its backbone. Its blocks are numbered anew; `keras_kd.pair_layers` pairs them. Heads stay whole:
    where the width is `heads * head_dim`, it follows from the heads that stay. The head of a task,
    tied embeddings and the preprocessor are kept. `rank="activation"` keeps what matters on `data`
    instead of what is evenly spread: hidden channels by the mean absolute output of the
    normalizations, heads and intermediate units of each block by that of what reads them, blocks by
    `1 - cosine(input, output)`; padding does not count.

    Args:
        teacher: A functional or sequential model, with models nested in it or not; a backbone of
            KerasHub, or a task with one.
        depth: Share of the blocks to keep, above 0 and at most 1.
        width: Share of the channels to keep, above 0 and at most 1.
        copy: `"slice"`, `"average"` (not for models of KerasHub) or `None`.
        keep: Names or paths of layers, or of nested models, whose width and blocks stay (not for
            models of KerasHub).
        name: Name of the student; default: the teacher's name and `_student`.
        print_fn: A function that prints a line of the table of `plan`; `None` prints nothing.
        layers: Instead of `depth`: rising numbers of the blocks to keep, from 0; -1 is the last
            one. For models with an encoder and a decoder also a dict of two lists: `{"decoder": [0,
            -1]}` keeps all of the encoder, as distil-whisper does.
        rank: `"position"` or, for models of KerasHub, `"activation"`.
        data: What `rank="activation"` reads: a dict of the backbone's inputs, `(inputs, labels)`,
            or a batched `tf.data.Dataset` of such; some hundred sequences.
        vocabulary: A `keras_kd.students.VocabularyMap` of the words to keep, for models of
            KerasHub. The student then takes other ids, and has no preprocessor: see
            `keras_kd.students.trim_vocabulary`.
        lora_rank: For models of KerasHub: the rank of adapters (LoRA) on the student's queries and
            values; the rest of its backbone is frozen. A file of the student has them merged.

    Returns:
        A `keras.Model` of the teacher's layers, with its dtype policies; not compiled, but for the
        tasks of KerasHub that compile themselves.

    Raises:
        ValueError: An argument is wrong, nothing repeats although `depth < 1`, nothing can be
            narrowed although `width < 1`, a layer without a rule would have to be narrowed (custom
            layers, convolutions with groups), or the backbone's configuration is not known: the
            message names it.

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
        Muralidharan et al., "Compact Language Models via Pruning and Knowledge Distillation"
        (Minitron), https://arxiv.org/abs/2407.14679 (`rank="activation"`)
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models",
        https://arxiv.org/abs/2106.09685
    """
    validation.layer_name("name", name)
    validation.function("print_fn", print_fn, ["line"], optional=True)
    shrinkage = _shrinkage(
        teacher, depth, width, copy, keep, layers, rank, data, vocabulary, lora_rank
    )
    student = shrinkage.student(name)
    if print_fn is not None:
        for line in shrinkage.table(student):
            print_fn(line)
    return student


def plan(
    teacher: Any,
    depth: float = 1.0,
    width: float = 1.0,
    copy: str | None = "slice",
    keep: Any = (),
    *,
    layers: Any = None,
    rank: str = "position",
    data: Any = None,
    vocabulary: VocabularyMap | None = None,
) -> list[dict[str, Any]]:
    """What `shrink` with these arguments does with each layer that has weights.

    Args:
        teacher: See `shrink`.
        depth: See `shrink`.
        width: See `shrink`.
        copy: See `shrink`.
        keep: See `shrink`.
        layers: See `shrink`.
        rank: See `shrink`.
        data: See `shrink`.
        vocabulary: See `shrink`.

    Returns:
        A list of dicts, one for each layer: `layer`, its path in the teacher and in the student;
        `teacher_shape` and `student_shape`, lists of its weights' shapes (the student's is `None`
        for a layer that goes); `how`: `"copied"`, `"sliced"`, `"averaged"`, `"new"`, `"removed"`.
        Of a model of KerasHub one for each block and each layer around them: `layer`;
        `student_layer`, its path in the student, or `None`; `teacher_parameters` and
        `student_parameters`, numbers; `how`. `print` and a notebook show it as a table.

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
    shrinkage = _shrinkage(teacher, depth, width, copy, keep, layers, rank, data, vocabulary, None)
    return shrinkage.rows()


def trim_vocabulary(
    model: Any,
    data: Any,
    keep: Any = (),
    unknown_id: int | None = None,
    padding_id: int | None = 0,
    min_count: int = 1,
    labels: bool = False,
    tokenizer: Any = None,
    name: str | None = None,
    print_fn: Any = print,
) -> tuple[keras.Model, VocabularyMap]:
    """A copy of a model of KerasHub that knows the words in use alone, and the map of their ids.

    In small models the embeddings are half of all parameters. Rows of the embedding and of the head
    that stay are those of the model, so logits are its columns: `student(words.encode_inputs(x))`
    equals `words.columns(model(x))` where all ids of `x` are kept. Trim the teacher too, and both
    share data and vocabulary; else pass `teacher_preprocess=words.teacher_preprocess` to
    `keras_kd.Distiller`, and compare `words.columns` of its logits.

    Args:
        model: A backbone of KerasHub, or a task with one. Special words of its preprocessor's
            tokenizer stay.
        data: See `VocabularyMap.of`.
        keep: See `VocabularyMap.of`.
        unknown_id: See `VocabularyMap.of`.
        padding_id: See `VocabularyMap.of`.
        min_count: See `VocabularyMap.of`.
        labels: See `VocabularyMap.of`.
        tokenizer: See `VocabularyMap.of`.
        name: Name of the copy; default: the model's name and `_student`.
        print_fn: A function that prints a line of the table of `plan`; `None` prints nothing.

    Returns:
        `(student, words)`: the model, without a preprocessor (its tokenizer makes the old ids), and
        a `VocabularyMap`, which maps data and trims tokenizers.

    Raises:
        ValueError: The model is none of KerasHub, data has ids that the model does not, or padding
            would get another id: the message names both.

    Example:

    ```python
    import keras_hub
    import numpy as np
    import keras_kd as kd

    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=50, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=16
    )
    teacher = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    ids = np.array([[7, 30, 30, 0], [30, 7, 4, 9]])
    x = {"token_ids": ids, "padding_mask": np.array([[1, 1, 1, 0], [1, 1, 1, 1]])}
    small_teacher, words = kd.students.trim_vocabulary(teacher, x)
    assert words.encode_inputs(x)["token_ids"].tolist() == [[2, 4, 4, 0], [4, 2, 1, 3]]
    student = kd.students.shrink(small_teacher, depth=0.5)
    distiller = kd.Distiller(small_teacher, student, mask_input="padding_mask")
    ```
    """
    if not is_hub(model):
        raise _not_hub("trim_vocabulary", model)
    validation.function("print_fn", print_fn, ["line"], optional=True)
    size = axes.sizes_of_model(model).words
    special = [*_listed_ids(keep), *_special_ids(model)]
    words = VocabularyMap.of(
        data, size, special, unknown_id, padding_id, min_count, labels, tokenizer
    )
    return shrink(model, vocabulary=words, name=name, print_fn=print_fn), words


def _listed_ids(keep):
    if isinstance(keep, (list, tuple, set, frozenset, range, np.ndarray)):
        return list(keep)
    raise invalid("keep", "a list of ids", repr(keep))


def _special_ids(model):
    tokenizer = getattr(getattr(model, "preprocessor", None), "tokenizer", None)
    return [] if tokenizer is None else list(tokenizer.special_token_ids)


def _shrinkage(teacher, depth, width, copy, keep, layers, rank, data, vocabulary, lora_rank):
    """How a teacher is shrunk, by its kind; checks what is common to all."""
    _check_share("depth", depth)
    _check_share("width", width)
    if copy not in COPIES:
        raise invalid("copy", f"one of {COPIES}", repr(copy))
    validation.one_of("rank", rank, RANKS)
    lora_rank = validation.integer("lora_rank", lora_rank, 1, optional=True)
    if layers is not None and depth < 1:
        raise ValueError(
            f"Pass `layers` or `depth`, not both. Received: layers={layers!r}, depth={depth}."
        )
    if (rank == "activation") != (data is not None):
        raise ValueError(
            "rank='activation' ranks by `data`, and nothing else reads it. Received: "
            f"rank={rank!r}, data={validation.briefly(data)}. Pass both, or neither."
        )
    if vocabulary is not None and not isinstance(vocabulary, VocabularyMap):
        raise invalid("vocabulary", "a keras_kd.students.VocabularyMap, or None", repr(vocabulary))
    if not is_hub(teacher):
        for name, value in (("vocabulary", vocabulary), ("lora_rank", lora_rank)):
            if value is not None:
                raise _not_hub(name, teacher)
        if rank != "position":
            raise _not_hub("rank='activation'", teacher)
        return Shrinkage(teacher, depth, width, copy, keep, layers)
    if not isinstance(keep, (tuple, list)) or len(keep):
        raise invalid(
            "keep",
            "no names for a model of KerasHub, whose layers all follow its configuration. Name "
            "blocks with `layers`",
            repr(keep),
        )
    return HubShrinkage(teacher, depth, width, copy, layers, rank, data, vocabulary, lora_rank)


def _not_hub(what, model):
    return ValueError(
        f"{what} works for the backbones and tasks of KerasHub, whose configuration names the "
        f"vocabulary and the heads. Received: {model!r} of type {type(model).__name__}"
    )


class Shrinkage:
    """How a teacher is shrunk; see `shrink` for the arguments."""

    def __init__(
        self, teacher: Any, depth: Any, width: Any, copy: Any, keep: Any, layers: Any = None
    ) -> None:
        self._graph = graph_of(teacher)
        self._teacher, self._copy = teacher, copy
        self._choice = Choice(width, copy == "average")
        keep = _checked_keep(self._graph, keep)
        self._all = dict(_layers_with_weights(self._graph))
        if layers is not None:
            _keep_blocks(self._graph, layers)
        elif depth < 1:
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


def _keep_blocks(graph, layers):
    runs = blocks.runs_of(graph)
    if len(runs) != 1:
        found = [(run.paths(0)[0], len(run.blocks)) for run in runs]
        raise ValueError(
            f"`layers` are numbers of the repeated blocks of model {graph.model.name!r}, of which "
            f"it has {len(runs)} kinds instead of one. Found (first layer, blocks): {found}. Pass "
            "`depth`, which shortens all, or build the student yourself."
        )
    count = len(runs[0].blocks)
    kept = numbers_of(layers, count)
    runs[0].remove([i for i in range(count) if i not in kept])


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
