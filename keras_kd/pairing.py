"""`pair_layers`: proposes pairs of layers of teacher and student for hints."""

import collections
import dataclasses
import fnmatch
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd import losses, models
from keras_kd._utils import statistics, tables, validation
from keras_kd._utils.validation import invalid
from keras_kd.taps import overview
from keras_kd.taps.overview import calls_of, top_of
from keras_kd.taps.recorder import Taps
from keras_kd.taps.tap import Tap

COLUMNS = ("teacher", "teacher_shape", "student", "student_shape", "score")
STRATEGIES = ("depth", "shape", "last_of_stage", "similarity")
# Layers that only pass on or reshape what another layer computes.
_PASSES_ON = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Identity,
    keras.layers.ZeroPadding2D,
    keras.layers.Rescaling,
    keras.layers.Softmax,
)


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A layer that may be paired.

    Args:
        layer: Its path, or a `Tap` of one of its calls or tensors.
        shape: The shape of its features.
        group: Only layers of one group are paired.
    """

    layer: Any
    shape: tuple
    group: Any = None


class LayerPairs(list):
    """A list of `(teacher_layer, student_layer)`; `hints` makes losses of them.

    A layer is given by its path, or by a `keras_kd.taps.Tap` where a path is ambiguous. `print` and
    a notebook show a table.

    Args:
        rows: Dicts with `teacher`, `student`, their shapes and the `score` of the strategy.
    """

    def __init__(self, rows: Any) -> None:
        super().__init__((row["teacher"], row["student"]) for row in rows)
        self.rows = list(rows)

    def hints(self, loss: Any = "mse", weight: float = 1.0, projector: Any = "auto") -> list[Any]:
        """A `keras_kd.losses.FeatureHint` for each pair.

        Args:
            loss: See `FeatureHint`.
            weight: The total weight, divided equally among them.
            projector: See `FeatureHint`.

        Returns:
            A list of losses, named `hint_0`, `hint_1`, ...
        """
        weight = validation.non_negative("weight", weight)
        return [
            losses.FeatureHint(
                teacher,
                student,
                loss=loss,
                projector=projector,
                weight=weight / len(self),
                name=f"hint_{i}",
            )
            for i, (teacher, student) in enumerate(self)
        ]

    def cells(self) -> list[list[str]]:
        """The table: the heads, and a line for each pair."""
        return [list(COLUMNS), *([_text(row[name]) for name in COLUMNS] for row in self.rows)]

    def __str__(self) -> str:
        return "\n".join(tables.lines_of(self.cells()))

    def _repr_html_(self) -> str:
        return tables.inline(tables.table(self.cells()))


def pair_layers(
    teacher: Any,
    student: Any,
    strategy: str = "depth",
    data: Any = None,
    count: int | None = None,
    pattern: str = "*",
    print_fn: Any = print,
) -> LayerPairs:
    """Proposes pairs of layers for hints, and prints them.

    Candidates are the layers and operations that run once, give one float tensor `[batch, width]`,
    `[batch, time, width]` or `[batch, height, width, channels]` (the first one of several), and do
    more than pass values on; the model's output is none. Layers inside others (in a transformer
    block) are left out where the block itself is a candidate. Pairs have equal ranks and never
    cross.

    Args:
        teacher: A Keras model.
        student: A Keras model.
        strategy: `"depth"`: the student's layer at a fraction of its depth with the teacher's at
            the same fraction, counted among the layers of that rank: of N layers and M, the m-th of
            the student with the teacher's m N / M, so the last ones meet. Where both models are
            made of blocks (see `keras_kd.taps.summary`) only blocks are paired, those of an encoder
            and those of a decoder each among themselves. `"shape"`: layers of one shape, in order,
            which need no projector. `"last_of_stage"`: the last layers before the size of the
            features changes (height, width and, of vectors, their width), counted from the end.
            `"similarity"`: the pairs with the largest sum of CKA on `data`.
        data: A batch of inputs, some hundred samples: for `"similarity"`, and for models that do
            not know the shapes of their inputs. From a dict each model receives its own inputs.
        count: The largest number of pairs, spread over the depth, the last one included; default:
            4, or all stages.
        pattern: Only layers whose path matches, such as `"*transformer_layer_*"`.
        print_fn: A function that prints the table; `None` prints nothing.

    Returns:
        A `LayerPairs`: a list of pairs whose `hints(...)` are losses.

    Raises:
        ValueError: An argument is wrong, or no two layers fit.

    Example:

    ```python
    import keras
    import keras_kd as kd

    def network(width, depth):
        hidden = [keras.layers.Dense(width, activation="relu") for _ in range(depth)]
        return keras.Sequential([keras.Input((8,)), *hidden, keras.layers.Dense(10)])

    teacher, student = network(32, 4), network(6, 2)
    hints = kd.pair_layers(teacher, student).hints("cosine", weight=0.5)
    distiller = kd.Distiller(teacher, student, [kd.losses.SoftTargets(4.0), *hints])
    ```

    Reference: Kornblith et al., "Similarity of Neural Network Representations Revisited",
    https://arxiv.org/abs/1905.00414 (CKA)
    """
    if strategy not in STRATEGIES:
        raise ValueError(
            f"Invalid value for argument `strategy`. Expected one of {STRATEGIES}. "
            f"Received: strategy={strategy!r}"
        )
    count = validation.integer("count", count, 1, optional=True)
    if not isinstance(pattern, str):
        raise invalid("pattern", "a text such as '*block*'", repr(pattern))
    validation.function("print_fn", print_fn, ["table"], optional=True)
    if strategy == "similarity" and data is None:
        raise ValueError("strategy='similarity' needs `data`: a batch of inputs.")
    calls = [
        calls_of(model, data, role, "data")
        for role, model in (("teacher", teacher), ("student", student))
    ]
    if strategy == "similarity":
        _check_batch(data)
    sides = [_candidates(side, pattern) for side in calls]
    rows = {
        "depth": lambda *sides: _by_blocks(calls, pattern) or _by_depth(*sides),
        "shape": _by_shape,
        "last_of_stage": _by_stage,
        "similarity": lambda *sides: _by_similarity(sides, (teacher, student), data),
    }[strategy](*sides)
    if not rows:
        raise ValueError(
            f"No layers of {teacher.name!r} and {student.name!r} fit each other by "
            f"strategy={strategy!r}, pattern={pattern!r}. Try another one, or name pairs yourself; "
            "keras_kd.taps.summary(model) lists the layers."
        )
    limit = count if count is not None else (len(rows) if strategy == "last_of_stage" else 4)
    pairs = LayerPairs([rows[i] for i in _spread(len(rows), limit)])
    if print_fn is not None:
        print_fn(str(pairs))
    return pairs


def _check_batch(data):
    """Raises for a batch whose similarities cannot be measured."""
    for each in keras.tree.flatten(data):
        if isinstance(each, keras.KerasTensor) or len(each) < 2:
            received = validation.briefly(each)
            raise invalid("data", "a batch of two rows at least, some hundred", received)
        each = np.asarray(each)
        if each.dtype.kind == "f" and not np.isfinite(each).all():
            received = f"{validation.briefly(each)} with NaN or infinities"
            raise invalid("data", "finite inputs", received)


def _candidates(calls, pattern):
    """Layers that may be paired, in the order in which they run."""
    called = collections.Counter(id(call.layer) for call in calls)
    found = [
        (call, candidate)
        for call in calls
        if called[id(call.layer)] == 1 and (candidate := _candidate(call)) is not None
    ]
    outer = [call for call, _ in found if not isinstance(call.layer, keras.Model)]
    inside = {id(inner) for call in outer for inner in call.all_inside()}
    last = found[-1][1].shape if found else None
    useful = [
        (call, candidate)
        for call, candidate in found
        if id(call) not in inside and not isinstance(call.layer, (*_PASSES_ON, keras.Model))
    ]
    if useful and useful[-1][1].shape == last:
        useful.pop()  # the model's output: soft targets compare it
    return [candidate for call, candidate in useful if _matches(call, pattern)]


def _candidate(call, group=None, is_shared=False):
    """A `_Candidate` for the output of a call; `None` where that holds no features."""
    features = overview.features_of(call.output)
    several = keras.tree.is_nested(call.output)
    if features is None or isinstance(call.output, dict):
        return None
    layer = call.row["layer"]
    if is_shared or several:
        layer = Tap(
            layer, call=call.row["call"] if is_shared else None, index=0 if several else None
        )
    return _Candidate(layer, tuple(features.shape), group)


def _matches(call, pattern):
    return any(fnmatch.fnmatchcase(path, pattern) for path in (call.row["layer"], call.names))


def _row(teacher, student, score):
    values = (teacher.layer, teacher.shape, student.layer, student.shape, score)
    return dict(zip(COLUMNS, values, strict=True))


def _by_blocks(calls, pattern):
    """Like `_by_depth`, for blocks; empty unless both models have some."""
    tops = [top_of(side) for side in calls]
    repeated = [overview.classes_of(overview.runs_of(top)) for top in tops]
    runs = [
        [[call for call in run if _matches(call, pattern)] for run in overview.runs_of(top, known)]
        for top, known in zip(tops, reversed(repeated), strict=True)
    ]
    runs = [[run for run in side if run] for side in runs]
    # An encoder and a decoder, or stages; where one side has more of them, they form one group.
    alike = len(runs[0]) == len(runs[1])
    sides = []
    for side, every in zip(runs, calls, strict=True):
        called = collections.Counter(id(call.layer) for call in every)
        found = [
            _candidate(call, i if alike else 0, is_shared=called[id(call.layer)] > 1)
            for i, run in enumerate(side)
            for call in run
        ]
        sides.append([candidate for candidate in found if candidate is not None])
    return _by_depth(*sides)


def _by_depth(teacher, student):
    """Score: how far apart their relative depths are, among the layers of a group and rank."""
    gains, scores = np.zeros((len(teacher), len(student))), {}
    keys = dict.fromkeys((each.group, len(each.shape)) for each in student)
    for key in keys:
        ours, theirs = (
            [i for i, each in enumerate(side) if (each.group, len(each.shape)) == key]
            for side in (student, teacher)
        )
        count = min(len(ours), len(theirs))
        for n in range(1, count + 1):
            i, j = _nearest(n, len(theirs), count), _nearest(n, len(ours), count)
            gains[theirs[i - 1], ours[j - 1]] = 1.0
            scores[theirs[i - 1], ours[j - 1]] = abs(i / len(theirs) - j / len(ours))
    return [_row(teacher[i], student[j], scores[i, j]) for i, j in _best_in_order(gains)]


def _nearest(n, length, count):
    """The one of `length` at the depth of the n-th of `count`, from 1; halves go down."""
    return -((count - 2 * n * length) // (2 * count))


def _by_shape(teacher, student):
    """The longest run of pairs in order; score: 1."""
    gains = np.array([[float(t.shape == s.shape) for s in student] for t in teacher])
    return [_row(teacher[i], student[j], 1.0) for i, j in _best_in_order(gains)]


def _by_stage(teacher, student):
    """Score: number of the stage, counted from the end."""
    ends = [_stage_ends(side) for side in (teacher, student)]
    rows: list[dict] = []
    for i in range(1, min(map(len, ends)) + 1):
        pair = ends[0][-i], ends[1][-i]
        if len(pair[0].shape) == len(pair[1].shape):
            rows.insert(0, _row(*pair, -i))
    return rows


def _stage_ends(layers):
    ends = {}
    for layer in layers:
        shape = layer.shape
        size = shape[1:3] if len(shape) == 4 else shape[1:]
        ends[len(shape), size] = layer
    return list(ends.values())


def _by_similarity(sides, models_of_sides, data):
    """Score: CKA of the features on the data."""
    teacher, student = sides
    grams = [
        [statistics.centered_gram(each) for each in _features(model, side, data)]
        for model, side in zip(models_of_sides, sides, strict=True)
    ]
    gains = np.array(
        [
            [
                statistics.cka_of_grams(a, b) if len(t.shape) == len(s.shape) else 0.0
                for s, b in zip(student, grams[1], strict=True)
            ]
            for t, a in zip(teacher, grams[0], strict=True)
        ]
    )
    return [_row(teacher[i], student[j], gains[i, j]) for i, j in _best_in_order(gains)]


def _features(model, layers, data):
    data = keras.tree.map_structure(tf.convert_to_tensor, models.own_inputs(model, data))
    taps = Taps(model, [each.layer for each in layers])
    with models.without_changes(data, model):
        _, values = taps.run(lambda: model(data, training=False))
    return [tf.cast(values[each.layer], tf.float32).numpy() for each in layers]


def _best_in_order(gains):
    """Index pairs that rise in both, with the largest sum of gains; those of gain 0 are none."""
    if gains.size == 0:
        return []
    rows, columns = gains.shape
    best = np.zeros((rows + 1, columns + 1))
    for i in range(rows - 1, -1, -1):
        for j in range(columns - 1, -1, -1):
            best[i, j] = max(best[i + 1, j], best[i, j + 1], gains[i, j] + best[i + 1, j + 1])
    pairs, i, j = [], 0, 0
    while i < rows and j < columns:
        if best[i, j] == best[i + 1, j]:
            i += 1
        elif best[i, j] == best[i, j + 1]:
            j += 1
        else:
            pairs.append((i, j))
            i, j = i + 1, j + 1
    return pairs


def _spread(length, limit):
    """At most `limit` indices below `length`, evenly spread, with the last one."""
    if limit >= length:
        return list(range(length))
    return sorted({round((i + 1) * length / limit) - 1 for i in range(limit)})


def _text(value):
    return f"{value:.3f}" if isinstance(value, float) else str(value)
