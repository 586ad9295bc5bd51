"""What tf2onnx gets wrong about TensorFlow's operations, put right by its own hooks."""

import numpy as np


def handlers():
    """As `custom_op_handlers` of tf2onnx: functions that rewrite a node of the graph.

    Of the first three tf2onnx knows nothing: it logs a line, and writes a file that no runtime
    loads. The exact gelu needs `Erfc`, celu `Expm1`.
    """
    written = {"Erfc": _erfc, "Expm1": _expm1, "Log1p": _log1p, "AddV2": _add}
    return {name: (function, []) for name, function in written.items()}


def _erfc(graph, node, name, args):
    """`erfc(x) = 1 - erf(x)`."""
    del name, args
    one = _one(graph, node)
    return _replaced(graph, node, ("Erf", node.input), ("Sub", [one, None]))


def _expm1(graph, node, name, args):
    """`expm1(x) = exp(x) - 1`."""
    del name, args
    one = _one(graph, node)
    return _replaced(graph, node, ("Exp", node.input), ("Sub", [None, one]))


def _log1p(graph, node, name, args):
    """`log1p(x) = log(1 + x)`."""
    del name, args
    one = _one(graph, node)
    return _replaced(graph, node, ("Add", [node.input[0], one]), ("Log", [None]))


def _one(graph, node):
    from tf2onnx import utils

    dtype = utils.map_onnx_to_numpy_type(graph.get_dtype(node.input[0]))
    return graph.make_const(utils.make_name("one"), np.ones((), dtype)).output[0]


def _replaced(graph, node, first, second):
    """Two nodes instead of one; `None` among the inputs of the second is the first's output."""
    kind = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
    name, outputs = node.name, list(node.output)
    operator, inputs = first[0], list(first[1])
    graph.remove_node(name)
    between = graph.make_node(operator, inputs, **kind).output[0]
    inputs = [between if x is None else x for x in second[1]]
    return graph.make_node(second[0], inputs, name=name, outputs=outputs, **kind)


def _add(graph, node, name, args):
    """An addition whose scalar constants have one axis.

    A convolution without bias plus a scalar, as in hard_sigmoid, ends tf2onnx's removal of
    transpositions with an exception that it only logs: 106 of them stay in a MobileNetV3.
    """
    del args
    from tf2onnx import utils

    node.type = "Add"
    for i, given in enumerate(node.inputs):
        # Inputs of a loop's body have no node.
        is_scalar = given is not None and given.is_const() and graph.get_shape(node.input[i]) == []
        if is_scalar and graph.get_shape(node.input[1 - i]):
            value = given.get_tensor_value(as_list=False).reshape(1)
            constant = graph.make_const(utils.make_name(name), value)
            graph.replace_input(node, node.input[i], constant.output[0], i)
    return node
