"""A Keras model's graph as a program: every operation that it runs, whatever layer made it.

Also the multiply-adds of TensorFlow's operations, from the shapes of their inputs and outputs.
"""

import math
import re
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_kd.runtimes.program import MAIN, Graph, Node, Program

# Functions that name an output without its place among all outputs.
_OUTPUT_PLACES = {
    "FusedBatchNormV3": ["y", "batch_mean", "batch_variance"],
    "TensorListPopBack": ["output_handle", "tensor"],
    "TopKV2": ["values", "indices"],
}
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_BRANCHES = {
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
}
# Largest constant that can have to do with the number of steps of a loop.
_LARGEST = 10_000


def read_keras(model: keras.Model, inputs: Any) -> Program:
    """The program that a model runs in inference.

    Args:
        model: A Keras model.
        inputs: Inputs of one sample, arrays in their structure.
    """
    return program_of(trace(model, inputs))


def trace(model: keras.Model, inputs: Any) -> Any:
    """TensorFlow's graph function of a model in inference; see `read_keras`."""
    specs = keras.tree.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), inputs)
    forward = tf.function(lambda x: model(x, training=False), autograph=False)
    return forward.get_concrete_function(specs)


def program_of(concrete: Any) -> Program:
    """The program that a graph function runs."""
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
    loop, branches = _called_by_node(node)
    given, made = [shapes.get(x) for x in inputs], [made_shapes.get(x) for x in outputs]
    macs = 0 if loop or branches else count_multiply_adds(node, given, made)
    kind = re.sub("_", "", node.op).lower()
    label = f"{node.op} {node.name}" if loop or branches else node.op
    return Node(kind, label, inputs, outputs, macs, loop, branches)


def _called_by_node(node):
    """Names of the graphs of a loop, and of those that are branches."""
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


# Multiply-adds of TensorFlow's operations, from the shapes of their inputs and outputs.

# Operations that multiply matrices, or may, by any of their names in TensorFlow.
_MULTIPLIES = re.compile(
    "MatMul|Conv[123]D|Conv2d|ConvV2|Einsum|RNN|LSTM|GRU|Dot|FFT|Cholesky|MatrixSolve|"
    "TriangularSolve|MatrixInverse|Svd|^Qr|Eig|PyFunc|XlaCallModule"
)


def count_multiply_adds(node: Any, inputs: list[Any], outputs: list[Any]) -> int | None:
    """The multiply-accumulates of a node.

    Args:
        node: A `NodeDef`.
        inputs: Shapes, `None` where they are not known.
        outputs: Shapes, `None` where they are not known.

    Returns:
        A whole number; `None` if the node multiplies and cannot be counted.
    """
    if node.op in _FORMULAS:
        return _FORMULAS[node.op](node, inputs, outputs)
    return None if _MULTIPLIES.search(node.op) else 0


def _matmul(node, inputs, outputs):
    """Rows times columns times the dimension that is summed."""
    transposed = [node.attr[key].b for key in _TRANSPOSED[node.op]]
    summed = None
    for shape, at_end, flag in zip(inputs, (True, False), transposed, strict=True):
        if shape is not None:
            summed = shape[-1 if at_end != flag else -2]
    return None if summed is None or outputs[0] is None else math.prod(outputs[0]) * summed


_TRANSPOSED = {
    "MatMul": ("transpose_a", "transpose_b"),
    "BatchMatMul": ("adj_x", "adj_y"),
    "BatchMatMulV2": ("adj_x", "adj_y"),
    "BatchMatMulV3": ("adj_x", "adj_y"),
}


def _einsum(node, inputs, outputs):
    """The product of the sizes of all letters."""
    if len(inputs) == 1:
        return 0
    if None in inputs:
        return None
    equation = node.attr["equation"].s.decode()
    sizes: dict = {}
    for term, shape in zip(equation.split("->")[0].split(","), inputs, strict=True):
        sizes |= _letters(term, shape)
    return math.prod(sizes.values())


def _letters(term, shape):
    """`{letter: size}` of one operand; dimensions of `...` count from its end."""
    before, dots, after = term.partition("...")
    spread = len(shape) - len(before) - len(after) if dots else 0
    names = [*before, *(f"...{spread - i}" for i in range(spread)), *after]
    return dict(zip(names, shape, strict=True))


def _convolution(node, inputs, outputs):
    """Each output sums over the kernel and the channels of its group."""
    kernel = inputs[1]
    if kernel is None or outputs[0] is None:
        return None
    return math.prod(outputs[0]) * math.prod(kernel[:-1])


def _depthwise(node, inputs, outputs):
    """Each output sums over the kernel."""
    kernel = inputs[1]
    if kernel is None or outputs[0] is None:
        return None
    return math.prod(outputs[0]) * math.prod(kernel[:2])


def _transposed(node, inputs, outputs):
    """Each input is spread over the kernel `[..., out, in]`; inputs: shape, kernel, values."""
    kernel, values = inputs[1:]
    if kernel is None or values is None:
        return None
    return math.prod(values) * math.prod(kernel[:-1])


_FORMULAS = {
    "MatMul": _matmul,
    "BatchMatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "BatchMatMulV3": _matmul,
    "Einsum": _einsum,
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "Conv2DBackpropInput": _transposed,
    "Conv3DBackpropInputV2": _transposed,
}
