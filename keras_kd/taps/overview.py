"""`summary`: what of a model can be tapped."""

import contextlib
import dataclasses
from typing import Any

import keras

from keras_kd import checks, models, symbolic_pass
from keras_kd.ops.arguments import invalid
from keras_kd.taps import attention, blocks, paths, tensors
from keras_kd.taps.listening import listeners, output_of, wrapped

COLUMNS = ("layer", "type", "call", "output", "attention")


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a layer in a symbolic pass.

    Args:
        row: As `summary` gives it.
        layer: The layer or operation.
        names: Its path by the names of layers alone.
        given: What it was given first: a symbolic tensor, or a structure of them.
        output: What it gave.
        inside: The calls in it, one below, in order.
    """

    row: dict
    layer: Any
    names: str
    given: Any = None
    output: Any = None
    inside: list = dataclasses.field(default_factory=list)

    def all_inside(self):
        """The calls in it, at any depth."""
        for inner in self.inside:
            yield inner
            yield from inner.all_inside()


def summary(model, inputs=None, print_fn=print, blocks_only=False):
    """Lists the layers and operations that can be tapped, in the order in which they run.

    The model is run once on symbolic tensors: no data passes and nothing of it changes.

    A block is a layer that is made of other layers and is repeated: two or more of one class, one
    after the other in the same model or layer, such as the layers of a transformer; or the only
    layer of a transformer that has one. See `keras_kd.pair_layers`, which pairs them.

    Args:
        model: A Keras model.
        inputs: A batch of inputs, or `keras.KerasTensor`s like one; needed only for models that do
            not know the shapes of their inputs (subclassed ones).
        print_fn: What prints a line; `None` prints nothing.
        blocks_only: Lists the blocks, and not what is in them, with those layers around them that
            have weights, such as embeddings and heads. A BERT of 12 layers has 18 lines so, and
            some 180 otherwise.

    Returns:
        A list of dicts, one for each call of a layer: `layer` (its path), `type`, `call` (which of
        its calls, 0 where there is one), `output` (its shape, or a structure of shapes, in which
        `None` stands for what is no tensor) and `attention` (shape of the attention scores that
        can be tapped there, or `None`; of layers inside each other, the innermost has it).

    Raises:
        ValueError: `inputs` are needed, or an argument is wrong.

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
    if print_fn is not None and not callable(print_fn):
        raise ValueError(
            "Invalid value for argument `print_fn`. Expected a function of a line, or None. "
            f"Received: print_fn={print_fn!r}"
        )
    checks.boolean("blocks_only", blocks_only)
    calls = calls_of(model, inputs)
    rows = _rows_around_blocks(calls) if blocks_only else [call.row for call in calls]
    if print_fn is not None:
        _print(rows, print_fn)
    return rows


def calls_of(model, inputs=None, role="model", name="inputs"):
    """A `Call` for each call in a symbolic pass, those inside of others before them.

    Args:
        model: A Keras model.
        inputs: As of `summary`.
        role: The argument that the model was, for messages.
        name: The argument that the inputs were, for messages.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"Invalid value for argument `{role}`. Expected a keras.Model. "
            f"Received: {role}={model!r} of type {type(model).__name__}"
        )
    if inputs is None:
        inputs = models.input_specs(model)
    if inputs is None:
        raise ValueError(
            f"Model {model.name!r} does not know the shapes of its inputs. Pass `{name}`: a batch, "
            "or keras.KerasTensor objects like one."
        )
    given = symbolic_pass.like(inputs)
    if given is None:
        raise invalid(
            name,
            "a batch of inputs, arrays [rows, ...], or keras.KerasTensor objects like one",
            checks.briefly(inputs),
        )
    symbolic_pass.check(name, given, f"the {role}", model, builds=True)
    symbolic = keras.tree.map_structure(models.symbolic, models.own_inputs(model, inputs))
    listener = _Listener(model)
    listener(symbolic)
    return listener.found.model


def top_of(calls):
    """Those that the model itself calls, in order."""
    inside = {id(inner) for call in calls for inner in call.inside}
    return [call for call in calls if id(call) not in inside]


def _rows_around_blocks(calls):
    found = {id(call) for run in blocks.runs_of(top_of(calls)) for call in run}
    rows = []

    def add(siblings):
        for call in siblings:
            if id(call) in found:
                rows.append({**call.row, "attention": _attention_inside(call)})
            elif isinstance(call.layer, keras.Model) or any(
                id(x) in found for x in call.all_inside()
            ):
                add(call.inside)
            elif getattr(call.layer, "weights", None):
                rows.append(call.row)

    add(top_of(calls))
    return rows


def _attention_inside(block):
    """The shape of the scores that a tap of the block gives."""
    if not attention.computes(block.layer, "attention_scores"):
        return None
    found = [call.row["attention"] for call in block.all_inside()]
    found = [shape for shape in found if shape is not None]
    return found[0] if len(found) == 1 else None


class _Listener(keras.layers.Layer):
    """A throw-away layer: Keras traces it without data, and it listens to all of a model."""

    def __init__(self, model):
        super().__init__(autocast=False)
        self._model = models.Untracked(model)
        self.found = models.Untracked([])

    def call(self, inputs):
        model, layers = self._model.model, {}
        for path, names, layer in paths.walk(model):
            layers.setdefault(id(layer), (path, names, layer))
        recorder = _Recorder()
        with contextlib.ExitStack() as stack:
            for path, names, layer in layers.values():
                scores = []
                if attention.gives_scores(layer):
                    for listener in listeners(layer, "attention_scores", scores):
                        stack.enter_context(listener)
                wrap = recorder.around(path, names, layer, scores)
                stack.enter_context(wrapped(layer, wrap))
            outputs = model(inputs, training=False)
        self.found.model = recorder.calls
        return keras.tree.flatten(outputs)[0]


class _Recorder:
    """Keeps the calls of all layers, in the order in which they end."""

    def __init__(self):
        self.calls, self._open = [], []

    def around(self, path, names, layer, scores):
        """What `wrapped` takes: records the calls of one layer."""
        number = iter(range(10**9))

        def wrap(call):
            def listen(*args, **kwargs):
                given = args[0] if args else next(iter(kwargs.values()), None)
                record = Call({}, layer, names, keras.tree.map_structure(_spec, given))
                known = len(scores)
                self._open.append(record)
                try:
                    result = call(*args, **kwargs)
                finally:
                    self._open.pop()
                record.output = keras.tree.map_structure(_spec, output_of(result, kwargs))
                shapes = keras.tree.map_structure(tensors.shape_of, record.output)
                attended = _attended(scores[known:])
                values = (path, type(layer).__name__, next(number), shapes, attended)
                record.row = dict(zip(COLUMNS, values, strict=True))
                self.calls.append(record)
                if self._open:
                    self._open[-1].inside.append(record)
                return result

            return listen

        return wrap


def _attended(scores):
    """The shape of what a call attends to; a softmax over the classes of rows is no attention."""
    shape = tensors.shape_of(scores[0]) if scores else None
    return shape if shape is not None and len(shape) > 2 else None


def _spec(value):
    """The shape and type of a tensor; `None` of what is none."""
    if tensors.shape_of(value) is None or not hasattr(value, "dtype"):
        return None
    return keras.KerasTensor(value.shape, keras.backend.standardize_dtype(value.dtype))


def _print(rows, print_fn):
    table = [COLUMNS] + [tuple(_text(row[column]) for column in COLUMNS) for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(COLUMNS))]
    for line in table:
        print_fn(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


def _text(value):
    return "" if value is None else str(value)
