"""`OnnxFile`: an `.onnx` file that is run over arrays."""

import dataclasses
import functools
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.runtimes import base, tensors
from keras_kd.runtimes.tensors import Operator, TensorInfo

_TYPES = {"float": "float32", "double": "float64"}


class OnnxFile(base.ModelFile):
    """An `.onnx` file, run by ONNX Runtime (`pip install 'keras-kd[onnx]'`).

    Args:
        path: The file.
        threads: Threads inside of an operator; 0: ONNX Runtime's own choice.
        providers: ONNX Runtime's execution providers, by name or as `(name, options)`.
        constants: `{name of an input: value}` for inputs that the data does not have, such as a
            sample rate or a state of zeros. A size of 1 where the file leaves it open is repeated
            to the batch size.
        outputs: Names of the outputs that are computed. Default: all.
        channels_first: Whether the file has images as `[batch, channels, height, width]`: inputs
            and outputs of rank 4 are then transposed from and to Keras' order.

    Attributes:
        inputs: A `TensorInfo` for each input that comes from the data, in the file's order.
        outputs: A `TensorInfo` for each output that is computed, in the file's order.
        model: The file as `onnx.ModelProto`, without data that lies in other files; needs the
            package onnx.
        operators: An `Operator` for each node of the main graph, in order; needs the package onnx.

    Raises:
        ImportError: ONNX Runtime is missing.
        ValueError: There is no such file, ONNX Runtime cannot load it, or an argument does not fit.

    Example:

    ```python
    def logits(path, images):  # path: an .onnx file; images: [samples, height, width, channels]
        from keras_kd import runtimes

        return runtimes.OnnxFile(path, channels_first=True).run(images)[0]
    ```
    """

    kind = "onnx"
    runtime = "onnxruntime"
    runtime_name = "ONNX Runtime"
    failures = (Exception,)  # ONNX Runtime's errors have no public base class

    def __init__(
        self,
        path: str | os.PathLike,
        threads: int = 1,
        *,
        providers: Sequence[Any] = ("CPUExecutionProvider",),
        constants: dict[str, Any] | None = None,
        outputs: Sequence[str] | None = None,
        channels_first: bool = False,
    ):
        runtime = validation.needs("onnxruntime", "An .onnx file", "onnx")
        super().__init__(path, ".onnx", threads, channels_first, least_threads=0)
        self.providers = _providers(runtime, providers)
        self._session = self._loaded(runtime)
        self.describe(
            [_info(x) for x in self._session.get_inputs()],
            [_info(x) for x in self._session.get_outputs()],
            constants,
            outputs,
        )
        self._feed: dict = {}
        self._found: list = []

    def _loaded(self, runtime):
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        try:
            return runtime.InferenceSession(self.path, options, providers=self.providers)
        except Exception as error:  # ONNX Runtime's errors have no public base class
            raise ValueError(f"ONNX Runtime cannot load {self.name}: {error}") from error

    @functools.cached_property
    def model(self) -> Any:
        return parse_file(self.path)

    @functools.cached_property
    def operators(self) -> list[Operator]:
        onnx = validation.needs("onnx", "Reading the graph of an .onnx file", "onnx")
        types = _value_types(onnx, self.model)
        return [
            Operator(
                f"CUSTOM:{node.domain}.{node.op_type}" if node.domain else node.op_type,
                tuple(types.get(name) for name in node.input),
                tuple(types.get(name) for name in node.output),
                node.name or (node.output[0] if node.output else ""),
            )
            for node in self.model.graph.node
        ]

    def run(
        self,
        inputs: Any,
        batch_size: int = base.BATCH_SIZE,
        outputs: Sequence[str] | None = None,
    ) -> list[np.ndarray]:
        return super().run(inputs, batch_size, outputs=outputs)

    def count_parameters(self) -> int:
        return count_parameters(self.model)

    def count_costs(self, inputs: Any) -> tuple[dict[str, Any], list[str]]:
        del inputs
        notes = (
            "macs, peak_activation_bytes: not counted for .onnx files; measure the .tflite file."
        )
        return {}, [notes]

    def last_activation(self, output: str) -> str | None:
        return self._activations.get(output)

    @functools.cached_property
    def _activations(self):
        try:
            # Not `self.model`, which would hold the weights a second time.
            steps = steps_by_tensor(parse_file(self.path).graph)
        except ImportError:  # without the package onnx it is not known
            return {}
        return {info.name: tensors.activation(steps, info.name) for info in self.outputs}

    @functools.cached_property
    def files(self) -> list[str]:
        """The file, and those that hold its data; by the usual names without the package onnx."""
        try:
            return list_files(self.path)
        except ImportError:
            usual = [f"{self.path}.data", f"{self.path}_data"]
            return [self.path, *(each for each in usual if os.path.isfile(each))]

    def set_inputs(self, arrays: list[np.ndarray]) -> None:
        self._feed = self.with_constants(arrays)

    def invoke(self, outputs: Sequence[str] | None = None) -> None:
        names = [info.name for info in self.outputs] if outputs is None else outputs
        self._found = self._session.run(names, self._feed)

    def results(self) -> list[np.ndarray]:
        return self._found


def _providers(runtime, given):
    """Execution providers; raises where one is missing, which ONNX Runtime would ignore."""
    available = runtime.get_available_providers()
    given = [given] if isinstance(given, str) else list(given)
    # A configuration that was saved holds lists.
    found = [tuple(each) if isinstance(each, list) else each for each in given]
    names = [each[0] if isinstance(each, tuple) else each for each in found]
    if not names or any(name not in available for name in names):
        raise invalid("providers", f"some of {available}, which are installed", repr(given))
    return found


def _info(value):
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape)
    symbols = tuple(size if isinstance(size, str) and size else None for size in value.shape)
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    return TensorInfo(value.name, shape, _TYPES.get(kind, kind), symbols=symbols)


def _value_types(onnx, model):
    """`{name of a value: type}`, as far as the file has it or shape inference finds it."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    name_of = onnx.helper.tensor_dtype_to_np_dtype
    values = [*graph.input, *graph.output, *graph.value_info]
    types = {
        x.name: x.type.tensor_type.elem_type
        for x in values
        if x.type.HasField("tensor_type") and x.type.tensor_type.elem_type
    }
    types |= {x.name: x.data_type for x in graph.initializer}
    return {name: name_of(kind).name for name, kind in types.items()}


# The graphs of an `.onnx` file: its nodes, and the tensors that it holds.

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


def parse_file(path: str) -> Any:
    """The file as `onnx.ModelProto`; data that lies in other files is not read."""
    onnx = validation.needs("onnx", "Reading the graph of an .onnx file", "onnx")
    return onnx.load(path, load_external_data=False)


def count_parameters(model: Any) -> int:
    """How many real numbers an `.onnx` file holds, whatever their type, wherever it keeps them.

    Initializers and constants, those of inner graphs and functions too; of a sparse tensor with its
    zeros. Integers count where a quantized operator reads them as values; shapes, indices, scales
    and zero points do not.
    """
    return sum(
        math.prod(each.dims)
        for each in held_tensors(model)
        if not each.is_scale and (each.is_value or each.data_type in _real_types())
    )


@functools.cache
def _real_types():
    kinds = validation.needs(
        "onnx", "Reading the graph of an .onnx file", "onnx"
    ).TensorProto.DataType
    named = ("FLOAT", "DOUBLE", "BFLOAT16")  # also FLOAT16 and FLOAT8E4M3FN, FLOAT4E2M1
    return {value for name, value in kinds.items() if name.startswith(named)}


@dataclasses.dataclass
class Held:
    """A tensor that a file holds.

    Attributes:
        dims: Its sizes; of a sparse tensor, those with its zeros.
        data_type: The type as in `onnx.TensorProto`.
        tensor: The `onnx.TensorProto`, or `None` where the node has the numbers themselves.
        is_value: Whether an operator of a quantized model reads it as a value.
        is_scale: Whether an operator of a quantized model reads it as a scale or zero point.
    """

    dims: tuple
    data_type: int
    tensor: Any = None
    is_value: bool = False
    is_scale: bool = False


def held_tensors(model: Any) -> list[Held]:
    """A `Held` for each tensor: initializers, constants, those of inner graphs and functions."""
    found = _of_graph(model.graph)
    for function in model.functions:
        found += _of_nodes(function.node, *_roles(function.node))
    return found


def inner_graphs(node: Any) -> Iterator[Any]:
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
    return []  # whole numbers and texts are not weights


def _made(tensor, is_value=False, is_scale=False):
    return Held(tuple(tensor.dims), tensor.data_type, tensor, is_value, is_scale)


def _roles(nodes):
    """Names of what quantized operators read as values, and as scales, inner graphs included."""
    values: set[str] = set()
    scales: set[str] = set()
    for node in nodes:
        for index, name in enumerate(node.input):
            if name and node.op_type in _QUANTIZED:
                (values if index in _QUANTIZED[node.op_type] else scales).add(name)
        for graph in inner_graphs(node):
            inner = _roles(graph.node)
            values |= inner[0]
            scales |= inner[1]
    return values, scales


def list_files(path: str) -> list[str]:
    """The file, and those beside it that hold data of its tensors."""
    locations = {
        entry.value
        for each in held_tensors(parse_file(path))
        if each.tensor is not None
        for entry in each.tensor.external_data
        if entry.key == "location"
    }
    folder = os.path.dirname(os.path.abspath(path))
    return [path, *(os.path.join(folder, each) for each in sorted(locations))]


def steps_by_tensor(graph: Any, outer: dict | None = None) -> dict[str, tensors.Step]:
    """`{name of a tensor: the Step that makes it}`."""
    found = dict(outer or {})
    for node in graph.node:
        branches = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        is_choice = node.op_type == "If"
        for index, name in enumerate(node.output):
            found[name] = tensors.Step(
                node.op_type,
                list(node.input),
                [(steps_by_tensor(x, found), x.output[index].name) for x in branches]
                if is_choice
                else [],
            )
    return found
