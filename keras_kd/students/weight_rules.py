"""Rules of layers with weights: dense, convolutions, normalizations, attention, recurrent."""

import keras

from keras_kd.students.channels import Summed, tiled
from keras_kd.students.width import rule_for


def channel_axis(call, x):
    """The index of the channels' axis, for a layer on images or sequences."""
    return 1 if call.config.get("data_format") == "channels_first" else len(x.axes) - 1


def replace_axis(x, index, axis):
    """The axes of a signal, one of them replaced."""
    axes = list(x.axes)
    axes[index] = axis
    return tuple(axes)


def check_spatial(call, x, channel):
    """Lets only the channels of an image or a sequence be narrowed."""
    others = [axis for i, axis in enumerate(x.axes) if i != channel]
    call.keep_channels("channels lie along its spatial or time axes", others)


def _bias(call, axis):
    return [(axis,)] if call.config["use_bias"] else []


@rule_for(keras.layers.Dense)
def _dense(call, x):
    read = call.reads("input", x.axes[-1])
    made = call.edits[("units",)] = call.unit("units", call.config["units"])
    call.weights = [(Summed(read), made), *_bias(call, made)]
    return [replace_axis(x, -1, made)]


@rule_for(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
def _convolution(call, x, is_transposed=False):
    if call.config.get("groups", 1) != 1:
        return call.give_up("its convolution has groups")
    channel = channel_axis(call, x)
    check_spatial(call, x, channel)
    read = call.reads("input", x.axes[channel])
    made = call.edits[("filters",)] = call.unit("filters", call.config["filters"])
    ends = (made, Summed(read)) if is_transposed else (Summed(read), made)
    call.weights = [((None,) * (len(x.axes) - 2) + ends), *_bias(call, made)]
    return [replace_axis(x, channel, made)]


@rule_for(keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
def _transposed(call, x):
    return _convolution(call, x, is_transposed=True)


@rule_for(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
def _separable(call, x):
    channel = channel_axis(call, x)
    check_spatial(call, x, channel)
    read = call.reads("input", x.axes[channel])
    made = call.edits[("filters",)] = call.unit("filters", call.config["filters"])
    between = tiled(1, read, call.config["depth_multiplier"])
    window = (None,) * (len(x.axes) - 2)
    call.weights = [(*window, read, None), (*window, Summed(between), made), *_bias(call, made)]
    return [replace_axis(x, channel, made)]


@rule_for(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
def _depthwise(call, x):
    channel = channel_axis(call, x)
    check_spatial(call, x, channel)
    read = call.reads("input", x.axes[channel])
    made = tiled(1, read, call.config["depth_multiplier"])
    window = (None,) * (len(x.axes) - 2)
    call.weights = [(*window, read, None), *_bias(call, made)]
    return [replace_axis(x, channel, made)]


@rule_for(
    keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.RMSNormalization
)
def _normalization(call, x, *args, **kwargs):
    del args, kwargs  # a mask
    axis = call.config["axis"]
    indices = [axis] if isinstance(axis, int) else axis
    read = tuple(call.reads(i, x.axes[i]) for i in indices)
    call.weights = [read] * len(call.layer.weights)
    return [x.axes]


@rule_for(keras.layers.GroupNormalization)
def _group_normalization(call, x):
    axis, groups = call.config["axis"], call.config["groups"]
    read = call.reads("input", x.axes[axis])
    call.weights = [(read,)] * len(call.layer.weights)
    if read is not None and groups not in (-1, x.shape[axis]):
        # Each group loses the same share, so that no channel changes its group.
        each = call.unit("group", x.shape[axis] // groups)
        call.tie(read, tiled(groups, each, 1))
    elif read is not None and groups != -1:
        call.edits[("groups",)] = read
    return [x.axes]


@rule_for(keras.layers.PReLU)
def _prelu(call, x):
    shared = call.config["shared_axes"] or []
    axes = [None if i in shared else call.reads(i, x.axes[i]) for i in range(1, len(x.axes))]
    call.weights = [tuple(axes)]
    return [x.axes]


@rule_for(keras.layers.Embedding)
def _embedding(call, x):
    made = call.edits[("output_dim",)] = call.unit("output", call.config["output_dim"])
    call.weights = [(None, made)]
    return [(*x.axes, made)]


@rule_for(keras.layers.MultiHeadAttention)
def _multi_head_attention(call, query, value, key=None, attention_mask=None, **kwargs):
    del kwargs
    output_shape = call.config["output_shape"]
    if call.config.get("use_gate") or (output_shape is not None and len(output_shape) != 1):
        return call.give_up("it has a gate, or outputs with several axes")
    key = value if key is None else key
    if attention_mask is not None:
        call.keep_channels("channels reach its mask", attention_mask.axes)
    heads = call.edits[("num_heads",)] = call.unit("heads", call.config["num_heads"])
    reads = [call.reads(*one) for one in zip("qkv", _last_axes(query, key, value), strict=True)]
    if output_shape is None:
        made = reads[0]  # Keras makes the outputs as wide as the queries
    else:
        made = call.edits[("output_shape", 0)] = call.unit("output", output_shape[0])
    biases = call.config["use_bias"]
    for read in reads:
        call.weights += [(Summed(read), heads, None), (heads, None)][: 1 + biases]
    call.weights += [(Summed(heads), None, made), (made,)][: 1 + biases]
    return [replace_axis(query, -1, made), (None, heads, None, None)]


def _last_axes(*signals):
    return [signal.axes[-1] for signal in signals]


@rule_for(keras.layers.Attention)
def _attention(call, inputs, *args, **kwargs):
    del args, kwargs
    query, value, *key = inputs
    call.tie(*_last_axes(query, *(key or [value])))
    call.weights = [()] * len(call.layer.weights)
    return [replace_axis(query, -1, value.axes[-1])]


@rule_for(keras.layers.EinsumDense)
def _einsum_dense(call, x):
    read, kernel, made = _equation_labels(call.config["equation"], len(x.axes))
    axes = {label: call.reads(label, axis) for label, axis in zip(read, x.axes, strict=True)}
    new = [label for label in made if label not in axes]
    shape, is_number = call.config["output_shape"], isinstance(call.config["output_shape"], int)
    sizes = [shape] if is_number else list(shape)
    # The output's shape may leave out its first axes.
    for i, (label, width) in enumerate(zip(made[-len(sizes) :], sizes, strict=True)):
        if label in new:
            # Of several new axes (heads, and the width of each) the first one is narrowed.
            axes[label] = call.unit(label, width) if label == new[0] else None
        if width is not None:
            call.edits[("output_shape",) if is_number else ("output_shape", i)] = axes[label]
    summed = [label for label in read if label not in made]
    kernel_axes = [Summed(axes[label]) if label in summed else axes[label] for label in kernel]
    call.weights = [tuple(kernel_axes), *_einsum_bias(call, made, axes)]
    return [tuple(axes[label] for label in made)]


def _equation_labels(equation, rank):
    """The labels of an einsum's input, kernel and output, with some for an ellipsis."""
    read, kernel, made = equation.replace(" ", "").replace(",", "->").split("->")
    elided = "0123456789"[: rank - len(read.replace("...", ""))]
    return read.replace("...", elided), kernel, made.replace("...", elided)


def _einsum_bias(call, made, axes):
    of_bias = call.config["bias_axes"] or ""
    first = min([made.index(label) for label in of_bias], default=len(made))
    bias = tuple(axes[label] if label in of_bias else None for label in made[first:])
    return [bias] if bias else []


# Recurrent layers.

# Gates that lie side by side in a kernel's last axis, and states.
_GATES = {keras.layers.LSTM: 4, keras.layers.GRU: 3, keras.layers.SimpleRNN: 1}
_STATES = {keras.layers.LSTM: 2, keras.layers.GRU: 1, keras.layers.SimpleRNN: 1}


@rule_for(keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)
def _recurrent(call, x, initial_state=None, **kwargs):
    del kwargs
    axes = _recurrent_weights(call, call.layer, x, "")
    made = call.edits[("units",)] = axes
    for state in keras.tree.flatten(initial_state):
        if state is not None:
            call.tie(state.axes[-1], made)
    return _recurrent_outputs(call.layer, x, made, made)


def _recurrent_weights(call, layer, x, key):
    """Adds the axes of a recurrent layer's weights to the call's; returns that of its units."""
    read = call.reads(key + "input", x.axes[-1])
    made = call.unit(key + "units", layer.units)
    gates = tiled(_GATES[type(layer)], made, 1)
    bias = layer.weights[2:]  # of a GRU it may have a row for each kernel
    call.weights += [(Summed(read), gates), (Summed(made), gates)]
    call.weights += [(None,) * (len(weight.shape) - 1) + (gates,) for weight in bias]
    return made


def _recurrent_outputs(layer, x, made, *states):
    outputs = (*x.axes[:-1], made) if layer.return_sequences else (None, made)
    if not layer.return_state:
        return [outputs]
    return [outputs, *((None, state) for state in states for _ in range(_STATES[type(layer)]))]


@rule_for(keras.layers.Bidirectional)
def _bidirectional(call, x, initial_state=None, **kwargs):
    del kwargs
    layers = call.layer.forward_layer, call.layer.backward_layer
    if initial_state is not None or any(type(layer) not in _GATES for layer in layers):
        return call.give_up("it has initial states, or a layer inside without a rule")
    forward, backward = (_recurrent_weights(call, layer, x, layer.name) for layer in layers)
    call.edits[("layer", "config", "units")] = forward
    call.edits[("backward_layer", "config", "units")] = backward
    merge = call.config["merge_mode"]
    if merge == "concat":
        # Keras makes the backward layer of the forward one's configuration.
        forward[0].alike, backward[0].alike = backward, forward
        return _recurrent_outputs(layers[0], x, (*forward, *backward), forward, backward)
    call.tie(forward, backward)
    outputs = _recurrent_outputs(layers[0], x, forward, forward, backward)
    return outputs if merge is not None else [outputs[0], *outputs]
