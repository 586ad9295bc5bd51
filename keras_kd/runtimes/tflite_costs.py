"""What a `.tflite` file holds and costs: parameters, multiply-adds, memory of activations."""

import math
from typing import Any

import numpy as np

from keras_kd._utils import validation
from keras_kd.runtimes import program, tflite
from keras_kd.runtimes.program import Graph, Node, Program

# For each graph `{index of a tensor: its shape}`.
Shapes = list[dict[int, tuple[int, ...]]]


def count_parameters(model: Any) -> int:
    """How many real numbers a file holds, whatever their type.

    Shapes, axes and the like, which are integers without a scale, do not count.

    Args:
        model: LiteRT's `ModelT`.
    """
    found = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tflite.is_constant(model, tensor) and _is_real(tensor):
                found[tensor.buffer] = math.prod(tflite.shape_of(tensor))
    return sum(found.values())


def _is_real(tensor):
    details = tensor.quantization
    has_scale = details is not None and details.scale is not None and len(details.scale) > 0
    return has_scale or "float" in tflite.type_name(tensor)


def count_costs(model: Any, shapes: Shapes, samples: int) -> tuple[dict[str, Any], list[str]]:
    """Multiply-adds of one sample, and the memory of the activations.

    Args:
        model: LiteRT's `ModelT`.
        shapes: The shapes of a run, from `read_shapes`.
        samples: How many samples that run had.

    Returns:
        `(figures, notes)`: `macs` and `peak_activation_bytes`, and what is left out.
    """
    macs, notes = program.count(read_program(model, shapes))
    figures: dict[str, Any] = {"macs": macs // samples if macs % samples == 0 else macs / samples}
    peak = peak_memory(model, shapes)
    if peak is None:
        notes.append("peak_activation_bytes: left out; the file has tensors without a size.")
    else:
        figures["peak_activation_bytes"] = peak
    return figures, notes


def read_shapes(path: str, inputs: list[int], arrays: list[np.ndarray]) -> Shapes:
    """Runs the file once and reads the shapes of all tensors.

    A file has 1 for a dimension that may have any size, also where it is the batch size times the
    number of steps; only a run shows the shape.

    Args:
        path: The file.
        inputs: Indices of the input tensors.
        arrays: Their values, of the file's types.

    Returns:
        For each graph `{index of a tensor: its shape}`.

    Raises:
        ValueError: LiteRT's own kernels, which keep the shapes, cannot run the file.
    """
    litert = validation.needs("ai_edge_litert.interpreter", "A .tflite file", "litert")
    # XNNPACK would swallow the tensors between its operators.
    plain = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = litert.Interpreter(model_path=path, experimental_op_resolver_type=plain)
    try:
        for index, array in zip(inputs, arrays, strict=True):
            interpreter.resize_tensor_input(index, array.shape)
        interpreter.allocate_tensors()
        for index, array in zip(inputs, arrays, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
    except RuntimeError as error:
        raise ValueError(f"LiteRT cannot run it without XNNPACK: {error}") from error
    graphs = tflite.parse_file(path).subgraphs
    return [_of_graph(interpreter, number) for number in range(len(graphs))]


def _of_graph(interpreter, number):
    return {
        detail["index"]: tuple(int(size) for size in detail["shape"])
        for detail in interpreter.get_tensor_details(number)
    }


# The memory that activations need at once.

# Their output is their input under another shape: LiteRT lets both share their memory.
_VIEWS = {"BITCAST", "EXPAND_DIMS", "RESHAPE", "SQUEEZE"}
_BITS = {"int2": 2, "int4": 4, "uint4": 4, "bool": 8, "bfloat16": 16, "resource": 0}
_BITS |= {"float8_e4m3fn": 8, "float8_e5m2": 8, "complex64": 64, "complex128": 128}
_BITS |= {f"{kind}{bits}": bits for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)}


def peak_memory(model: Any, shapes: Shapes) -> int | None:
    """The most bytes of tensors that are needed at the same time.

    `max_i sum of bytes(t)` over the tensors `t` that operator `i` reads or makes, or that were made
    before it and are read after it, in the file's order; without constants. A loop adds the
    largest such sum of its body. No planner can do with less, unless operators write over their own
    inputs; alignment, gaps between tensors and scratch memory of the kernels come on top.

    Args:
        model: LiteRT's `ModelT`.
        shapes: The shapes of a run, from `read_shapes`.

    Returns:
        Bytes, a whole number; `None` where a tensor's size is not known.
    """
    sizes = _Sizes(model, shapes)
    return None if sizes.are_unknown() else _peak(sizes, 0, is_main=True)


class _Sizes:
    """Bytes of the tensors of each graph; a constant has none."""

    def __init__(self, model, shapes):
        self.model = model
        self.bytes = [
            [self._of(tensor, shapes[number].get(i)) for i, tensor in enumerate(graph.tensors)]
            for number, graph in enumerate(model.subgraphs)
        ]

    def _of(self, tensor, shape):
        if tflite.is_constant(self.model, tensor):
            return 0
        bits = _BITS.get(tflite.type_name(tensor))
        if bits is None or shape is None:
            return None
        return (math.prod(shape) * bits + 7) // 8

    def are_unknown(self) -> bool:
        """Whether an operator reads or makes a tensor of a size that is not known."""
        return any(
            self.bytes[number][i] is None
            for number, graph in enumerate(self.model.subgraphs)
            for operator in graph.operators or []
            for i in _touched(operator)
        )


def _touched(operator):
    indices = tflite.indices
    return [i for i in indices(operator.inputs) + indices(operator.outputs) if i >= 0]


def _peak(sizes, number, is_main):
    graph = sizes.model.subgraphs[number]
    operators = graph.operators or []
    spans = _spans(sizes.model, graph, operators)
    if not is_main:  # the graph around the loop holds what goes into it
        for index in tflite.indices(graph.inputs):
            spans.pop(index, None)
    most = 0
    for step, operator in enumerate(operators):
        live = sum(
            sizes.bytes[number][i] or 0 for i, (start, end) in spans.items() if start <= step <= end
        )
        most = max(most, live + _inside(sizes, operator))
    return most


def _inside(sizes, operator):
    """The peak of the graphs that an operator calls."""
    options = operator.builtinOptions
    keys = ("condSubgraphIndex", "bodySubgraphIndex", "thenSubgraphIndex", "elseSubgraphIndex")
    called = [getattr(options, key) for key in keys if hasattr(options, key)]
    return max((_peak(sizes, number, is_main=False) for number in called), default=0)


def _spans(model, graph, operators):
    """`{tensor: (first step, last step)}` at which it is in memory."""
    views: dict[int, int] = {}
    spans: dict[int, tuple[int, int]] = {}
    last = max(len(operators) - 1, 0)
    for index in tflite.indices(graph.inputs):
        spans[index] = (0, 0)
    for step, operator in enumerate(operators):
        touched = [views.get(i, i) for i in _touched(operator)]
        for i in touched:
            spans[i] = (spans.get(i, (step, step))[0], step)
        if tflite.operator_name(model, operator) in _VIEWS:
            source, made = touched[0], tflite.indices(operator.outputs)[0]
            if not tflite.is_constant(model, graph.tensors[source]):
                views[made] = source
                spans.pop(made)
    for index in tflite.indices(graph.outputs):
        index = views.get(index, index)
        spans[index] = (spans.get(index, (last, last))[0], last)
    for index, tensor in enumerate(graph.tensors):
        if tensor.isVariable:
            spans[index] = (0, last)
    return spans


# The graphs of a file as a program, with the shapes of a run.

_LOOPS = ("condSubgraphIndex", "bodySubgraphIndex")
_BRANCHES = ("thenSubgraphIndex", "elseSubgraphIndex")
_CALLED = {"CALL": "subgraph", "STABLEHLO_COMPOSITE": "decompositionSubgraphIndex"}


def read_program(model: Any, shapes: Shapes) -> Program:
    """The program of a file.

    Args:
        model: LiteRT's `ModelT`.
        shapes: The shapes of a run, from `read_shapes`.
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
    return program.MAIN if index == 0 else str(index)


def _values(indices):
    return [None if i < 0 else str(i) for i in tflite.indices(indices)]


def _node(model, operator, shapes):
    name = tflite.operator_name(model, operator)
    inputs, outputs = _values(operator.inputs), _values(operator.outputs)
    loop, branches = _called_by_operator(name, operator)
    given = [None if i is None else shapes.get(int(i)) for i in inputs]
    made = [shapes.get(int(i)) for i in outputs]
    options = operator.builtinOptions
    macs = 0 if loop or branches else count_multiply_adds(name, given, made, options)
    label = f"{name} {outputs[0]}" if loop or branches else name
    return Node(name.replace("_", "").lower(), label, inputs, outputs, macs, loop, branches)


def _called_by_operator(name, operator):
    """Names of the graphs of a loop, and of those that are branches."""
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
        data, kind = model.buffers[tensor.buffer].data, tflite.type_name(tensor)
        if data is None or len(data) == 0 or kind not in ("int32", "int64", "float32", "bool"):
            return None
        return np.frombuffer(bytes(data), kind).reshape(tflite.shape_of(tensor))

    return constant


# Multiply-adds of LiteRT's operators, from the shapes of their inputs and outputs.

# Operators without a formula here that multiply matrices, or may.
_MULTIPLIES = {
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "CONCAT_EMBEDDINGS",
    "DELEGATE",
    "RFFT2D",
    "STABLEHLO_CONVOLUTION",
    "STABLEHLO_CUSTOM_CALL",
    "STABLEHLO_DOT_GENERAL",
}


def count_multiply_adds(
    name: str, inputs: list[Any], outputs: list[Any], options: Any
) -> int | None:
    """The multiply-accumulates of an operator.

    Args:
        name: Its kind, such as `"CONV_2D"`.
        inputs: Shapes, `None` where they are not known or the input is left out.
        outputs: Shapes, `None` where they are not known.
        options: The operator's options in LiteRT's schema, or `None`.

    Returns:
        A whole number; `None` if the operator multiplies, or is not known, and cannot be counted.
    """
    if name in _FORMULAS:
        return _FORMULAS[name](inputs, outputs, options)
    is_unknown = name.startswith(("CUSTOM", "UNKNOWN"))
    return None if is_unknown or name in _MULTIPLIES else 0


def _each_output(weights, summed):
    """A formula: each output sums over these dimensions of the weights."""

    def formula(inputs, outputs, options):
        if inputs[weights] is None or outputs[0] is None:
            return None
        return math.prod(outputs[0]) * math.prod(inputs[weights][summed])

    return formula


def _each_input(values, kept):
    """A formula: each value is spread over these dimensions of the weights, input 1."""

    def formula(inputs, outputs, options):
        if inputs[1] is None or inputs[values] is None:
            return None
        return math.prod(inputs[values]) * math.prod(inputs[1][kept])

    return formula


def _matmul(inputs, outputs, options):
    if outputs[0] is None or inputs[0] is None:
        return None
    return math.prod(outputs[0]) * inputs[0][-2 if options.adjX else -1]


def _recurrent(weights):
    """A formula: all weights at each time step of each sample; input 0: `[batch, time, ...]`."""

    def formula(inputs, outputs, options):
        used = [inputs[i] for i in weights if i < len(inputs) and inputs[i] is not None]
        if inputs[0] is None or not used:
            return None
        return math.prod(inputs[0][:-1]) * sum(math.prod(shape) for shape in used)

    return formula


def _lstm(inputs, outputs, options):
    is_basic = len(inputs) <= 5  # one matrix for all gates
    return _recurrent([2] if is_basic else _LSTM_WEIGHTS)(inputs, outputs, options)


# Of the input, of the state, and of the projection; peepholes are element by element.
_LSTM_WEIGHTS = [*range(1, 9), 16]
_FORMULAS = {
    "BATCH_MATMUL": _matmul,
    "CONV_2D": _each_output(1, slice(1, None)),  # [out, height, width, in / groups]
    "CONV_3D": _each_output(1, slice(0, 4)),  # [depth, height, width, in, out]
    "CONV_3D_TRANSPOSE": _each_input(2, slice(0, 4)),  # [depth, height, width, out, in]
    "DEPTHWISE_CONV_2D": _each_output(1, slice(1, 3)),  # [1, height, width, out]
    "FULLY_CONNECTED": _each_output(1, slice(-1, None)),  # [out, in]
    "LSTM": _lstm,
    "RNN": _recurrent([1, 2]),
    "SVDF": _recurrent([1, 2]),
    "TRANSPOSE_CONV": _each_input(2, slice(0, 3)),  # [out, height, width, in]
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _recurrent(_LSTM_WEIGHTS),
    "UNIDIRECTIONAL_SEQUENCE_RNN": _recurrent([1, 2]),
}
