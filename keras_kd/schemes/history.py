"""`SequenceReport`: the models of a sequence and how good each has become."""

import dataclasses
import itertools

import keras
import numpy as np
import tensorflow as tf

from keras_kd._utils import progress


@dataclasses.dataclass(repr=False)
class SequenceReport:
    """What a sequence of trainings gave.

    Attributes:
        students: The trained models, in their order.
        histories: What `fit` gave for each of them, a list of dicts.
        rows: A dict for each model: its name, teacher and number of parameters, its results on the
            validation data, `gain`, and what else was measured.
    """

    students: list
    histories: list
    rows: list

    def table(self) -> str:
        """The rows as plain text."""
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
        return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])

    def markdown(self) -> str:
        """The rows as a table of Markdown."""
        head, *lines = [f"| {' | '.join(line)} |" for line in self._cells()]
        return "\n".join([head, "|" + "---|" * len(self._keys()), *lines])

    def _keys(self):
        return list(dict.fromkeys(key for row in self.rows for key in row))

    def _cells(self):
        keys = self._keys()
        head = [key.replace("_", " ") for key in keys]
        return [head, *([_text(row.get(key)) for key in keys] for row in self.rows)]

    def __repr__(self):
        return str(self)

    def __str__(self):
        return self.table()

    def _repr_markdown_(self):
        return self.markdown()


def gain(results, before):
    """By how much a model is better than another one: in accuracy, or in loss without one.

    Args:
        results: Of the model, `{name: number}`.
        before: Of the other one.
    """
    key = next((key for key in results if "accuracy" in key), "loss")
    if key not in results or key not in before:
        return None
    difference = float(results[key]) - float(before[key])
    return -difference if key == "loss" else difference


def _text(value):
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


# For how many rows the models of a chain say the same class.


_BATCH = 256


def check_data(data):
    """Raises if data cannot be passed over again and again."""
    if isinstance(data, (tuple, tf.data.Dataset, keras.utils.PyDataset)):
        return
    raise ValueError(
        "`validation_data` must be (x, y), (x, y, sample_weight), a batched tf.data.Dataset or a "
        f"keras.utils.PyDataset. Received: a {type(data).__name__}."
    )


def agreements(chain, fit, verbose=0):
    """`{"agreement_with_first", "agreement_with_teacher"}` for each model; `{}` without data.

    All models see each batch in one pass over the data, which may be shuffled.

    Args:
        chain: The models, the first teacher first.
        fit: The arguments of `fit`: validation_data, validation_steps.
        verbose: 0, 1 or 2.
    """
    data = fit.get("validation_data")
    if data is None or any(len(getattr(model, "outputs", None) or [0]) > 1 for model in chain):
        return [{} for _ in chain]
    same, rows = np.zeros((2, len(chain))), 0
    steps = fit.get("validation_steps")
    label, total = "comparing the models", _count(data, steps)
    some = itertools.islice(_inputs(data), steps)
    for inputs in progress.iterate(some, label, total, verbose=verbose):
        classes = [np.argmax(model.predict_on_batch(inputs), axis=-1) for model in chain]
        rows += classes[0].size
        for i in range(1, len(chain)):
            same[:, i] += [np.sum(classes[i] == classes[j]) for j in (0, i - 1)]
    keys = "agreement_with_first", "agreement_with_teacher"
    return [
        {key: float(n / rows) if i else None for key, n in zip(keys, same[:, i], strict=True)}
        for i in range(len(chain))
    ]


def _count(data, steps):
    """How many batches `_inputs` gives, or `None` where only a pass would tell."""
    if isinstance(data, tuple):
        found = -(-len(keras.tree.flatten(data[0])[0]) // _BATCH)
    else:
        is_dataset = isinstance(data, tf.data.Dataset)
        found = int(data.cardinality()) if is_dataset else data.num_batches
    if found is None or found < 0:
        return steps
    return found if steps is None else min(found, steps)


def _inputs(data):
    if isinstance(data, tuple):
        inputs = keras.tree.lists_to_tuples(data[0])  # of a list TensorFlow makes one tensor
        data = tf.data.Dataset.from_tensor_slices((inputs,)).batch(_BATCH)
    elif isinstance(data, keras.utils.PyDataset):
        count = data.num_batches  # `None`: endless; `validation_steps` of them are taken
        numbers = itertools.count() if count is None else range(count)
        data = map(data.__getitem__, numbers)
    for batch in data:
        yield keras.utils.unpack_x_y_sample_weight(batch)[0]
