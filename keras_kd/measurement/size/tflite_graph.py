"""A `.tflite` file's graphs as a program, with the shapes of a real run."""

import numpy as np

from keras_kd.measurement.runtimes import tflite_format
from keras_kd.measurement.size import tflite_macs
from keras_kd.measurement.size.program import MAIN, Graph, Node, Program

_LOOPS = ("condSubgraphIndex", "bodySubgraphIndex")
_BRANCHES = ("thenSubgraphIndex", "elseSubgraphIndex")
_CALLED = {"CALL": "subgraph", "STABLEHLO_COMPOSITE": "decompositionSubgraphIndex"}


def read(model, shapes):
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
            [_node(model, each, shapes[index]) for each in graph.operators or []],
            _constants(model, graph),
        )
    return found


def _name(index):
    return MAIN if index == 0 else str(index)


def _values(indices):
    return [None if i < 0 else str(i) for i in tflite_format.indices(indices)]


def _node(model, operator, shapes):
    name = tflite_format.operator_name(model, operator)
    inputs, outputs = _values(operator.inputs), _values(operator.outputs)
    loop, branches = _called(name, operator)
    given = [None if i is None else shapes.get(int(i)) for i in inputs]
    made = [shapes.get(int(i)) for i in outputs]
    options = operator.builtinOptions
    macs = 0 if loop or branches else tflite_macs.of(name, given, made, options)
    label = f"{name} {outputs[0]}" if loop or branches else name
    return Node(name.replace("_", "").lower(), label, inputs, outputs, macs, loop, branches)


def _called(name, operator):
    """Names of the graphs of a loop, and of those of which one runs."""
    if name == "WHILE":
        return tuple(_name(getattr(operator.builtinOptions, key)) for key in _LOOPS), ()
    if name == "IF":
        return (), tuple(_name(getattr(operator.builtinOptions, key)) for key in _BRANCHES)
    if name in _CALLED:
        options = operator.builtinOptions or operator.builtinOptions2
        return (), (_name(getattr(options, _CALLED[name])),)
    return (), ()


def _constants(model, graph):
    def constant(name):
        tensor = graph.tensors[int(name)]
        data, kind = model.buffers[tensor.buffer].data, tflite_format.type_name(tensor)
        if data is None or len(data) == 0 or kind not in ("int32", "int64", "float32", "bool"):
            return None
        return np.frombuffer(bytes(data), kind).reshape(tflite_format.shape(tensor))

    return constant
