"""`summary`: what can be tapped in a model, and its repeated blocks."""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator
from typing import Any

import keras

from keras_kd import models
from keras_kd._utils import tables, validation
from keras_kd._utils.validation import invalid
from keras_kd.models import paths, symbolic_pass
from keras_kd.taps import attention, recorder
from keras_kd.taps.recorder import output_of, recorders, wrapped

COLUMNS = ("layer", "type", "call", "output", "attention")


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a layer in a symbolic pass.

    Attributes:
        row: As `summary` returns it.
        layer: The layer or operation.
        names: Its path by the names of layers alone.
        given: Its first argument: a symbolic tensor, or a structure of them.
        output: What it returned.
        read: The first tensor of its first argument itself, in the pass.
        made: The first tensor that it returned.
        inside: The calls directly in it, in order.
    """

    row: dict
    layer: Any
    names: str
    given: Any = None
    output: Any = None
    read: Any = None
    made: Any = None
    inside: list = dataclasses.field(default_factory=list)

    def all_inside(self) -> Iterator["Call"]:
        """The calls in it, at any depth."""
        for inner in self.inside:
            yield inner
            yield from inner.all_inside()


def summary(
    model: keras.Model,
    inputs: Any = None,
    print_fn: Callable[[str], Any] | None = print,
    blocks_only: bool = False,
) -> list[dict[str, Any]]:
    """Lists the layers and operations that can be tapped, in the order in which they run.

    The model runs once on symbolic tensors: no data passes, and nothing of it changes.

    A block is a layer that is made of other layers and is repeated: two or more of one class, one
    after the other in the same model or layer, such as the layers of a transformer; or the only
    layer of a transformer that has one. See `keras_kd.pair_layers`, which pairs them.

    Args:
        model: A Keras model.
        inputs: A batch of inputs, or `keras.KerasTensor`s like one; needed only for models that do
            not know the shapes of their inputs (subclassed ones).
        print_fn: What prints a line; `None` prints nothing.
        blocks_only: Lists the blocks without their inner layers, and those layers around them that
            have weights, such as embeddings and heads. A BERT of 12 layers then has 18 lines
            instead of some 180.

    Returns:
        A list of dicts, one for each call of a layer: `layer` (its path), `type`, `call` (which of
        its calls, 0 where there is one), `output` (its shape, or a structure of shapes, in which
        `None` stands for values that are not tensors) and `attention` (shape of the attention
        scores that can be tapped there, or `None`; of nested layers the innermost has it). `print`
        and a notebook show it as a table.

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
        raise invalid("print_fn", "a function of a line, or None", repr(print_fn))
    validation.boolean("blocks_only", blocks_only)
    calls = calls_of(model, inputs)
    rows = _rows_around_blocks(calls) if blocks_only else [call.row for call in calls]
    found = tables.Rows(rows, COLUMNS, _text)
    if print_fn is not None:
        for line in tables.lines_of(found.cells()):
            print_fn(line)
    return found


def calls_of(
    model: keras.Model, inputs: Any = None, role: str = "model", name: str = "inputs"
) -> list[Call]:
    """A `Call` for each call in a symbolic pass, those inside of others before them.

    Args:
        model: A Keras model.
        inputs: See `summary`.
        role: The argument that holds the model, for messages.
        name: The argument that holds the inputs, for messages.
    """
    validation.model(role, model)
    if inputs is None:
        inputs = models.input_specs(model)
    if inputs is None:
        raise ValueError(
            f"Model {model.name!r} does not know the shapes of its inputs. Pass `{name}`: a batch, "
            "or keras.KerasTensor objects like one."
        )
    given = symbolic_pass.specs_like(inputs)
    if given is None:
        raise invalid(
            name,
            "a batch of inputs, arrays [batch, ...], or keras.KerasTensor objects like one",
            validation.briefly(inputs),
        )
    symbolic_pass.trace_outputs(name, given, f"the {role}", model, builds=True)
    symbolic = keras.tree.map_structure(models.symbolic, models.own_inputs(model, inputs))
    tracer = _CallTracer(model)
    tracer(symbolic)
    return tracer.calls.value


def top_of(calls: list[Call]) -> list[Call]:
    """The calls that the model itself makes, in order."""
    inside = {id(inner) for call in calls for inner in call.inside}
    return [call for call in calls if id(call) not in inside]


def _rows_around_blocks(calls: list[Call]) -> list[dict]:
    found = {id(call) for run in runs_of(top_of(calls)) for call in run}
    rows: list[dict] = []

    def add(siblings: list[Call]) -> None:
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


def _attention_inside(block: Call) -> tuple | None:
    """The shape of the scores that a tap of the block records."""
    if not attention.computes(block.layer, "attention_scores"):
        return None
    found = [call.row["attention"] for call in block.all_inside()]
    found = [shape for shape in found if shape is not None]
    return found[0] if len(found) == 1 else None


class _CallTracer(keras.layers.Layer):
    """A throw-away layer: Keras traces it without data, and it records all calls in a model."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(autocast=False)
        self._model = models.Untracked(model)
        self.calls = models.Untracked([])

    def call(self, inputs: Any) -> Any:
        model = self._model.value
        layers: dict[int, tuple[str, str, Any]] = {}
        for path, names, layer in paths.walk(model):
            layers.setdefault(id(layer), (path, names, layer))
        call_recorder = _CallRecorder()
        with contextlib.ExitStack() as stack:
            for path, names, layer in layers.values():
                scores: list = []
                if attention.gives_scores(layer):
                    for each in recorders(layer, "attention_scores", scores):
                        stack.enter_context(each)
                wrap = call_recorder.around(path, names, layer, scores)
                stack.enter_context(wrapped(layer, wrap))
            outputs = model(inputs, training=False)
        self.calls.value = call_recorder.calls
        return keras.tree.flatten(outputs)[0]


class _CallRecorder:
    """Records the calls of all layers, in the order in which they end."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._open: list[Call] = []

    def around(self, path: str, names: str, layer: Any, scores: list) -> Callable:
        """What `wrapped` takes: records the calls of one layer."""
        number = iter(range(10**9))

        def wrap(call: Callable) -> Callable:
            def record_call(*args: Any, **kwargs: Any) -> Any:
                given = args[0] if args else next(iter(kwargs.values()), None)
                record = Call({}, layer, names, keras.tree.map_structure(_spec, given))
                known = len(scores)
                self._open.append(record)
                try:
                    result = call(*args, **kwargs)
                finally:
                    self._open.pop()
                record.output = keras.tree.map_structure(_spec, output_of(result, kwargs))
                record.read, record.made = _first_of(given), _first_of(result)
                shapes = keras.tree.map_structure(recorder.shape_of, record.output)
                attended = _attended(scores[known:])
                values = (path, type(layer).__name__, next(number), shapes, attended)
                record.row = dict(zip(COLUMNS, values, strict=True))
                self.calls.append(record)
                if self._open:
                    self._open[-1].inside.append(record)
                return result

            return record_call

        return wrap


def _attended(scores: list) -> tuple | None:
    """The shape of a call's attention; a softmax over classes `[batch, classes]` is not one."""
    shape = recorder.shape_of(scores[0]) if scores else None
    return shape if shape is not None and len(shape) > 2 else None


def _first_of(value: Any) -> Any:
    return next(iter(keras.tree.flatten(value)), None)


def _spec(value: Any) -> keras.KerasTensor | None:
    """The shape and type of a tensor; `None` for anything else."""
    if recorder.shape_of(value) is None or not hasattr(value, "dtype"):
        return None
    return keras.KerasTensor(value.shape, keras.backend.standardize_dtype(value.dtype))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


# The repeated blocks of a model, such as the layers of a transformer.
#
# Found by structure: a block is a layer that is made of other layers, turns features into
# features, and is one of two or more of its class that run one after the other, side by side in
# the same model or layer. What runs between them may have no weights (dropout, pooling, masks),
# unless each reads what the one before has made: Keras runs a decoder's embeddings among the blocks
# of the encoder.
# The outermost such layers are the blocks. A layer that is alone is one where it holds an
# attention layer and keeps the rank of its features: a transformer may have one block.
#
# Attention layers are not blocks, but parts of one. Nor are plain `keras.Sequential` or functional
# models: they are all of one class, whatever they compute.


def runs_of(siblings: list[Call], known: Collection[type] = ()) -> list[list[Call]]:
    """Lists of blocks, each list one run; an encoder and a decoder are two.

    Args:
        siblings: The `Call`s that a model makes itself, in order.
        known: Classes that are blocks even where they are alone.
    """
    found: list[list[Call]] = []
    for run in _side_by_side(siblings):
        call = run[0]
        if _may_be_a_block(call) and (len(run) > 1 or type(call.layer) in known):
            found.append(run)
            continue
        inner = runs_of(call.inside, known)
        if inner:
            found += inner
        elif _may_be_a_block(call) and _is_of_a_transformer(call):
            found.append(run)
    return found


def classes_of(runs: list[list[Call]]) -> set[type]:
    """The classes of the blocks."""
    return {type(call.layer) for run in runs for call in run}


def features_of(value: Any) -> keras.KerasTensor | None:
    """The first tensor of a layer's output, where it is features: `[batch, ..., width]`."""
    first = keras.tree.flatten(value)[:1]
    if not first or first[0] is None:
        return None
    shape, dtype = first[0].shape, first[0].dtype
    is_features = len(shape) in (2, 3, 4) and shape[-1] is not None and "float" in dtype
    return first[0] if is_features else None


def _side_by_side(siblings: list[Call]) -> list[list[Call]]:
    """Runs of layers of one class; each other layer is a run of its own."""
    runs: list[list[Call]] = []
    is_open = False
    for call in siblings:
        if _may_be_a_block(call):
            alike = [run for run in runs if type(run[0].layer) is type(call.layer)]
            before = [run for run in alike if run[-1].made is call.read]
            if before:
                before[-1].append(call)
            elif is_open and runs[-1] in alike:
                runs[-1].append(call)
            else:
                runs.append([call])
            is_open = True
        elif getattr(call.layer, "weights", None) or call.inside:
            runs.append([call])
            is_open = False
    return runs


def _may_be_a_block(call: Call) -> bool:
    layer = call.layer
    return (
        next(iter(paths.children(layer)), None) is not None
        and type(layer) not in paths.plain_models()
        and not attention.gives_scores(layer)
        and features_of(call.given) is not None
        and features_of(call.output) is not None
    )


def _is_of_a_transformer(call: Call) -> bool:
    given, output = features_of(call.given), features_of(call.output)
    if isinstance(call.layer, keras.Model) or given is None or output is None:
        return False
    holds_attention = any(attention.gives_scores(inner) for _, _, inner in paths.walk(call.layer))
    return holds_attention and len(given.shape) == len(output.shape)
