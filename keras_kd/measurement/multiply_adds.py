"""Multiply-adds of operations, in TensorFlow graphs and `.tflite` files."""

import math
import re

# Multiply-accumulates of TensorFlow's operations, from the shapes of what they read and make.


# Operations that multiply matrices, or may, by any of their names in TensorFlow.
_TENSORFLOW_MULTIPLIES = re.compile(
    "MatMul|Conv[123]D|Conv2d|ConvV2|Einsum|RNN|LSTM|GRU|Dot|FFT|Cholesky|MatrixSolve|"
    "TriangularSolve|MatrixInverse|Svd|^Qr|Eig|PyFunc|XlaCallModule"
)


def of_tensorflow_node(node, inputs, outputs):
    """The multiply-accumulates of a node.

    Args:
        node: A `NodeDef`.
        inputs: Shapes, `None` where they are not known.
        outputs: Likewise.

    Returns:
        A whole number; `None` if it multiplies and cannot be counted.
    """
    if node.op in _TENSORFLOW_FORMULAS:
        return _TENSORFLOW_FORMULAS[node.op](node, inputs, outputs)
    return None if _TENSORFLOW_MULTIPLIES.search(node.op) else 0


def _tensorflow_matmul(node, inputs, outputs):
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


_TENSORFLOW_FORMULAS = {
    "MatMul": _tensorflow_matmul,
    "BatchMatMul": _tensorflow_matmul,
    "BatchMatMulV2": _tensorflow_matmul,
    "BatchMatMulV3": _tensorflow_matmul,
    "Einsum": _einsum,
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "Conv2DBackpropInput": _transposed,
    "Conv3DBackpropInputV2": _transposed,
}


# Multiply-accumulates of LiteRT's operators, from the shapes of what they read and make.


# Operators without a formula here that multiply matrices, or may.
_TFLITE_MULTIPLIES = {
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "CONCAT_EMBEDDINGS",
    "DELEGATE",
    "RFFT2D",
    "STABLEHLO_CONVOLUTION",
    "STABLEHLO_CUSTOM_CALL",
    "STABLEHLO_DOT_GENERAL",
}


def of_tflite_operator(name, inputs, outputs, options):
    """The multiply-accumulates of an operator.

    Args:
        name: Its kind, such as `"CONV_2D"`.
        inputs: Shapes, `None` where they are not known or the input is left out.
        outputs: Likewise.
        options: Its options as of LiteRT's schema, or `None`.

    Returns:
        A whole number; `None` if it multiplies, or is not known, and cannot be counted.
    """
    if name in _TFLITE_FORMULAS:
        return _TFLITE_FORMULAS[name](inputs, outputs, options)
    is_unknown = name.startswith(("CUSTOM", "UNKNOWN"))
    return None if is_unknown or name in _TFLITE_MULTIPLIES else 0


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


def _tflite_matmul(inputs, outputs, options):
    if outputs[0] is None or inputs[0] is None:
        return None
    return math.prod(outputs[0]) * inputs[0][-2 if options.adjX else -1]


def _recurrent(weights):
    """A formula: all weights at each time step of each row; input 0: `[batch, time, ...]`."""

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
_TFLITE_FORMULAS = {
    "BATCH_MATMUL": _tflite_matmul,
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
