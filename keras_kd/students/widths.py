"""Widths: the channels that each layer reads and makes, by the rules of its type."""

from typing import Any, NamedTuple

import keras

from keras_kd.students import channels, graph, rules
from keras_kd.students.channels import Signal


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
        outputs = rules.apply(site, args, kwargs)
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
