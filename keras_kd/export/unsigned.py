"""Inputs and outputs of an int8 file as uint8, which cameras give and some runtimes ask for.

    uint8 = int8 + 128, of the same scale and a zero point that is 128 higher

One QUANTIZE operator does that; LiteRT and microcontrollers have it.
"""

import copy

import numpy as np

from keras_kd.export import packing
from keras_kd.measurement.runtimes import tflite_format

_OFFSET = 128


def borders(content, inputs, outputs):
    """The bytes of a file whose int8 inputs or outputs are uint8.

    Args:
        content: The bytes of a file; what is not int8 there stays as it is.
        inputs: Whether to change the inputs.
        outputs: Whether to change the outputs.
    """
    model = packing.unpacked(content)
    graph, code = model.subgraphs[0], _quantize(model)
    before, after, of_inputs, of_outputs = [], [], {}, {}
    for index in tflite_format.indices(graph.inputs) if inputs else ():
        if _is_int8(graph.tensors[index]):
            of_inputs[index] = _unsigned(graph, index)
            before.append(_operator(code, of_inputs[index], index))
    for index in dict.fromkeys(tflite_format.indices(graph.outputs)) if outputs else ():
        if _is_int8(graph.tensors[index]):
            of_outputs[index] = _unsigned(graph, index)
            after.append(_operator(code, index, of_outputs[index]))
    graph.operators = [*before, *(graph.operators or []), *after]
    graph.inputs = [of_inputs.get(i, i) for i in tflite_format.indices(graph.inputs)]
    graph.outputs = [of_outputs.get(i, i) for i in tflite_format.indices(graph.outputs)]
    for signature in model.signatureDefs or []:
        _point(signature.inputs, of_inputs)
        _point(signature.outputs, of_outputs)
    return packing.packed(model, len(content))


def _is_int8(tensor):
    quantization = tensor.quantization
    is_number = quantization is not None and quantization.scale is not None
    return is_number and tflite_format.type_name(tensor) == "int8"


def _unsigned(graph, index):
    """The index of a new tensor, as one but uint8."""
    tensor = copy.copy(graph.tensors[index])
    quantization = copy.copy(tensor.quantization)
    quantization.zeroPoint = np.asarray(quantization.zeroPoint, np.int64) + _OFFSET
    tensor.quantization, tensor.buffer = quantization, 0
    tensor.type = tflite_format.schema().TensorType.UINT8
    tensor.name = f"{tflite_format.text(tensor.name)}_uint8"
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _quantize(model):
    """The index of the operator code of QUANTIZE, which is added where there is none."""
    schema = tflite_format.schema()
    number = schema.BuiltinOperator.QUANTIZE
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _operator(code, source, target):
    schema = tflite_format.schema()
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, [source], [target]
    operator.builtinOptionsType = schema.BuiltinOptions.QuantizeOptions
    operator.builtinOptions = schema.QuantizeOptionsT()
    return operator


def _point(tensors, moved):
    for tensor in tensors or []:
        tensor.tensorIndex = moved.get(int(tensor.tensorIndex), int(tensor.tensorIndex))
