"""Edits the flatbuffer of a `.tflite` file: integer kernels, unsigned inputs and outputs.

`unpacked` reads the tables of a file, and `packed` writes them again.
"""

import copy
import hashlib
from typing import Any

import flatbuffers
import numpy as np

from keras_kd.runtimes import tflite

# The format's alignment of constants, so that runtimes can use them in place.
_ALIGNMENT = 16


def unpacked(content: bytes) -> Any:
    """LiteRT's `ModelT` of the content of a file."""
    model = tflite.parse(content)
    for buffer in model.buffers:
        if buffer.offset > 1:  # behind the tables, by offsets that will not be right
            buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def packed(model: Any, size: int = 0) -> bytes:
    """The content of the file of a `ModelT`.

    Args:
        model: LiteRT's `ModelT`.
        size: About how many bytes the file will have.
    """
    builder = _Builder(size)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


class _Builder(flatbuffers.Builder):
    """Writes equal arrays once.

    Each scale of a channel comes with a zero point of 8 bytes, all 0, in kernels and biases: they
    were 12 % of MobileNetV3Small's int8 file.
    """

    def __init__(self, size):
        super().__init__(size)
        self._written = {}

    def CreateNumpyVector(self, x):  # noqa: N802 - the name of the method that is overridden
        key = x.dtype.str, x.size, hashlib.sha256(x.tobytes()).digest()
        if key not in self._written:
            if x.dtype == np.uint8:
                self.Prep(_ALIGNMENT, x.size)
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]


# Operators that ai-edge-quantizer leaves in float, on integers.


# Those that keep the scale of their input, and those that have one of their own for their output.
_KEEPING = ("TILE", "REDUCE_MAX")
_OWN = ("LEAKY_RELU", "ELU", "RELU6", "ABS")
_FLOAT = "_float"
# The versions of the operators from which on they have int8; others than 1.
_VERSIONS = dict.fromkeys((*_KEEPING, "LEAKY_RELU", "RELU6", "ABS"), 2)


def with_integer_kernels(content: bytes) -> bytes:
    """The content of an int8 file in which operators use the integer kernels that LiteRT has.

        int8 -> DEQUANTIZE -> float -> TILE -> float -> QUANTIZE -> int8

    becomes the operator alone, on integers: ai-edge-quantizer leaves some of them in float.
    """
    model = unpacked(content)
    graph = model.subgraphs[0]
    names = {tflite.operator_name(model, each) for each in graph.operators or []}
    if not names.intersection((*_KEEPING, *_OWN)):
        return content
    changed = [operator for operator in [*graph.operators] if _changed(model, graph, operator)]
    if not changed:
        return content
    read = {i for operator in graph.operators for i in tflite.indices(operator.inputs)}
    read |= set(tflite.indices(graph.outputs))
    graph.operators = [
        operator
        for operator in graph.operators
        if read.intersection(tflite.indices(operator.outputs))
    ]
    for operator in changed:
        code = model.operatorCodes[operator.opcodeIndex]
        name = tflite.operator_name(model, operator)
        code.version = max(code.version, _VERSIONS.get(name, 1))
    return packed(model, len(content))


def _changed(model, graph, operator):
    """Makes an operator one on integers; whether that was possible."""
    name = tflite.operator_name(model, operator)
    if name not in (*_KEEPING, *_OWN):
        return False
    inputs, (result,) = (
        tflite.indices(operator.inputs),
        tflite.indices(operator.outputs),
    )
    makers = [x for x in graph.operators if inputs[0] in tflite.indices(x.outputs)]
    readers = [x for x in graph.operators if result in tflite.indices(x.inputs)]
    is_between = (
        [tflite.operator_name(model, x) for x in makers] == ["DEQUANTIZE"]
        and {tflite.operator_name(model, x) for x in readers} == {"QUANTIZE"}
        and result not in tflite.indices(graph.outputs)
    )
    if not is_between:
        return False
    source = tflite.indices(makers[0].inputs)[0]
    targets = [tflite.indices(x.outputs)[0] for x in readers]
    if not all(_is_int8_tensor(graph.tensors[i]) for i in (source, *targets)):
        return False
    label = tflite.decode_name(graph.tensors[result].name)
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


def _is_int8_tensor(tensor):
    quantization = tensor.quantization
    return (
        tflite.type_name(tensor) == "int8"
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
    """Removes operators that convert integers to the scale that they have already."""
    for reader in readers:
        (target,) = tflite.indices(reader.outputs)
        is_output = target in tflite.indices(graph.outputs)
        if is_output or not _same(graph.tensors[made], graph.tensors[target]):
            continue
        graph.operators.remove(reader)
        for other in graph.operators:
            inputs = tflite.indices(other.inputs)
            if target in inputs:
                other.inputs = [made if i == target else i for i in inputs]


def _same(one, other):
    pairs = (
        (one.quantization.scale, other.quantization.scale),
        (one.quantization.zeroPoint, other.quantization.zeroPoint),
    )
    return all(np.array_equal(a, b) for a, b in pairs)


# Inputs and outputs of an int8 file as uint8, which cameras give and some runtimes need.


_OFFSET = 128


def with_unsigned_borders(content: bytes, inputs: bool, outputs: bool) -> bytes:
    """The content of a file whose int8 inputs or outputs are uint8.

        uint8 = int8 + 128, of the same scale and a zero point that is 128 higher

    One QUANTIZE operator does that; LiteRT and microcontrollers have it.

    Args:
        content: The content of a file; inputs and outputs of other types stay as they are.
        inputs: Whether to change the inputs.
        outputs: Whether to change the outputs.
    """
    model = unpacked(content)
    graph, code = model.subgraphs[0], _quantize(model)
    before, after, of_inputs, of_outputs = [], [], {}, {}
    for index in tflite.indices(graph.inputs) if inputs else ():
        if _is_int8_border(graph.tensors[index]):
            of_inputs[index] = _unsigned(graph, index)
            before.append(_operator(code, of_inputs[index], index))
    for index in dict.fromkeys(tflite.indices(graph.outputs)) if outputs else ():
        if _is_int8_border(graph.tensors[index]):
            of_outputs[index] = _unsigned(graph, index)
            after.append(_operator(code, index, of_outputs[index]))
    graph.operators = [*before, *(graph.operators or []), *after]
    graph.inputs = [of_inputs.get(i, i) for i in tflite.indices(graph.inputs)]
    graph.outputs = [of_outputs.get(i, i) for i in tflite.indices(graph.outputs)]
    for signature in model.signatureDefs or []:
        _point(signature.inputs, of_inputs)
        _point(signature.outputs, of_outputs)
    return packed(model, len(content))


def _is_int8_border(tensor):
    quantization = tensor.quantization
    is_number = quantization is not None and quantization.scale is not None
    return is_number and tflite.type_name(tensor) == "int8"


def _unsigned(graph, index):
    """The index of a new tensor, as one but uint8."""
    tensor = copy.copy(graph.tensors[index])
    quantization = copy.copy(tensor.quantization)
    quantization.zeroPoint = np.asarray(quantization.zeroPoint, np.int64) + _OFFSET
    tensor.quantization, tensor.buffer = quantization, 0
    tensor.type = tflite.schema().TensorType.UINT8
    tensor.name = f"{tflite.decode_name(tensor.name)}_uint8"
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _quantize(model):
    """The index of the operator code of QUANTIZE, which is added if there is none."""
    schema = tflite.schema()
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
    schema = tflite.schema()
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, [source], [target]
    operator.builtinOptionsType = schema.BuiltinOptions.QuantizeOptions
    operator.builtinOptions = schema.QuantizeOptionsT()
    return operator


def _point(tensors, moved):
    for tensor in tensors or []:
        tensor.tensorIndex = moved.get(int(tensor.tensorIndex), int(tensor.tensorIndex))
