"""Operators that ai-edge-quantizer leaves in float although LiteRT has integer kernels for them.

    int8 -> DEQUANTIZE -> float -> TILE -> float -> QUANTIZE -> int8

becomes the operator alone, on integers.
"""

import copy

import numpy as np

from keras_kd.export import packing
from keras_kd.measurement.runtimes import tflite_format

# Those that keep the scale of their input, and those that have one of their own for their output.
_KEEPING = ("TILE", "REDUCE_MAX")
_OWN = ("LEAKY_RELU", "ELU", "RELU6", "ABS")
_FLOAT = "_float"
# The versions of the operators from which on they have int8; others than 1.
_VERSIONS = dict.fromkeys((*_KEEPING, "LEAKY_RELU", "RELU6", "ABS"), 2)


def used(content):
    """The bytes of an int8 file in which these operators compute with integers."""
    model = packing.unpacked(content)
    graph = model.subgraphs[0]
    names = {tflite_format.operator_name(model, each) for each in graph.operators or []}
    if not names.intersection((*_KEEPING, *_OWN)):
        return content
    changed = [operator for operator in [*graph.operators] if _changed(model, graph, operator)]
    if not changed:
        return content
    read = {i for operator in graph.operators for i in tflite_format.indices(operator.inputs)}
    read |= set(tflite_format.indices(graph.outputs))
    graph.operators = [
        operator
        for operator in graph.operators
        if read.intersection(tflite_format.indices(operator.outputs))
    ]
    for operator in changed:
        code = model.operatorCodes[operator.opcodeIndex]
        name = tflite_format.operator_name(model, operator)
        code.version = max(code.version, _VERSIONS.get(name, 1))
    return packing.packed(model, len(content))


def _changed(model, graph, operator):
    """Whether an operator was made one on integers."""
    name = tflite_format.operator_name(model, operator)
    if name not in (*_KEEPING, *_OWN):
        return False
    inputs, (result,) = (
        tflite_format.indices(operator.inputs),
        tflite_format.indices(operator.outputs),
    )
    makers = [x for x in graph.operators if inputs[0] in tflite_format.indices(x.outputs)]
    readers = [x for x in graph.operators if result in tflite_format.indices(x.inputs)]
    is_between = (
        [tflite_format.operator_name(model, x) for x in makers] == ["DEQUANTIZE"]
        and {tflite_format.operator_name(model, x) for x in readers} == {"QUANTIZE"}
        and result not in tflite_format.indices(graph.outputs)
    )
    if not is_between:
        return False
    source = tflite_format.indices(makers[0].inputs)[0]
    targets = [tflite_format.indices(x.outputs)[0] for x in readers]
    if not all(_is_int8(graph.tensors[i]) for i in (source, *targets)):
        return False
    label = tflite_format.text(graph.tensors[result].name)
    if name in _OWN:
        made, rest = targets[0], readers[1:]
        graph.operators.remove(readers[0])
    else:
        made, rest = _like(graph, result, source), readers
    graph.tensors[result].name = label + _FLOAT
    graph.tensors[made].name = label
    for reader in rest:
        reader.inputs = [made]
    operator.inputs, operator.outputs = [source, *inputs[1:]], [made]
    _without_equals(graph, made, rest)
    return True


def _is_int8(tensor):
    quantization = tensor.quantization
    return (
        tflite_format.type_name(tensor) == "int8"
        and quantization is not None
        and quantization.scale is not None
        and len(quantization.scale) == 1
    )


def _like(graph, index, source):
    """The index of a new tensor of the shape of one and the numbers of another."""
    tensor = copy.copy(graph.tensors[index])
    tensor.type = graph.tensors[source].type
    tensor.quantization = copy.copy(graph.tensors[source].quantization)
    tensor.buffer = 0
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _without_equals(graph, made, readers):
    """Takes out operators that bring integers to the scale that they have."""
    for reader in readers:
        (target,) = tflite_format.indices(reader.outputs)
        is_output = target in tflite_format.indices(graph.outputs)
        if is_output or not _same(graph.tensors[made], graph.tensors[target]):
            continue
        graph.operators.remove(reader)
        for other in graph.operators:
            inputs = tflite_format.indices(other.inputs)
            if target in inputs:
                other.inputs = [made if i == target else i for i in inputs]


def _same(one, other):
    pairs = (
        (one.quantization.scale, other.quantization.scale),
        (one.quantization.zeroPoint, other.quantization.zeroPoint),
    )
    return all(np.array_equal(a, b) for a, b in pairs)
