"""Layers that have kernels, by how the axes of these are laid out."""

from keras import layers

CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
ALL = (*CONVOLUTIONS, *TRANSPOSED, *DEPTHWISE, *SEPARABLE, layers.Dense, layers.EinsumDense)
RECURRENT_CELLS = (layers.SimpleRNNCell, layers.GRUCell, layers.LSTMCell)


def summed_axes(equation):
    """The axes of the kernel of an `EinsumDense` that are summed over: not of its outputs."""
    inputs, outputs = equation.replace(" ", "").split("->")
    kernel = inputs.split(",")[1]
    return tuple(i for i, letter in enumerate(kernel) if letter not in outputs)
