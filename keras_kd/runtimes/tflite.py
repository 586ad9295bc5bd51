"""Reads the graphs of a `.tflite` file: its operators, tensors, constants and signatures."""

import functools
import os
import pathlib
from typing import Any

from keras_kd._utils import validation
from keras_kd.runtimes import tensors
from keras_kd.runtimes.tensors import Operator


def schema() -> Any:
    """LiteRT's module that reads the format."""
    return validation.needs("ai_edge_litert.schema_py_generated", "A .tflite file", "litert")


def check_format(path: str | os.PathLike) -> None:
    """Raises `ValueError` unless the file has the mark of a TensorFlow Lite model."""
    with open(path, "rb") as file:
        start = file.read(8)
    if start[4:] != b"TFL3":
        raise ValueError(
            f"{pathlib.Path(path).name} is no TensorFlow Lite model: its bytes 4 to 8 are "
            f"{start[4:]!r} where b'TFL3' is expected."
        )


def parse_file(path: str | os.PathLike) -> Any:
    """The file as LiteRT's `ModelT`."""
    return parse(pathlib.Path(path).read_bytes())


def parse(content: bytes) -> Any:
    """The bytes of a file as LiteRT's `ModelT`."""
    return schema().ModelT.InitFromPackedBuf(content, 0)


@functools.cache
def _names(enumeration):
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def operator_name(model: Any, operator: Any) -> str:
    """The kind of an operator, such as `"CONV_2D"` or `"CUSTOM:FlexErf"`."""
    code = model.operatorCodes[operator.opcodeIndex]
    # Old files have only the deprecated code, new ones hold 127 there for all that came later.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = _names(schema().BuiltinOperator).get(number, f"UNKNOWN_{number}")
    return f"CUSTOM:{decode_name(code.customCode)}" if name == "CUSTOM" else name


def type_name(tensor: Any) -> str:
    """NumPy's name of a tensor's type; `"int4"` and the like for types that NumPy lacks."""
    return _names(schema().TensorType)[tensor.type].lower()


def decode_name(value: Any) -> str:
    """A name as text, which the file holds as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def shape_of(tensor: Any) -> tuple[int, ...]:
    """The dimensions of a tensor as the file has them."""
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def is_constant(model: Any, tensor: Any) -> bool:
    """Whether the file holds the tensor's values."""
    buffer = model.buffers[tensor.buffer]
    # A file of more than 2 GB holds its values outside of the buffers.
    return (buffer.data is not None and len(buffer.data) > 0) or buffer.size > 0


def constants(model: Any) -> list[Any]:
    """The tensors whose values the file holds, graph by graph."""
    everything = (tensor for graph in model.subgraphs for tensor in graph.tensors)
    return [tensor for tensor in everything if is_constant(model, tensor)]


def operators(model: Any) -> list[Operator]:
    """An `Operator` for each of the file, in the order in which they run, graph by graph."""
    return [
        Operator(
            operator_name(model, operator),
            tuple(None if i < 0 else type_name(graph.tensors[i]) for i in indices(operator.inputs)),
            tuple(type_name(graph.tensors[i]) for i in indices(operator.outputs)),
            _label(graph, operator),
            number,
        )
        for number, graph in enumerate(model.subgraphs)
        for operator in (graph.operators or [])
    ]


def indices(values: Any) -> list[int]:
    """Indices of tensors as whole numbers."""
    return [] if values is None else [int(value) for value in values]


def steps_by_tensor(model: Any) -> dict[Any, tensors.Step]:
    """`{index of a tensor: the Step that makes it}` of the main graph."""
    return {
        index: tensors.Step(operator_name(model, operator), indices(operator.inputs))
        for operator in (model.subgraphs[0].operators or [])
        for index in indices(operator.outputs)
    }


def _label(graph, operator):
    outputs = indices(operator.outputs)
    return decode_name(graph.tensors[outputs[0]].name) if outputs else ""


def signatures(model: Any) -> dict[str, dict[str, Any]]:
    """`{name: {"inputs": {name: tensor index}, "outputs": ..., "graph": index}}`."""
    return {
        decode_name(each.signatureKey): {
            "inputs": {decode_name(x.name): int(x.tensorIndex) for x in each.inputs or []},
            "outputs": {decode_name(x.name): int(x.tensorIndex) for x in each.outputs or []},
            "graph": int(each.subgraphIndex),
        }
        for each in model.signatureDefs or []
    }


def has_state(model: Any) -> bool:
    """Whether tensors keep their values from one run to the next."""
    return any(x.isVariable for graph in model.subgraphs for x in graph.tensors)


def has_resources(model: Any) -> bool:
    """Whether the file has variables, which keep their values from one run to the next."""
    return any(operator.name == "VAR_HANDLE" for operator in operators(model))
