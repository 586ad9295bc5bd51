"""Reads the graphs of an `.onnx` file: its nodes, and the tensors that it holds."""

import dataclasses
import os
from typing import Any

from keras_kd.measurement.runtimes import last_operator
from keras_kd.teachers import host

# Which inputs of the operators of quantized models are values; the others scale or shift them.
_QUANTIZED = {
    "ConvInteger": (0, 1),
    "DequantizeLinear": (0,),
    "MatMulInteger": (0, 1),
    "QGemm": (0, 3, 6),
    "QLinearConv": (0, 3, 8),
    "QLinearMatMul": (0, 3),
    "QuantizeLinear": (0,),
}


def parsed(path):
    """The file as `onnx.ModelProto`; data that lies in other files is not read."""
    onnx = host.needs("onnx", "Reading the graph of an .onnx file", "onnx")
    return onnx.load(path, load_external_data=False)


@dataclasses.dataclass
class Held:
    """A tensor that a file holds.

    Attributes:
        dims: Its sizes; of a sparse tensor, those with its zeros.
        data_type: Of `onnx.TensorProto`.
        tensor: The `onnx.TensorProto`, or `None` where the node has the numbers themselves.
        is_value: Whether an operator of a quantized model reads it as a value.
        is_scale: Whether one does as a scale or zero point.
    """

    dims: tuple
    data_type: int
    tensor: Any = None
    is_value: bool = False
    is_scale: bool = False


def held(model):
    """A `Held` for each tensor: initializers, constants, those of inner graphs and functions."""
    found = _of_graph(model.graph)
    for function in model.functions:
        found += _of_nodes(function.node, *_roles(function.node))
    return found


def inner_graphs(node):
    """The graphs that a node runs: branches and bodies of loops."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _of_graph(graph):
    values, scales = _roles(graph.node)

    def made(tensor, name):
        return _made(tensor, name in values, name in scales)

    found = [made(each, each.name) for each in graph.initializer]
    found += [
        dataclasses.replace(made(each.values, each.values.name), dims=tuple(each.dims))
        for each in graph.sparse_initializer
    ]
    return found + _of_nodes(graph.node, values, scales)


def _of_nodes(nodes, values, scales):
    found = []
    for node in nodes:
        name = node.output[0] if node.output else ""
        if node.op_type == "Constant":
            found += [
                dataclasses.replace(x, is_value=name in values, is_scale=name in scales)
                for attribute in node.attribute
                for x in _of_attribute(attribute)
            ]
        elif node.domain == "ai.onnx.ml":  # coefficients, leaves of trees
            found += [Held((len(x.floats),), 1) for x in node.attribute if x.floats]
            found += [_made(x.t) for x in node.attribute if x.HasField("t")]
        for graph in inner_graphs(node):
            found += _of_graph(graph)
    return found


def _of_attribute(attribute):
    if attribute.name == "value":
        return [_made(attribute.t)]
    if attribute.name == "sparse_value":
        sparse = attribute.sparse_tensor
        return [dataclasses.replace(_made(sparse.values), dims=tuple(sparse.dims))]
    if attribute.name == "value_float":
        return [Held((), 1)]
    if attribute.name == "value_floats":
        return [Held((len(attribute.floats),), 1)]
    return []  # whole numbers and texts are no weights


def _made(tensor, is_value=False, is_scale=False):
    return Held(tuple(tensor.dims), tensor.data_type, tensor, is_value, is_scale)


def _roles(nodes):
    """Names of what quantized operators read as values, and as scales, inner graphs included."""
    values, scales = set(), set()
    for node in nodes:
        for index, name in enumerate(node.input):
            if name and node.op_type in _QUANTIZED:
                (values if index in _QUANTIZED[node.op_type] else scales).add(name)
        for graph in inner_graphs(node):
            inner = _roles(graph.node)
            values |= inner[0]
            scales |= inner[1]
    return values, scales


def files(path):
    """The file, and those beside it that hold data of its tensors."""
    locations = {
        entry.value
        for each in held(parsed(path))
        if each.tensor is not None
        for entry in each.tensor.external_data
        if entry.key == "location"
    }
    folder = os.path.dirname(os.path.abspath(path))
    return [path, *(os.path.join(folder, each) for each in sorted(locations))]


def steps(graph, outer=None):
    """`{name of a tensor: the Step that makes it}`."""
    found = dict(outer or {})
    for node in graph.node:
        branches = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        is_choice = node.op_type == "If"
        for index, name in enumerate(node.output):
            found[name] = last_operator.Step(
                node.op_type,
                list(node.input),
                [(steps(x, found), x.output[index].name) for x in branches] if is_choice else [],
            )
    return found
