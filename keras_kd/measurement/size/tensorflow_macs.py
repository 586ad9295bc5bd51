"""Multiply-accumulates of TensorFlow's operations, from the shapes of what they read and make."""

import math
import re

# Operations that multiply matrices, or may, by any of their names in TensorFlow.
_MULTIPLIES = re.compile(
    "MatMul|Conv[123]D|Conv2d|ConvV2|Einsum|RNN|LSTM|GRU|Dot|FFT|Cholesky|MatrixSolve|"
    "TriangularSolve|MatrixInverse|Svd|^Qr|Eig|PyFunc|XlaCallModule"
)


def of(node, inputs, outputs):
    """The multiply-accumulates of a node.

    Args:
        node: A `NodeDef`.
        inputs: Shapes, `None` where they are not known.
        outputs: Likewise.

    Returns:
        A whole number; `None` if it multiplies and cannot be counted.
    """
    if node.op in _FORMULAS:
        return _FORMULAS[node.op](node, inputs, outputs)
    return None if _MULTIPLIES.search(node.op) else 0


def _matmul(node, inputs, outputs):
    """Rows times columns times the dimension that is summed."""
    transposed = [node.attr[key].b for key in _TRANSPOSED[node.op]]
    summed = None
    for shape, at_end, flag in zip(inputs, (True, False), transposed, strict=True):
        if shape is not None:
            summed = shape[-1 if at_end != flag else -2]
    return None if summed is None or outputs[0] is None else math.prod(outputs[0]) * summed


_TRANSPOSED = {
    "MatMul": ("transpose_a", "transpose_b"),
    "BatchMatMul": ("adj_x", "adj_y"),
    "BatchMatMulV2": ("adj_x", "adj_y"),
    "BatchMatMulV3": ("adj_x", "adj_y"),
}


def _einsum(node, inputs, outputs):
    """The product of the sizes of all letters."""
    if len(inputs) == 1:
        return 0
    if None in inputs:
        return None
    equation = node.attr["equation"].s.decode()
    sizes: dict = {}
    for term, shape in zip(equation.split("->")[0].split(","), inputs, strict=True):
        sizes |= _letters(term, shape)
    return math.prod(sizes.values())


def _letters(term, shape):
    """`{letter: size}` of one operand; dimensions of `...` count from its end."""
    before, dots, after = term.partition("...")
    spread = len(shape) - len(before) - len(after) if dots else 0
    names = [*before, *(f"...{spread - i}" for i in range(spread)), *after]
    return dict(zip(names, shape, strict=True))


def _convolution(node, inputs, outputs):
    """Each output sums over the kernel and the channels of its group."""
    kernel = inputs[1]
    if kernel is None or outputs[0] is None:
        return None
    return math.prod(outputs[0]) * math.prod(kernel[:-1])


def _depthwise(node, inputs, outputs):
    """Each output sums over the kernel."""
    kernel = inputs[1]
    if kernel is None or outputs[0] is None:
        return None
    return math.prod(outputs[0]) * math.prod(kernel[:2])


def _transposed(node, inputs, outputs):
    """Each input is spread over the kernel `[..., out, in]`; inputs: shape, kernel, values."""
    kernel, values = inputs[1:]
    if kernel is None or values is None:
        return None
    return math.prod(values) * math.prod(kernel[:-1])


_FORMULAS = {
    "MatMul": _matmul,
    "BatchMatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "BatchMatMulV3": _matmul,
    "Einsum": _einsum,
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "Conv2DBackpropInput": _transposed,
    "Conv3DBackpropInputV2": _transposed,
}
