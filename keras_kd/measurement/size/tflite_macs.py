"""Multiply-accumulates of LiteRT's operators, from the shapes of what they read and make."""

import math

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


def of(name, inputs, outputs, options):
    """The multiply-accumulates of an operator.

    Args:
        name: Its kind, such as `"CONV_2D"`.
        inputs: Shapes, `None` where they are not known or the input is left out.
        outputs: Likewise.
        options: Its options as of LiteRT's schema, or `None`.

    Returns:
        A whole number; `None` if it multiplies, or is not known, and cannot be counted.
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
