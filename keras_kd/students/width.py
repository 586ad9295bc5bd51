"""Widths: the channels that each layer reads and makes, by the rules of its type."""

import inspect
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kd.students import channels, graph, shape_rules, weight_rules
from keras_kd.students.channels import Signal, Summed


class Obstacle(NamedTuple):
    """Axes that a layer cannot have narrowed, and why."""

    path: str
    kind: str
    why: str
    axes: list


class Site:
    """A layer where a rule looks at it.

    Attributes:
        layer: The teacher's layer or operation.
        config: Its configuration.
        path: Its path in the teacher.
        weights: For each of its weights a list of axes; `channels.Summed(axis)` where
            channels are summed.
        edits: `{keys into the configuration: axis}`: what becomes the student's size.
    """

    def __init__(self, widths, layer, config, path):
        self._widths, self.layer, self.config, self.path = widths, layer, config, path
        self.weights, self.edits, self.inputs = [], {}, []

    def unit(self, key, size):
        """Channels of the layer's own, the same in each call; an axis."""
        made = self._widths.units.setdefault((self.path, key), channels.Unit(size, self.path))
        return (made,)

    def reads(self, key, axis):
        """An axis that the layer's weights depend on: tied to that of its other calls."""
        first = self._widths.read.setdefault((self.path, key), axis)
        self.tie(first, axis)
        return first

    def tie(self, *axes):
        """Ties axes; returns one of them."""
        for axis in axes[1:]:
            if not channels.tie(axes[0], axis):
                self.keep("its inputs' channels are composed differently", list(axes))
        return next((axis for axis in axes if axis is not None), None)

    def keep(self, why, axes):
        """These axes have to stay as the teacher's; an error where others narrow them."""
        name = type(self.layer).__name__
        self._widths.obstacles.append(Obstacle(self.path, name, why, axes))

    def plain(self, why, axes):
        """`keep`, of axes that usually are no channels."""
        if any(axis is not None for axis in axes):
            self.keep(why, [axis for axis in axes if axis is not None])

    def opaque(self, why):
        """Nothing about the layer may change. Returns axes of outputs: unknown."""
        self.weights, self.edits = [], {}
        self.plain(why, [axis for signal in self.inputs for axis in signal.axes])


class LayerWidths(NamedTuple):
    """What becomes of a layer."""

    path: str
    layer: Any
    weights: list
    edits: dict


class Widths:
    """The channels of a whole model.

    Args:
        teacher: Its `Graph`.
        keep: Names or paths of layers whose width stays.

    Attributes:
        layers: `{path: LayerWidths}`.
    """

    def __init__(self, teacher, keep=()):
        self.units, self.read, self.obstacles, self.layers = {}, {}, [], {}
        self._keep = keep
        inputs = [[None] * len(shape) for shape in _input_shapes(teacher)]
        for axes in self._walk(teacher, inputs):
            for axis in axes:
                channels.fix(axis)

    def _walk(self, teacher, inputs):
        made = {}

        def signal(ref, shape):
            return Signal(shape, tuple(made.get(ref) or [None] * len(shape)))

        for call in teacher.calls():
            layer = teacher.operations[call.layer]
            if isinstance(layer, keras.layers.InputLayer):
                ref = graph.Ref(*call[:2], 0)
                site = Site(self, layer, teacher.entries[call.layer]["config"], "")
                made[ref] = self._input(teacher, site, call, inputs[teacher.inputs.index(ref)])
                continue
            arguments = graph.revived(call.arguments, signal)
            for i, axes in enumerate(self._call(teacher, call.layer, layer, arguments)):
                made[graph.Ref(*call[:2], i)] = axes
        return [signal(*output).axes for output in teacher.output_tensors()]

    def _input(self, teacher, site, call, axes):
        site.path = teacher.path + call.layer
        axes = [site.reads(i, axis) for i, axis in enumerate(axes)]
        edits = {("batch_shape", i): axis for i, axis in enumerate(axes) if axis is not None}
        self.layers[site.path] = LayerWidths(site.path, site.layer, [], edits)
        return axes

    def _call(self, teacher, name, layer, arguments):
        path = teacher.path + name
        site = Site(self, layer, teacher.entries[name]["config"], path)
        args = arguments["args"]
        kwargs = {
            key: value
            for key, value in arguments["kwargs"].items()
            if value is not None and key != "training"
        }
        site.inputs = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, Signal)]
        if name in teacher.nested:
            return self._nested(site, teacher.nested[name], args)
        outputs = apply(site, args, kwargs)
        if is_in(path, self._keep):
            self._fix(site, outputs)
        weights = getattr(layer, "weights", [])
        whole = [[None] * len(weight.shape) for weight in weights]
        self.layers[path] = LayerWidths(path, layer, site.weights or whole, site.edits)
        return outputs

    def _nested(self, site, inner, args):
        given = [x for x in keras.tree.flatten(args) if isinstance(x, Signal)]
        is_dict = isinstance(inner.input_structure, dict)
        if len(given) != len(inner.inputs) or is_dict != isinstance(args[0], dict):
            site.opaque("its inputs are given in another structure than it has")
            given = [Signal(shape, (None,) * len(shape)) for shape in _input_shapes(inner)]
        if is_in(site.path, self._keep):
            self._fix(site, [])
        return self._walk(inner, [signal.axes for signal in given])

    def _fix(self, site, outputs):
        own = [(unit,) for (path, _), unit in self.units.items() if path == site.path]
        of_outputs = [axis for axes in outputs for axis in axes or ()]
        obstacles = [x.axes for x in self.obstacles if x.path == site.path]
        for axis in [*own, *of_outputs, *(axis for axes in obstacles for axis in axes)]:
            channels.fix(axis)

    def check(self, choice):
        """Raises where a layer that cannot be narrowed would be."""
        stopped = {}
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


def is_in(path, names):
    """Whether a layer, or a model it is nested in, is called by one of these names or paths."""
    parts = path.split("/")
    above = ["/".join(parts[:i]) for i in range(1, len(parts) + 1)]
    return any(one == name or one.endswith("/" + name) for one in above for name in names)


# Which rule narrows a layer: chosen by its exact type, since a subclass may do anything.


RULES: dict = {
    **weight_rules.RULES,
    **weight_rules.RECURRENT_RULES,
    **shape_rules.MERGE_RULES,
    **shape_rules.RULES,
}


def apply(site, args, kwargs):
    """The axes of each of a call's outputs, or `None` where they are the teacher's.

    Args:
        site: The `Site` of the layer; the rule sets its `weights` and `edits`.
        args: Arguments of the call, with `Signal`s for tensors.
        kwargs: As `args`.
    """
    rule = RULES.get(type(site.layer)) or shape_rules.rule_of(site.layer)
    if rule is None:
        site.opaque("keras_kd has no rule for its type")
        return []
    try:
        inspect.signature(rule).bind(site, *args, **kwargs)
    except TypeError:
        site.opaque("it is called with arguments that its rule does not know")
        return []
    outputs = rule(site, *args, **kwargs)
    if outputs is not None and not _fits(site):
        site.opaque("its weights are not those of its type (it may be quantized or have LoRA)")
        return []
    return outputs or []


def _fits(site):
    """Whether the axes that a rule gave for the weights have the weights' sizes."""
    weights = getattr(site.layer, "weights", [])
    if len(weights) != len(site.weights):
        return False
    return all(
        len(weight.shape) == len(axes)
        and all(_has_size(axis, size) for axis, size in zip(axes, weight.shape, strict=True))
        for weight, axes in zip(weights, site.weights, strict=True)
    )


def _has_size(axis, size):
    axis = axis.axis if isinstance(axis, channels.Summed) else axis
    return axis is None or channels.size(axis) == size


# Weights: the teacher's, cut to the student's channels.


def narrowed(value, axes, choice):
    """A teacher's weight as the student's.

    Args:
        value: NumPy array.
        axes: For each of its axes the channels along it; `Summed` where the channels that become
            one are added up, because the layer reads them, instead of averaged.
        choice: The `Choice` of channels.

    Returns:
        An array of the same dtype.
    """
    dtype = value.dtype
    for i, axis in enumerate(axes):
        is_summed = isinstance(axis, Summed)
        axis = axis.axis if is_summed else axis
        if choice.narrows(axis):
            value = _along(value, i, choice.channels(axis), is_summed)
    return value.astype(dtype, copy=False)


def _along(value, axis, channels, is_summed):
    """`channels` has for each channel its new number, or -1."""
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


def narrowed_shape(shape, axes, choice):
    """The shape of `narrowed`."""
    axes = [axis.axis if isinstance(axis, Summed) else axis for axis in axes]
    return tuple(
        choice.size(axis) if choice.narrows(axis) else size
        for size, axis in zip(shape, axes, strict=True)
    )


def copy(student, plan, choice):
    """Gives a student's layer the weights of its teacher's.

    Args:
        student: The model.
        plan: The `LayerWidths` of the layer.
        choice: The `Choice` of channels.
    """
    layer = layer_at(student, plan.path)
    values = [
        narrowed(keras.ops.convert_to_numpy(weight), axes, choice)
        for weight, axes in zip(plan.layer.weights, plan.weights, strict=True)
    ]
    layer.set_weights(values)
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()


def check(student, plan, choice):
    """Raises unless a student's layer has the shapes that were planned."""
    layer = layer_at(student, plan.path)
    expected = shapes(plan, choice)
    received = [tuple(weight.shape) for weight in layer.weights]
    if expected != received:
        raise ValueError(
            f"Layer {plan.path!r} ({type(layer).__name__}) of the student has weights of shapes "
            f"{received}, expected were {expected}: it computes its width in a way that keras_kd "
            f"does not foresee. Keep it with keep=[{plan.path!r}], or pass width=1.0."
        )


def shapes(plan, choice):
    """The shapes of the student's weights."""
    return [
        narrowed_shape(weight.shape, axes, choice)
        for weight, axes in zip(plan.layer.weights, plan.weights, strict=True)
    ]


def layer_at(model, path):
    """The layer at a path of names."""
    for name in path.split("/"):
        model = model.get_layer(name)
    return model
