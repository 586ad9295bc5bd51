"""Widths: the channels that each layer reads and makes, the rules that find them, and the cutting.

`Widths` walks through a model and applies to each call the rule of its type (`rule_for`).
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kd.students import channels, graph
from keras_kd.students.channels import Signal, Summed


class LayerWidths(NamedTuple):
    """The axes of a layer's weights, and the edits of its configuration.

    Attributes:
        path: Of the layer.
        layer: The teacher's layer.
        weights: For each of its weights a list of axes.
        edits: See `LayerCall`.
        inputs: The axes of the first tensor that each of its calls reads.
        outputs: The axes of the first tensor that each of its calls makes.
    """

    path: str
    layer: Any
    weights: list
    edits: dict
    inputs: tuple = ()
    outputs: tuple = ()


class Widths:
    """The channels of a whole model.

    Args:
        teacher: Its `Graph`.
        keep: Names or paths of layers whose width stays.

    Attributes:
        layers: `{path: LayerWidths}`.
    """

    def __init__(self, teacher: Any, keep: Any = ()) -> None:
        self.units: dict[tuple, channels.Unit] = {}
        self.read: dict[tuple, Any] = {}
        self.obstacles: list[Obstacle] = []
        self.layers: dict[str, LayerWidths] = {}
        self._keep = keep
        inputs = [[None] * len(shape) for shape in _input_shapes(teacher)]
        for axes in self._walk(teacher, inputs):
            for axis in axes:
                channels.fix(axis)

    def _walk(self, teacher, inputs):
        made: dict[graph.Ref, Any] = {}

        def signal(ref, shape):
            return Signal(shape, tuple(made.get(ref) or [None] * len(shape)))

        for node in teacher.calls():
            layer = teacher.operations[node.layer]
            if isinstance(layer, keras.layers.InputLayer):
                ref = graph.Ref(node.layer, node.number, 0)
                call = LayerCall(self, layer, teacher.entries[node.layer]["config"], "")
                made[ref] = self._input(teacher, call, node, inputs[teacher.inputs.index(ref)])
                continue
            arguments = graph.revived(node.arguments, signal)
            for i, axes in enumerate(self._call(teacher, node.layer, layer, arguments)):
                made[graph.Ref(node.layer, node.number, i)] = axes
        return [signal(*output).axes for output in teacher.output_tensors()]

    def _input(self, teacher, call, node, axes):
        call.path = teacher.path + node.layer
        axes = [call.reads(i, axis) for i, axis in enumerate(axes)]
        edits = {("batch_shape", i): axis for i, axis in enumerate(axes) if axis is not None}
        self.layers[call.path] = LayerWidths(call.path, call.layer, [], edits)
        return axes

    def _call(self, teacher, name, layer, arguments):
        path = teacher.path + name
        call = LayerCall(self, layer, teacher.entries[name]["config"], path)
        args = arguments["args"]
        kwargs = {
            key: value
            for key, value in arguments["kwargs"].items()
            if value is not None and key != "training"
        }
        call.inputs = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, Signal)]
        if name in teacher.nested:
            return self._nested(call, teacher.nested[name], args)
        outputs = apply_rule(call, args, kwargs)
        if is_named(path, self._keep):
            self._fix(call, outputs)
        weights = weights_of(layer)
        whole = [[None] * len(weight.shape) for weight in weights]
        before = self.layers.get(path)
        reads = (*(before.inputs if before else ()), *(x.axes for x in call.inputs[:1]))
        makes = (*(before.outputs if before else ()), *outputs[:1])
        self.layers[path] = LayerWidths(
            path, layer, call.weights or whole, call.edits, reads, makes
        )
        return outputs

    def _nested(self, call, inner, args):
        given = [x for x in keras.tree.flatten(args) if isinstance(x, Signal)]
        is_dict = isinstance(inner.input_structure, dict)
        if len(given) != len(inner.inputs) or is_dict != isinstance(args[0], dict):
            call.give_up("its inputs are given in another structure than it has")
            given = [Signal(shape, (None,) * len(shape)) for shape in _input_shapes(inner)]
        if is_named(call.path, self._keep):
            self._fix(call, [])
        return self._walk(inner, [signal.axes for signal in given])

    def _fix(self, call, outputs):
        own = [(unit,) for (path, _), unit in self.units.items() if path == call.path]
        of_outputs = [axis for axes in outputs for axis in axes or ()]
        obstacles = [x.axes for x in self.obstacles if x.path == call.path]
        for axis in [*own, *of_outputs, *(axis for axes in obstacles for axis in axes)]:
            channels.fix(axis)

    def check(self, choice: Any) -> None:
        """Raises if a layer would be narrowed that cannot be."""
        stopped: dict[str, Obstacle] = {}
        for obstacle in self.obstacles:
            if any(choice.narrows(axis) for axis in obstacle.axes):
                stopped.setdefault(obstacle.path, obstacle)
        if stopped:
            first = next(iter(stopped.values()))
            narrowed = [unit for axis in first.axes for unit in channels.units(axis)]
            owners = {unit.owner for unit in narrowed if not unit.fixed}
            raise ValueError(
                f"Layer {first.path!r} ({first.kind}) cannot be narrowed to width={choice.width}: "
                f"{first.why}. The channels in question are those of {sorted(owners)}. Keep their "
                f"width with keep={list(stopped)}, or pass width=1.0."
            )


def _input_shapes(teacher):
    return [teacher.operations[ref.layer].batch_shape for ref in teacher.inputs]


def is_named(path: str, names: Any) -> bool:
    """Whether a layer, or a model it is nested in, has one of these names or paths."""
    parts = path.split("/")
    above = ["/".join(parts[:i]) for i in range(1, len(parts) + 1)]
    return any(one == name or one.endswith("/" + name) for one in above for name in names)


class Obstacle(NamedTuple):
    """Axes of a layer that cannot be narrowed, and why."""

    path: str
    kind: str
    why: str
    axes: list


class LayerCall:
    """One call of a layer, as its rule sees it.

    Attributes:
        layer: The teacher's layer or operation.
        config: Its configuration.
        path: Its path in the teacher.
        weights: For each of its weights a list of axes; `channels.Summed(axis)` where
            channels are summed.
        edits: `{keys into the configuration: axis}`: what becomes the student's size.
        inputs: The `Signal`s among the call's arguments.
    """

    def __init__(self, widths: Any, layer: Any, config: dict[str, Any], path: str) -> None:
        self._widths, self.layer, self.config, self.path = widths, layer, config, path
        self.weights: list = []
        self.edits: dict[tuple, Any] = {}
        self.inputs: list[Signal] = []

    def unit(self, key: Any, size: Any) -> tuple:
        """The axis of the layer's own channels, the same in each call."""
        made = self._widths.units.setdefault((self.path, key), channels.Unit(size, self.path))
        return (made,)

    def reads(self, key: Any, axis: Any) -> Any:
        """An axis that the layer's weights depend on: tied to the same axis of its other calls."""
        first = self._widths.read.setdefault((self.path, key), axis)
        self.tie(first, axis)
        return first

    def tie(self, *axes: Any) -> Any:
        """Ties axes; returns one of them."""
        for axis in axes[1:]:
            if not channels.tie(axes[0], axis):
                self.keep("its inputs' channels are composed differently", list(axes))
        return next((axis for axis in axes if axis is not None), None)

    def keep(self, why: Any, axes: Any) -> None:
        """These axes have to keep the teacher's size; narrowing them elsewhere is an error."""
        name = type(self.layer).__name__
        self._widths.obstacles.append(Obstacle(self.path, name, why, axes))

    def keep_channels(self, why: Any, axes: Any) -> None:
        """`keep`, for axes that usually hold no channels."""
        if any(axis is not None for axis in axes):
            self.keep(why, [axis for axis in axes if axis is not None])

    def give_up(self, why: Any) -> None:
        """Nothing about the layer may change; the axes of its outputs are unknown."""
        self.weights, self.edits = [], {}
        self.keep_channels(why, [axis for signal in self.inputs for axis in signal.axes])


# The rules: what a layer's call does with channels.

Rule = Callable[..., list | None]

# Each rule by the layer's exact type, since a subclass may do anything, or by the name of an
# operation. `weight_rules.py` and `shape_rules.py` fill it.
RULES: dict[type | str, Rule] = {}


def rule_for(*kinds: type | str) -> Callable[[Rule], Rule]:
    """Registers a rule; a new type of layer needs such a function, and nothing else.

    A rule takes the `LayerCall` and the arguments of the layer's call, with `Signal`s for tensors.
    It sets the call's `weights` and `edits`, and returns the axes of each output.

    Args:
        *kinds: Classes of layers; names of operations, whose classes Keras does not export.
    """

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, rule))
        return rule

    return register


def apply_rule(call: LayerCall, args: Any, kwargs: Any) -> Any:
    """The axes of each of a call's outputs, or `None` where they are the teacher's.

    Args:
        call: The `LayerCall`; the rule sets its `weights` and `edits`.
        args: Arguments of the call, with `Signal`s for tensors.
        kwargs: Keyword arguments of the call.
    """
    is_layer = isinstance(call.layer, keras.layers.Layer)
    rule = RULES.get(type(call.layer) if is_layer else type(call.layer).__name__)
    if rule is None:
        call.give_up("keras_kd has no rule for its type")
        return []
    try:
        inspect.signature(rule).bind(call, *args, **kwargs)
    except TypeError:
        call.give_up("it is called with arguments that its rule does not know")
        return []
    outputs = rule(call, *args, **kwargs)
    if outputs is not None and not _fits(call):
        call.give_up("its weights are not those of its type (it may be quantized or have LoRA)")
        return []
    return outputs or []


def _fits(call):
    """Whether the axes that a rule gave for the weights have the weights' sizes."""
    weights = weights_of(call.layer)
    if len(weights) != len(call.weights):
        return False
    return all(
        len(weight.shape) == len(axes)
        and all(_has_size(axis, size) for axis, size in zip(axes, weight.shape, strict=True))
        for weight, axes in zip(weights, call.weights, strict=True)
    )


def _has_size(axis, size):
    axis = axis.axis if isinstance(axis, channels.Summed) else axis
    return axis is None or channels.size(axis) == size


# Cutting the teacher's weights to the student's channels.


def cut_weight(value: Any, axes: Any, choice: Any) -> np.ndarray:
    """The student's weight, cut from the teacher's.

    Args:
        value: NumPy array.
        axes: For each of its axes the channels along it; `Summed` where channels that become one
            are added up, because the layer reads them, rather than averaged.
        choice: The `Choice` of channels.

    Returns:
        An array of the same dtype.
    """
    dtype = value.dtype
    for i, axis in enumerate(axes):
        is_summed = isinstance(axis, Summed)
        axis = axis.axis if is_summed else axis
        if choice.narrows(axis):
            value = _cut_axis(value, i, choice.channels(axis), is_summed)
    return value.astype(dtype, copy=False)


def _cut_axis(value, axis, channels, is_summed):
    """Cuts one axis; `channels` holds each channel's new number, or -1."""
    kept = np.flatnonzero(channels >= 0)
    order = kept[np.argsort(channels[kept], kind="stable")]
    counts = np.bincount(channels[order])
    taken = np.take(value, order, axis=axis)
    if counts.max() == 1:
        return taken
    starts = np.cumsum(counts) - counts
    # In float64 until all axes are done: half precision would round each of them.
    merged = np.add.reduceat(taken.astype("float64"), starts, axis=axis)
    if not is_summed:
        merged /= counts.reshape([-1 if i == axis else 1 for i in range(value.ndim)])
    return merged


def cut_shape(shape: Any, axes: Any, choice: Any) -> tuple[int, ...]:
    """The shape that `cut_weight` returns."""
    axes = [axis.axis if isinstance(axis, Summed) else axis for axis in axes]
    return tuple(
        choice.size(axis) if choice.narrows(axis) else size
        for size, axis in zip(shape, axes, strict=True)
    )


def copy_weights(student: Any, plan: Any, choice: Any) -> None:
    """Gives a student's layer the weights of its teacher's.

    Args:
        student: The model.
        plan: The `LayerWidths` of the layer.
        choice: The `Choice` of channels.
    """
    layer = layer_at(student, plan.path)
    values = [
        cut_weight(keras.ops.convert_to_numpy(weight), axes, choice)
        for weight, axes in zip(weights_of(plan.layer), plan.weights, strict=True)
    ]
    layer.set_weights(values)
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()


def check_shapes(student: Any, plan: Any, choice: Any) -> None:
    """Raises unless a student's layer has the shapes that were planned."""
    layer = layer_at(student, plan.path)
    expected = student_shapes(plan, choice)
    received = [tuple(weight.shape) for weight in layer.weights]
    if expected != received:
        raise ValueError(
            f"Layer {plan.path!r} ({type(layer).__name__}) of the student has weights of shapes "
            f"{received}, expected {expected}: it computes its width in a way that keras_kd does "
            f"not know. Keep it with keep=[{plan.path!r}], or pass width=1.0."
        )


def weights_of(layer: Any) -> list:
    """The weights of a layer; an operation, such as a division, has none."""
    return list(getattr(layer, "weights", []))


def student_shapes(plan: Any, choice: Any) -> list[tuple[int, ...]]:
    """The shapes of the student's weights."""
    return [
        cut_shape(weight.shape, axes, choice)
        for weight, axes in zip(weights_of(plan.layer), plan.weights, strict=True)
    ]


def layer_at(model: keras.Model, path: str) -> Any:
    """The layer at a path of names."""
    for name in path.split("/"):
        model = model.get_layer(name)
    return model
