"""Size: parameters, bytes, memory and multiply-adds of models and files."""

import functools
import gzip
import math
import pathlib

from keras_kd._utils import validation
from keras_kd.measurement import program
from keras_kd.runtimes import onnx, tflite

# The size of a Keras model.


NOTES = [
    "bytes: of the weights in memory, in their own types; a .keras file holds more (such as the "
    "optimizer's state), so its size and gzip_bytes are left out.",
    "peak_activation_bytes: left out; in which order TensorFlow runs the graph, and what it fuses, "
    "is not known before. The .tflite file has the figure.",
]


def of_keras(model, inputs):
    """Its size.

    Args:
        model: A Keras model that has been called.
        inputs: Inputs of one row, arrays in their structure.

    Returns:
        `(size, notes)`: a dict as of `Measurement.size`, and why something is not in it.
    """
    macs, notes = program.count(program.read_keras(model, inputs))
    size = {
        "parameters": _elements(model.weights),
        "trainable_parameters": _elements(model.trainable_weights),
        "bytes": sum(_elements([x]) * _item_bytes(x) for x in model.weights),
        "macs": macs,
    }
    return size, NOTES + notes


def _elements(weights):
    return sum(math.prod(weight.shape) for weight in weights)


def _item_bytes(weight):
    return weight.numpy().dtype.itemsize


# The size of a `.tflite` or `.onnx` file.


def of_tflite(file, inputs):
    """Its size.

    Args:
        file: A `TFLiteFile`.
        inputs: Inputs of one row, in the order of the file's.

    Returns:
        `(size, notes)`: a dict as of `Measurement.size`, and why something is not in it.
    """
    size = {"parameters": tflite_parameters(file.model), **_of_bytes(file)}
    arrays = file.one_batch(inputs)
    try:
        given = file.with_constants(arrays)
        shapes = read(file.path, file.indices, list(given.values()))
    except ValueError as error:
        return size, [f"macs, peak_activation_bytes: left out. {error}"]
    macs, notes = program.count(program.read_tflite(file.model, shapes))
    size["macs"] = _each(macs, len(arrays[0]))
    peak = peak_memory(file.model, shapes)
    if peak is None:
        notes.append("peak_activation_bytes: left out; the file has tensors without a size.")
    else:
        size["peak_activation_bytes"] = peak
    return size, notes


def _each(macs, rows):
    return macs // rows if macs % rows == 0 else macs / rows


def of_onnx(file):
    """Its size; as of `of_tflite`."""
    notes = ["macs, peak_activation_bytes: not counted for .onnx files; measure the .tflite file."]
    try:
        parameters = {"parameters": onnx_parameters(file.model)}
    except ImportError as error:
        parameters = {}
        notes.append(f"parameters: left out. {error}")
    return {**parameters, **_of_bytes(file)}, notes


def _of_bytes(file):
    contents = [pathlib.Path(path).read_bytes() for path in file.files]
    packed = [gzip.compress(content, compresslevel=9, mtime=0) for content in contents]
    return {"bytes": sum(map(len, contents)), "gzip_bytes": sum(map(len, packed))}


def tflite_parameters(model):
    """How many real numbers a `.tflite` file holds, whatever their type.

    Shapes, axes and the like, which are integers without a scale, are none.
    """
    found = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tflite.is_constant(model, tensor) and _is_real(tensor):
                found[tensor.buffer] = math.prod(tflite.shape(tensor))
    return sum(found.values())


def _is_real(tensor):
    details = tensor.quantization
    has_scale = details is not None and details.scale is not None and len(details.scale) > 0
    return has_scale or "float" in tflite.type_name(tensor)


def onnx_parameters(model):
    """How many real numbers an `.onnx` file holds, whatever their type, wherever it keeps them.

    Initializers and constants, those of inner graphs and functions too; of a sparse tensor with its
    zeros. Integers count where a quantized operator reads them as values; shapes, indices, scales
    and zero points are none.
    """
    return sum(
        math.prod(each.dims)
        for each in onnx.held(model)
        if not each.is_scale and (each.is_value or each.data_type in _real_types())
    )


@functools.cache
def _real_types():
    kinds = validation.needs(
        "onnx", "Reading the graph of an .onnx file", "onnx"
    ).TensorProto.DataType
    named = ("FLOAT", "DOUBLE", "BFLOAT16")  # also FLOAT16 and FLOAT8E4M3FN, FLOAT4E2M1
    return {value for name, value in kinds.items() if name.startswith(named)}


# The memory that the activations of a `.tflite` file need at once.


# Their output is their input under another shape: LiteRT lets both share their memory.
_VIEWS = {"BITCAST", "EXPAND_DIMS", "RESHAPE", "SQUEEZE"}
_BITS = {"int2": 2, "int4": 4, "uint4": 4, "bool": 8, "bfloat16": 16, "resource": 0}
_BITS |= {"float8_e4m3fn": 8, "float8_e5m2": 8, "complex64": 64, "complex128": 128}
_BITS |= {f"{kind}{bits}": bits for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)}


def peak_memory(model, shapes):
    """Most bytes of tensors that are needed at the same time.

    `max_i sum of bytes(t)` over the tensors `t` that operator `i` reads or makes, or that were made
    before it and are read after it, in the file's order; no constants. A loop holds the largest
    such sum of its body too. No planner can do with less, unless operators write over their own
    inputs; alignment, gaps between tensors and scratch memory of the kernels come on top.

    Args:
        model: LiteRT's `ModelT`.
        shapes: As of `tflite_shapes.read`.

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

    def are_unknown(self):
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
    views, spans = {}, {}
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


# Shapes of all tensors of a `.tflite` file, as they are when it runs.


def read(path, details, arrays):
    """Runs the file once and reads the shapes.

    A file tells 1 for a dimension that may have any size, also where it is the number of rows
    times the number of steps; only a run shows the shape.

    Args:
        path: The file.
        details: Indices of the input tensors.
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
        for index, array in zip(details, arrays, strict=True):
            interpreter.resize_tensor_input(index, array.shape)
        interpreter.allocate_tensors()
        for index, array in zip(details, arrays, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
    except RuntimeError as error:
        raise ValueError(f"LiteRT cannot run it without XNNPACK: {error}") from error
    graphs = tflite.parsed(path).subgraphs
    return [_of_graph(interpreter, number) for number in range(len(graphs))]


def _of_graph(interpreter, number):
    return {
        detail["index"]: tuple(int(size) for size in detail["shape"])
        for detail in interpreter.get_tensor_details(number)
    }
