"""`summary`: what of a model can be tapped."""

import contextlib

import keras

from keras_kd import models
from keras_kd.taps import attention, paths
from keras_kd.taps.listening import listeners

COLUMNS = ("layer", "type", "call", "output", "attention")


def summary(model, inputs=None, print_fn=print):
    """Lists the layers and operations that can be tapped, in the order in which they run.

    The model is run once on symbolic tensors: no data passes and nothing of it changes.

    Args:
        model: A Keras model.
        inputs: A batch of inputs, or `keras.KerasTensor`s like one; needed only for models that do
            not know the shapes of their inputs (subclassed ones).
        print_fn: What prints a line; `None` prints nothing.

    Returns:
        A list of dicts, one for each call of a layer: `layer` (its path), `type`, `call` (which of
        its calls, 0 where there is one), `output` (its shape, or a structure of shapes) and
        `attention` (shape of its attention scores, or `None`).

    Raises:
        ValueError: `inputs` are needed.

    Example:

    ```python
    import keras
    import keras_kd as kd

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="features")])
    rows = kd.taps.summary(model)
    assert rows[0]["layer"] == "features"
    assert rows[0]["output"] == (None, 4)
    ```
    """
    rows = [row for row, _ in calls_of(model, inputs)]
    if print_fn is not None:
        _print(rows, print_fn)
    return rows


def calls_of(model, inputs=None):
    """`(row, layer)` for each call in a symbolic pass; see `summary`."""
    if inputs is None:
        inputs = models.input_specs(model)
    if inputs is None:
        raise ValueError(
            f"Model {model.name!r} does not know the shapes of its inputs. Pass `inputs`: a batch, "
            "or keras.KerasTensor objects like one."
        )
    symbolic = keras.tree.map_structure(_symbolic, inputs)
    listener = _Listener(model)
    if not model.built:
        _Listener(model)(symbolic)  # a model may call layers twice while it builds itself
    listener(symbolic)
    return listener.found.model


def _symbolic(value):
    if isinstance(value, keras.KerasTensor):
        return value
    value = keras.ops.convert_to_tensor(value)
    return keras.KerasTensor((None, *value.shape[1:]), keras.backend.standardize_dtype(value.dtype))


class _Listener(keras.layers.Layer):
    """A throw-away layer: Keras traces it without data, and it listens to all of a model."""

    def __init__(self, model):
        super().__init__(autocast=False)
        self._model = models.Untracked(model)
        self.found = models.Untracked([])

    def call(self, inputs):
        model, order, found = self._model.model, [], {}
        for path, _, layer in paths.walk(model):
            found.setdefault(id(layer), (path, layer))
        scores = {key: [] for key in found}
        with contextlib.ExitStack() as stack:
            for key, (_, layer) in found.items():
                if _gives_scores(layer):
                    for listener in listeners(layer, "attention_scores", scores[key]):
                        stack.enter_context(listener)
                for listener in listeners(layer, "output", _Recorder(order, key)):
                    stack.enter_context(listener)
            outputs = model(inputs, training=False)
        counts = dict.fromkeys(found, 0)
        calls = self.found.model = []
        for key, shape in order:
            path, layer = found[key]
            attended = [tuple(value.shape) for value in scores[key]]
            row = (path, type(layer).__name__, counts[key], shape)
            call = attended[counts[key]] if attended else None
            calls.append((dict(zip(COLUMNS, (*row, call), strict=True)), layer))
            counts[key] += 1
        return keras.tree.flatten(outputs)[0]


def _gives_scores(layer):
    """Whether it computes scores itself; a layer around it may only pass them on."""
    if not isinstance(layer, keras.layers.Layer) or not attention.returns_scores(layer):
        return False
    return not any(_gives_scores(inner) for _, _, inner in paths.walk(layer))


class _Recorder:
    """Stands for the list that a listener appends to: keeps the order over all layers."""

    def __init__(self, order, key):
        self._order, self._key = order, key

    def append(self, value):
        shapes = keras.tree.map_structure(lambda x: tuple(x.shape), value)
        self._order.append((self._key, shapes))


def _print(rows, print_fn):
    table = [COLUMNS] + [tuple(_text(row[column]) for column in COLUMNS) for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(COLUMNS))]
    for line in table:
        print_fn(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def _text(value):
    return "" if value is None else str(value)
