"""What TensorFlow's graphs and `.tflite` files have in common: nodes, and values between them."""

import collections
import dataclasses
import re
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_kd.measurement import multiply_adds
from keras_kd.runtimes import tflite


@dataclasses.dataclass(frozen=True)
class Node:
    """An operation.

    Attributes:
        kind: Its name in lower case without underscores, such as `"logicaland"`.
        label: Its kind and name as a user knows them.
        inputs: Names of values; `None` for one that is left out.
        outputs: Likewise.
        macs: Its multiply-accumulates; `None` where it has some that are not known.
        loop: `(condition, body)`, names of graphs, of a loop.
        branches: Names of graphs of which one runs, or of the only one that does.
    """

    kind: str
    label: str
    inputs: list
    outputs: list
    macs: int | None = 0
    loop: tuple = ()
    branches: tuple = ()


@dataclasses.dataclass(frozen=True)
class Graph:
    """Operations in an order in which they can run.

    Attributes:
        inputs: Names of values.
        outputs: Likewise.
        nodes: A list of `Node`.
        constant: A function from the name of a value to its array, or `None` if it is no constant.
    """

    inputs: list
    outputs: list
    nodes: list
    constant: Callable[[str], np.ndarray | None]

    def producers(self):
        """`{value: the node that makes it}`."""
        return {output: node for node in self.nodes for output in node.outputs}

    def needed(self):
        """The nodes on which the outputs depend, in order."""
        producers, found = self.producers(), set()
        waiting = [producers[value] for value in self.outputs if value in producers]
        while waiting:
            node = waiting.pop()
            if id(node) not in found:
                found.add(id(node))
                waiting += [producers[value] for value in node.inputs if value in producers]
        return [node for node in self.nodes if id(node) in found]


# Names of graphs to `Graph`s. The main one is called MAIN.
Program = dict[str, Graph]
MAIN = ""


# Counts the multiply-accumulates of a program.


def count(program):
    """The multiply-accumulates of one run, and what is not in them.

    Returns:
        `(macs, notes)`: a whole number, and a list of sentences about operations that multiply
        and could not be counted.
    """
    counter = _Counter(program)
    macs = counter.of(MAIN)
    return macs, counter.notes()


class _Counter:
    def __init__(self, program):
        self._program = program
        self._missed = collections.Counter()
        self._notes = []

    def of(self, name):
        graph = self._program[name]
        return sum(self._node(graph, node) for node in graph.needed())

    def _node(self, graph, node):
        if node.loop:
            return self._loop(graph, node)
        if node.branches:
            return self._branches(node)
        if node.macs is None:
            self._missed[node.label] += 1
        return node.macs or 0

    def _loop(self, graph, node):
        once = sum(self.of(name) for name in node.loop)
        steps = loop_steps(self._program, graph, node)
        if steps is not None:
            return once * steps
        if once:
            self._notes.append(
                f"macs: the loop {node.label} does not tell how many steps it makes; its body is "
                "counted once."
            )
        return once

    def _branches(self, node):
        macs = [self.of(name) for name in node.branches]
        if len(set(macs)) > 1:
            self._notes.append(
                f"macs: of the branches of {node.label} the largest is counted: {macs}."
            )
        return max(macs)

    def notes(self):
        missed = [f"{label} ({times})" for label, times in sorted(self._missed.items())]
        if missed:
            self._notes.append(
                "macs: not counted, though they multiply: " + ", ".join(missed) + "."
            )
        return list(dict.fromkeys(self._notes))


# How often a loop runs, where that is written in its graph.
#
# Both TensorFlow and LiteRT keep a recurrent layer as a loop whose condition compares a counter
# with the number of time steps. The few scalars that lead to the condition are computed here;
# everything else of the body is left alone.


# A loop of more steps is taken for one that never ends.
MOST_STEPS = 100_000

_OPERATIONS: dict[str, Callable] = {
    "add": np.add,
    "addv2": np.add,
    "cast": lambda x: x,
    "equal": np.equal,
    "greater": np.greater,
    "greaterequal": np.greater_equal,
    "identity": lambda x: x,
    "less": np.less,
    "lessequal": np.less_equal,
    "logicaland": np.logical_and,
    "logicalnot": np.logical_not,
    "logicalor": np.logical_or,
    "max": lambda x, axes: np.max(x, axis=tuple(np.ravel(axes))),
    "maximum": np.maximum,
    "minimum": np.minimum,
    "mul": np.multiply,
    "notequal": np.not_equal,
    "range": np.arange,
    "sub": np.subtract,
}


def loop_steps(program, graph, node):
    """How often the body of a loop runs; `None` where its graph does not tell.

    Args:
        program: All graphs.
        graph: The one that the loop is in.
        node: The loop.
    """
    condition, body = (program[name] for name in node.loop)
    state = Values(graph, {}).of(node.inputs)
    for step in range(MOST_STEPS):
        goes_on = Values(condition, _known(condition.inputs, state)).one(condition.outputs[0])
        if goes_on is None:
            return None
        if not goes_on:
            return step
        values = Values(body, _known(body.inputs, state))
        # A value that was not known will not be: nothing of the layer itself is computed.
        wanted = [
            None if old is None else new for new, old in zip(body.outputs, state, strict=True)
        ]
        state = values.of(wanted)
    return None


def _known(names, values):
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


class Values:
    """Values of a graph, as far as they follow from its constants and from some inputs."""

    def __init__(self, graph, inputs):
        self._graph, self._found = graph, dict(inputs)
        self._producers = graph.producers()

    def of(self, names):
        """A list of arrays, with `None` for values that are not known."""
        return [None if name is None else self.one(name) for name in names]

    def one(self, name):
        """The array of a value, or `None`."""
        if name not in self._found:
            self._found[name] = self._computed(name)
        return self._found[name]

    def _computed(self, name):
        node = self._producers.get(name)
        if node is None or node.kind not in _OPERATIONS:
            return self._graph.constant(name)
        inputs = self.of(node.inputs)
        if node.kind == "logicaland" and any(x is not None and not np.any(x) for x in inputs):
            return np.False_
        if any(x is None for x in inputs):
            return None
        return _OPERATIONS[node.kind](*inputs)


# A Keras model's graph as a program: every operation that it runs, whatever layer made it.


# Functions whose name of an output does not say which of all outputs it is.
_OUTPUT_PLACES = {
    "FusedBatchNormV3": ["y", "batch_mean", "batch_variance"],
    "TensorListPopBack": ["output_handle", "tensor"],
    "TopKV2": ["values", "indices"],
}
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_KERAS_BRANCHES = {
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
}
# Largest constant that can have to do with the number of steps of a loop.
_LARGEST = 10_000


def read_keras(model, inputs):
    """The program that a model runs in inference.

    Args:
        model: A Keras model.
        inputs: Inputs of one row, arrays in their structure.
    """
    specs = keras.tree.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), inputs)
    forward = tf.function(lambda x: model(x, training=False), autograph=False)
    concrete = forward.get_concrete_function(specs)
    definition = concrete.graph.as_graph_def(add_shapes=True)
    outputs = [_main_name(x.name) for x in concrete.outputs]
    found: Program = {MAIN: _graph(definition.node, [], {}, outputs, _main_name)}
    for function in definition.library.function:
        found[function.signature.name] = _function(function)
    return found


def _main_name(reference):
    name, _, index = reference.partition(":")
    return f"{name}:{index or 0}"


def _function(function):
    arguments = [each.name for each in function.signature.input_arg]
    outputs = [function.ret[each.name] for each in function.signature.output_arg]
    kinds = {node.name: node.op for node in function.node_def}
    shapes = [_shape(x) for x in function.attr["_input_shapes"].list.shape]
    known = dict(zip(arguments, shapes, strict=False))

    def name(reference):
        return _name_in_function(reference, kinds)

    return _graph(function.node_def, arguments, known, [name(x) for x in outputs], name)


def _name_in_function(reference, kinds):
    """From `node:output:index` to `node:number`; an argument keeps its name."""
    node, *rest = reference.split(":")
    if not rest:
        return node
    output, index = rest
    places = _OUTPUT_PLACES.get(kinds[node], [output])
    place = places.index(output) if output in places else "?"
    return f"{node}:{place if places != [output] else index}"


def _graph(nodes, arguments, shapes, outputs, name_of):
    shapes = dict(shapes)
    for node in nodes:
        for index, shape in enumerate(node.attr["_output_shapes"].list.shape):
            shapes[f"{node.name}:{index}"] = _shape(shape)
    made = shapes | _uncropped(nodes, shapes, name_of)
    constants = {f"{node.name}:0": node for node in nodes if node.op == "Const"}

    def constant(name):
        node = constants.get(name)
        if node is None or np.prod(shapes.get(name) or ()) > _LARGEST:
            return None
        return tf.make_ndarray(node.attr["value"].tensor)

    return Graph(
        arguments, outputs, [_keras_node(x, shapes, made, name_of) for x in nodes], constant
    )


def _uncropped(nodes, shapes, name_of):
    """Shapes of what dilated convolutions mean to make.

    TensorFlow cuts their input into the batch, pads it to fit, convolves, and puts it together
    again without what the padding gave: `BatchToSpaceND(Squeeze(Conv2D(...)))`.
    """
    first = {f"{x.name}:0": name_of(x.input[0]) for x in nodes if x.op == "Squeeze"}
    found = {}
    for node in nodes:
        if node.op == "BatchToSpaceND":
            source = name_of(node.input[0])
            found[first.get(source, source)] = shapes.get(f"{node.name}:0")
    return found


def _keras_node(node, shapes, made_shapes, name_of):
    inputs = [name_of(x) for x in node.input if not x.startswith("^")]
    outputs = [f"{node.name}:{i}" for i in range(len(node.attr["_output_shapes"].list.shape))]
    outputs = outputs or [f"{node.name}:0"]
    loop, branches = _called_by_node(node)
    given, made = [shapes.get(x) for x in inputs], [made_shapes.get(x) for x in outputs]
    macs = 0 if loop or branches else multiply_adds.of_tensorflow_node(node, given, made)
    kind = re.sub("_", "", node.op).lower()
    label = f"{node.op} {node.name}" if loop or branches else node.op
    return Node(kind, label, inputs, outputs, macs, loop, branches)


def _called_by_node(node):
    """Names of the graphs of a loop, and of those of which one runs."""
    if node.op in ("While", "StatelessWhile"):
        return (node.attr["cond"].func.name, node.attr["body"].func.name), ()
    if node.op in _CALLS:
        return (), (node.attr["f"].func.name,)
    if node.op in _KERAS_BRANCHES:
        return (), tuple(node.attr[key].func.name for key in _KERAS_BRANCHES[node.op])
    if node.op in ("Case", "StatelessCase"):
        return (), tuple(each.name for each in node.attr["branches"].list.func)
    return (), ()


def _shape(proto):
    """Its sizes, or `None` where one is not known."""
    sizes = tuple(dim.size for dim in proto.dim)
    return None if proto.unknown_rank or any(size < 0 for size in sizes) else sizes


# A `.tflite` file's graphs as a program, with the shapes of a real run.


_LOOPS = ("condSubgraphIndex", "bodySubgraphIndex")
_TFLITE_BRANCHES = ("thenSubgraphIndex", "elseSubgraphIndex")
_CALLED = {"CALL": "subgraph", "STABLEHLO_COMPOSITE": "decompositionSubgraphIndex"}


def read_tflite(model, shapes):
    """The program of a file.

    Args:
        model: LiteRT's `ModelT`.
        shapes: For each graph `{index of a tensor: its shape}`, as of `tflite_shapes.read`.
    """
    found: Program = {}
    for index, graph in enumerate(model.subgraphs):
        found[_name(index)] = Graph(
            _values(graph.inputs),
            _values(graph.outputs),
            [_tflite_node(model, each, shapes[index]) for each in graph.operators or []],
            _constants(model, graph),
        )
    return found


def _name(index):
    return MAIN if index == 0 else str(index)


def _values(indices):
    return [None if i < 0 else str(i) for i in tflite.indices(indices)]


def _tflite_node(model, operator, shapes):
    name = tflite.operator_name(model, operator)
    inputs, outputs = _values(operator.inputs), _values(operator.outputs)
    loop, branches = _called_by_operator(name, operator)
    given = [None if i is None else shapes.get(int(i)) for i in inputs]
    made = [shapes.get(int(i)) for i in outputs]
    options = operator.builtinOptions
    macs = 0 if loop or branches else multiply_adds.of_tflite_operator(name, given, made, options)
    label = f"{name} {outputs[0]}" if loop or branches else name
    return Node(name.replace("_", "").lower(), label, inputs, outputs, macs, loop, branches)


def _called_by_operator(name, operator):
    """Names of the graphs of a loop, and of those of which one runs."""
    if name == "WHILE":
        return tuple(_name(getattr(operator.builtinOptions, key)) for key in _LOOPS), ()
    if name == "IF":
        return (), tuple(_name(getattr(operator.builtinOptions, key)) for key in _TFLITE_BRANCHES)
    if name in _CALLED:
        options = operator.builtinOptions or operator.builtinOptions2
        return (), (_name(getattr(options, _CALLED[name])),)
    return (), ()


def _constants(model, graph):
    def constant(name):
        tensor = graph.tensors[int(name)]
        data, kind = model.buffers[tensor.buffer].data, tflite.type_name(tensor)
        if data is None or len(data) == 0 or kind not in ("int32", "int64", "float32", "bool"):
            return None
        return np.frombuffer(bytes(data), kind).reshape(tflite.shape(tensor))

    return constant
