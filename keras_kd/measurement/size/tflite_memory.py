"""The memory that the activations of a `.tflite` file need at once."""

import math

from keras_kd.measurement.runtimes import tflite_format

# Their output is their input under another shape: LiteRT lets both share their memory.
_VIEWS = {"BITCAST", "EXPAND_DIMS", "RESHAPE", "SQUEEZE"}
_BITS = {"int2": 2, "int4": 4, "uint4": 4, "bool": 8, "bfloat16": 16, "resource": 0}
_BITS |= {"float8_e4m3fn": 8, "float8_e5m2": 8, "complex64": 64, "complex128": 128}
_BITS |= {f"{kind}{bits}": bits for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)}


def peak(model, shapes):
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
        if tflite_format.is_constant(self.model, tensor):
            return 0
        bits = _BITS.get(tflite_format.type_name(tensor))
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
    indices = tflite_format.indices
    return [i for i in indices(operator.inputs) + indices(operator.outputs) if i >= 0]


def _peak(sizes, number, is_main):
    graph = sizes.model.subgraphs[number]
    operators = graph.operators or []
    spans = _spans(sizes.model, graph, operators)
    if not is_main:  # the graph around the loop holds what goes into it
        for index in tflite_format.indices(graph.inputs):
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
    for index in tflite_format.indices(graph.inputs):
        spans[index] = (0, 0)
    for step, operator in enumerate(operators):
        touched = [views.get(i, i) for i in _touched(operator)]
        for i in touched:
            spans[i] = (spans.get(i, (step, step))[0], step)
        if tflite_format.operator_name(model, operator) in _VIEWS:
            source, made = touched[0], tflite_format.indices(operator.outputs)[0]
            if not tflite_format.is_constant(model, graph.tensors[source]):
                views[made] = source
                spans.pop(made)
    for index in tflite_format.indices(graph.outputs):
        index = views.get(index, index)
        spans[index] = (spans.get(index, (last, last))[0], last)
    for index, tensor in enumerate(graph.tensors):
        if tensor.isVariable:
            spans[index] = (0, last)
    return spans
