"""`pair_layers`: proposes which layers of teacher and student belong together."""

import fnmatch

import keras
import numpy as np
import tensorflow as tf

from keras_kd import losses, similarity
from keras_kd.losses import base
from keras_kd.taps.listening import Taps
from keras_kd.taps.overview import calls_of

STRATEGIES = ("depth", "shape", "last_of_stage", "similarity")
# Layers that only pass on, or put into another form, what another layer made.
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


class LayerPairs(list):
    """A list of `(teacher_layer, student_layer)` paths; `hints` makes losses of them.

    Args:
        rows: Dicts with `teacher`, `student`, their shapes and the `score` of the strategy.
    """

    def __init__(self, rows):
        super().__init__((row["teacher"], row["student"]) for row in rows)
        self.rows = list(rows)

    def hints(self, loss="mse", weight=1.0, projector="auto"):
        """A `keras_kd.losses.FeatureHint` for each pair.

        Args:
            loss: As of `FeatureHint`.
            weight: Of all of them together: each gets its part.
            projector: As of `FeatureHint`.

        Returns:
            A list of losses, named `hint_0`, `hint_1`, ...
        """
        return [
            losses.FeatureHint(
                *pair, loss=loss, projector=projector, weight=weight / len(self), name=f"hint_{i}"
            )
            for i, pair in enumerate(self)
        ]

    def __str__(self):
        columns = ("teacher", "teacher_shape", "student", "student_shape", "score")
        table = [columns] + [tuple(_text(row[name]) for name in columns) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in table
        ]
        return "\n".join(lines)


def pair_layers(
    teacher, student, strategy="depth", data=None, count=None, pattern="*", print_fn=print
):
    """Proposes pairs of layers for hints, and prints them.

    Candidates are the layers and operations that run once, give one float tensor `[batch, width]`,
    `[batch, time, width]` or `[batch, height, width, channels]`, and do more than pass values on;
    of a model's output none. Layers inside of others (of a transformer's block) are left out where
    the block itself is one. Pairs have equal ranks and never cross.

    Args:
        teacher: A Keras model.
        student: A Keras model.
        strategy: `"depth"`: the student's layer at a fraction of its depth with the teacher's at
            the same fraction. `"shape"`: layers of one shape, in order, which need no projector.
            `"last_of_stage"`: the last layers before the size of the features changes (height,
            width and, of vectors, their width), counted from the end. `"similarity"`: the pairs
            with the largest sum of CKA on `data`.
        data: A batch of inputs, some hundred rows: for `"similarity"`, and for models that do not
            know the shapes of their inputs.
        count: At most so many pairs, spread over the depth and the last one among them; default:
            4, or all stages.
        pattern: Only layers whose path matches, such as `"*transformer_layer_*"`.
        print_fn: What prints the table; `None` prints nothing.

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
    count = base.integer("count", count, 1, optional=True)
    if strategy == "similarity" and data is None:
        raise ValueError("strategy='similarity' needs `data`: a batch of inputs.")
    sides = [_candidates(model, data, pattern) for model in (teacher, student)]
    rows = {
        "depth": _by_depth,
        "shape": _by_shape,
        "last_of_stage": _by_stage,
        "similarity": lambda *sides: _by_similarity(*sides, teacher, student, data),
    }[strategy](*sides)
    if not rows:
        raise ValueError(
            f"No layers of {teacher.name!r} and {student.name!r} fit each other by "
            f"strategy={strategy!r}. Try another one, or name pairs yourself; "
            "keras_kd.taps.summary(model) lists the layers."
        )
    limit = count if count is not None else (len(rows) if strategy == "last_of_stage" else 4)
    pairs = LayerPairs([rows[i] for i in _spread(len(rows), limit)])
    if print_fn is not None:
        print_fn(str(pairs))
    return pairs


def _candidates(model, data, pattern):
    """`(path, shape, depth)` of each layer that may be paired, in the order in which they run."""
    calls = calls_of(model, data)
    called = [row["layer"] for row, _ in calls]
    found = [
        (row["layer"], row["output"], layer)
        for row, layer in calls
        if called.count(row["layer"]) == 1 and _is_features(row["output"])
    ]
    blocks = [path for path, _, layer in found if not isinstance(layer, keras.Model)]
    inner = {path for path in called for block in blocks if path.startswith(block + "/")}
    last = found[-1][1] if found else None
    useful = [
        (path, shape)
        for path, shape, layer in found
        if path not in inner and not isinstance(layer, (*_PASSES_ON, keras.Model))
    ]
    if useful and useful[-1][1] == last:
        useful.pop()  # the model's output: soft targets compare it
    useful = [(path, shape) for path, shape in useful if fnmatch.fnmatchcase(path, pattern)]
    return [(path, shape, (i + 1) / len(useful)) for i, (path, shape) in enumerate(useful)]


def _is_features(shape):
    is_one = isinstance(shape, tuple) and all(n is None or isinstance(n, int) for n in shape)
    return is_one and len(shape) in (2, 3, 4) and shape[-1] is not None


def _row(teacher, student, score):
    names = ("teacher", "teacher_shape", "student", "student_shape", "score")
    return dict(zip(names, (*teacher[:2], *student[:2], score), strict=True))


def _by_depth(teacher, student):
    """Score: how far apart their relative depths are."""
    rows, least = [], 0
    for layer in student:
        fitting = [
            (abs(other[2] - layer[2]), i)
            for i, other in enumerate(teacher)
            if i >= least and len(other[1]) == len(layer[1])
        ]
        if fitting:
            distance, i = min(fitting)
            rows.append(_row(teacher[i], layer, distance))
            least = i + 1
    return rows


def _by_shape(teacher, student):
    """The longest run of pairs in order; score: 1."""
    gains = np.array([[float(t[1] == s[1]) for s in student] for t in teacher])
    return [_row(teacher[i], student[j], 1.0) for i, j in _best_in_order(gains)]


def _by_stage(teacher, student):
    """Score: number of the stage, counted from the end."""
    ends = [_stage_ends(side) for side in (teacher, student)]
    rows = []
    for i in range(1, min(map(len, ends)) + 1):
        pair = ends[0][-i], ends[1][-i]
        if len(pair[0][1]) == len(pair[1][1]):
            rows.insert(0, _row(*pair, -i))
    return rows


def _stage_ends(layers):
    ends = {}
    for layer in layers:
        shape = layer[1]
        size = shape[1:3] if len(shape) == 4 else shape[1:]
        ends[len(shape), size] = layer
    return list(ends.values())


def _by_similarity(teacher, student, teacher_model, student_model, data):
    """Score: CKA of the features on the data."""
    features = [
        _features(model, side, data)
        for model, side in ((teacher_model, teacher), (student_model, student))
    ]
    gains = np.array(
        [
            [
                similarity.cka(a, b) if len(t[1]) == len(s[1]) else 0.0
                for s, b in zip(student, features[1], strict=True)
            ]
            for t, a in zip(teacher, features[0], strict=True)
        ]
    )
    return [_row(teacher[i], student[j], gains[i, j]) for i, j in _best_in_order(gains)]


def _features(model, layers, data):
    data = keras.tree.map_structure(tf.convert_to_tensor, data)
    taps = Taps(model, [path for path, *_ in layers])
    _, values = taps.run(lambda: model(data, training=False))
    return [tf.cast(values[path], tf.float32).numpy() for path, *_ in layers]


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
