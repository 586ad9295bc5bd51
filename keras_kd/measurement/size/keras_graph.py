"""A Keras model's graph as a program: every operation that it runs, whatever layer made it."""

import re

import keras
import numpy as np
import tensorflow as tf

from keras_kd.measurement.size import tensorflow_macs
from keras_kd.measurement.size.program import MAIN, Graph, Node, Program

# Functions whose name of an output does not say which of all outputs it is.
_OUTPUT_PLACES = {
    "FusedBatchNormV3": ["y", "batch_mean", "batch_variance"],
    "TensorListPopBack": ["output_handle", "tensor"],
    "TopKV2": ["values", "indices"],
}
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_BRANCHES = {"If": ("then_branch", "else_branch"), "StatelessIf": ("then_branch", "else_branch")}
# Largest constant that can have to do with the number of steps of a loop.
_LARGEST = 10_000


def read(model, inputs):
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

    return Graph(arguments, outputs, [_node(x, shapes, made, name_of) for x in nodes], constant)


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


def _node(node, shapes, made_shapes, name_of):
    inputs = [name_of(x) for x in node.input if not x.startswith("^")]
    outputs = [f"{node.name}:{i}" for i in range(len(node.attr["_output_shapes"].list.shape))]
    outputs = outputs or [f"{node.name}:0"]
    loop, branches = _called(node)
    given, made = [shapes.get(x) for x in inputs], [made_shapes.get(x) for x in outputs]
    macs = 0 if loop or branches else tensorflow_macs.of(node, given, made)
    kind = re.sub("_", "", node.op).lower()
    label = f"{node.op} {node.name}" if loop or branches else node.op
    return Node(kind, label, inputs, outputs, macs, loop, branches)


def _called(node):
    """Names of the graphs of a loop, and of those of which one runs."""
    if node.op in ("While", "StatelessWhile"):
        return (node.attr["cond"].func.name, node.attr["body"].func.name), ()
    if node.op in _CALLS:
        return (), (node.attr["f"].func.name,)
    if node.op in _BRANCHES:
        return (), tuple(node.attr[key].func.name for key in _BRANCHES[node.op])
    if node.op in ("Case", "StatelessCase"):
        return (), tuple(each.name for each in node.attr["branches"].list.func)
    return (), ()


def _shape(proto):
    """Its sizes, or `None` where one is not known."""
    sizes = tuple(dim.size for dim in proto.dim)
    return None if proto.unknown_rank or any(size < 0 for size in sizes) else sizes
