"""ONNX files by hand, of kinds that exporters write."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def held(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def constant(name, **attribute):
    return helper.make_node("Constant", [], [name], **attribute)


def saved(path, nodes, inputs, outputs, initializers=(), functions=(), sparse=(), **options):
    """Writes a file of a graph."""
    graph = helper.make_graph(
        nodes, "graph", inputs, outputs, list(initializers), sparse_initializer=list(sparse)
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))
    onnx.save(model, path, **options)
    return path


def recurrent(path, batch="batch", state=(2, "batch", 3), scalar=True):
    """`said = (x + sum of the state over its layers) * rate`, and `next`, `[2, rows, 3]`."""
    nodes = [
        helper.make_node("ReduceSum", ["state", "first"], ["summed"], keepdims=0),
        helper.make_node("Add", ["x", "summed"], ["moved"]),
        helper.make_node("Cast", ["rate"], ["real"], to=FLOAT),
        helper.make_node("Mul", ["moved", "real"], ["said"]),
        helper.make_node("Add", ["state", "x"], ["next"]),
    ]
    inputs = [
        value("x", [batch, 3]),
        value("state", list(state)),
        value("rate", [] if scalar else [1], INT64),
    ]
    outputs = [value("said", [batch, 3]), value("next", [2, batch, 3])]
    return saved(path, nodes, inputs, outputs, [held("first", np.int64([0]))])


def convolution(path, size=("rows", 3, "height", "width")):
    """A convolution of images with channels first: `maps`, and their means, `pooled`."""
    kernel = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype("float32")
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["maps"], ["pooled"], axes=[2, 3], keepdims=0),
    ]
    outputs = [value("maps", [size[0], 4, *size[2:]]), value("pooled", [size[0], 4])]
    saved(path, nodes, [value("x", list(size))], outputs, [held("kernel", kernel)])
    return kernel


def ending(path, *nodes, more=()):
    """A file that multiplies by a matrix and ends in some nodes, from `z` to `y`."""
    kernel = np.random.default_rng(0).normal(size=(4, 4)).astype("float32")
    first = helper.make_node("MatMul", ["x", "kernel"], ["z"])
    return saved(
        path,
        [first, *nodes],
        [value("x", ["rows", 4])],
        [value("y", None)],
        [held("kernel", kernel), *more],
    )
