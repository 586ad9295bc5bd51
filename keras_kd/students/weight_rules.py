"""Rules of layers with weights: dense, convolutions, normalizations, embeddings, attention."""

import keras

from keras_kd.students.channels import Summed, tiled


def channel_axis(site, x):
    """Index of the axis of channels of a layer on images or sequences."""
    return 1 if site.config.get("data_format") == "channels_first" else len(x.axes) - 1


def replaced(x, index, axis):
    """The axes of a signal, one of them another."""
    axes = list(x.axes)
    axes[index] = axis
    return tuple(axes)


def spatial(site, x, channel):
    """Makes sure that only the channels of an image or a sequence are narrowed."""
    others = [axis for i, axis in enumerate(x.axes) if i != channel]
    site.plain("channels lie along its spatial or time axes", others)


def _bias(site, axis):
    return [(axis,)] if site.config["use_bias"] else []


def _dense(site, x):
    read = site.reads("input", x.axes[-1])
    made = site.edits[("units",)] = site.unit("units", site.config["units"])
    site.weights = [(Summed(read), made), *_bias(site, made)]
    return [replaced(x, -1, made)]


def _convolution(site, x, is_transposed=False):
    if site.config.get("groups", 1) != 1:
        return site.opaque("its convolution has groups")
    channel = channel_axis(site, x)
    spatial(site, x, channel)
    read = site.reads("input", x.axes[channel])
    made = site.edits[("filters",)] = site.unit("filters", site.config["filters"])
    ends = (made, Summed(read)) if is_transposed else (Summed(read), made)
    site.weights = [((None,) * (len(x.axes) - 2) + ends), *_bias(site, made)]
    return [replaced(x, channel, made)]


def _transposed(site, x):
    return _convolution(site, x, is_transposed=True)


def _separable(site, x):
    channel = channel_axis(site, x)
    spatial(site, x, channel)
    read = site.reads("input", x.axes[channel])
    made = site.edits[("filters",)] = site.unit("filters", site.config["filters"])
    between = tiled(1, read, site.config["depth_multiplier"])
    window = (None,) * (len(x.axes) - 2)
    site.weights = [(*window, read, None), (*window, Summed(between), made), *_bias(site, made)]
    return [replaced(x, channel, made)]


def _depthwise(site, x):
    channel = channel_axis(site, x)
    spatial(site, x, channel)
    read = site.reads("input", x.axes[channel])
    made = tiled(1, read, site.config["depth_multiplier"])
    window = (None,) * (len(x.axes) - 2)
    site.weights = [(*window, read, None), *_bias(site, made)]
    return [replaced(x, channel, made)]


def _normalization(site, x, *args, **kwargs):
    del args, kwargs  # a mask
    axis = site.config["axis"]
    indices = [axis] if isinstance(axis, int) else axis
    read = tuple(site.reads(i, x.axes[i]) for i in indices)
    site.weights = [read] * len(site.layer.weights)
    return [x.axes]


def _group_normalization(site, x):
    axis, groups = site.config["axis"], site.config["groups"]
    read = site.reads("input", x.axes[axis])
    site.weights = [(read,)] * len(site.layer.weights)
    if read is not None and groups not in (-1, x.shape[axis]):
        # Each group loses the same share, so that no channel changes its group.
        each = site.unit("group", x.shape[axis] // groups)
        site.tie(read, tiled(groups, each, 1))
    elif read is not None and groups != -1:
        site.edits[("groups",)] = read
    return [x.axes]


def _prelu(site, x):
    shared = site.config["shared_axes"] or []
    axes = [None if i in shared else site.reads(i, x.axes[i]) for i in range(1, len(x.axes))]
    site.weights = [tuple(axes)]
    return [x.axes]


def _embedding(site, x):
    made = site.edits[("output_dim",)] = site.unit("output", site.config["output_dim"])
    site.weights = [(None, made)]
    return [(*x.axes, made)]


def _multi_head_attention(site, query, value, key=None, attention_mask=None, **kwargs):
    del kwargs
    output_shape = site.config["output_shape"]
    if site.config.get("use_gate") or (output_shape is not None and len(output_shape) != 1):
        return site.opaque("it has a gate, or outputs with several axes")
    key = value if key is None else key
    if attention_mask is not None:
        site.plain("channels reach its mask", attention_mask.axes)
    heads = site.edits[("num_heads",)] = site.unit("heads", site.config["num_heads"])
    reads = [site.reads(*one) for one in zip("qkv", _last(query, key, value), strict=True)]
    if output_shape is None:
        made = reads[0]  # Keras makes the outputs as wide as the queries
    else:
        made = site.edits[("output_shape", 0)] = site.unit("output", output_shape[0])
    biases = site.config["use_bias"]
    for read in reads:
        site.weights += [(Summed(read), heads, None), (heads, None)][: 1 + biases]
    site.weights += [(Summed(heads), None, made), (made,)][: 1 + biases]
    return [replaced(query, -1, made), (None, heads, None, None)]


def _last(*signals):
    return [signal.axes[-1] for signal in signals]


def _attention(site, inputs, *args, **kwargs):
    del args, kwargs
    query, value, *key = inputs
    site.tie(*_last(query, *(key or [value])))
    site.weights = [()] * len(site.layer.weights)
    return [replaced(query, -1, value.axes[-1])]


def _einsum_dense(site, x):
    read, kernel, made = _labels(site.config["equation"], len(x.axes))
    axes = {label: site.reads(label, axis) for label, axis in zip(read, x.axes, strict=True)}
    new = [label for label in made if label not in axes]
    shape, is_number = site.config["output_shape"], isinstance(site.config["output_shape"], int)
    sizes = [shape] if is_number else list(shape)
    # The output's shape may leave out its first axes.
    for i, (label, width) in enumerate(zip(made[-len(sizes) :], sizes, strict=True)):
        if label in new:
            # Of several new axes (heads, and the width of each) the first one is narrowed.
            axes[label] = site.unit(label, width) if label == new[0] else None
        if width is not None:
            site.edits[("output_shape",) if is_number else ("output_shape", i)] = axes[label]
    summed = [label for label in read if label not in made]
    kernel_axes = [Summed(axes[label]) if label in summed else axes[label] for label in kernel]
    site.weights = [tuple(kernel_axes), *_einsum_bias(site, made, axes)]
    return [tuple(axes[label] for label in made)]


def _labels(equation, rank):
    """The labels of an einsum's input, kernel and output, with some for an ellipsis."""
    read, kernel, made = equation.replace(" ", "").replace(",", "->").split("->")
    elided = "0123456789"[: rank - len(read.replace("...", ""))]
    return read.replace("...", elided), kernel, made.replace("...", elided)


def _einsum_bias(site, made, axes):
    of_bias = site.config["bias_axes"] or ""
    first = min([made.index(label) for label in of_bias], default=len(made))
    bias = tuple(axes[label] if label in of_bias else None for label in made[first:])
    return [bias] if bias else []


RULES = {
    keras.layers.Dense: _dense,
    keras.layers.EinsumDense: _einsum_dense,
    keras.layers.Conv1D: _convolution,
    keras.layers.Conv2D: _convolution,
    keras.layers.Conv3D: _convolution,
    keras.layers.Conv1DTranspose: _transposed,
    keras.layers.Conv2DTranspose: _transposed,
    keras.layers.Conv3DTranspose: _transposed,
    keras.layers.SeparableConv1D: _separable,
    keras.layers.SeparableConv2D: _separable,
    keras.layers.DepthwiseConv1D: _depthwise,
    keras.layers.DepthwiseConv2D: _depthwise,
    keras.layers.BatchNormalization: _normalization,
    keras.layers.LayerNormalization: _normalization,
    keras.layers.RMSNormalization: _normalization,
    keras.layers.GroupNormalization: _group_normalization,
    keras.layers.PReLU: _prelu,
    keras.layers.Embedding: _embedding,
    keras.layers.MultiHeadAttention: _multi_head_attention,
    keras.layers.Attention: _attention,
}


# Rules of recurrent layers.


# Gates that lie side by side in a kernel's last axis, and states.
_GATES = {keras.layers.LSTM: 4, keras.layers.GRU: 3, keras.layers.SimpleRNN: 1}
_STATES = {keras.layers.LSTM: 2, keras.layers.GRU: 1, keras.layers.SimpleRNN: 1}


def _recurrent(site, x, initial_state=None, **kwargs):
    del kwargs
    axes = _weights(site, site.layer, x, "")
    made = site.edits[("units",)] = axes
    for state in keras.tree.flatten(initial_state):
        if state is not None:
            site.tie(state.axes[-1], made)
    return _outputs(site.layer, x, made, made)


def _weights(site, layer, x, key):
    """Adds the axes of a recurrent layer's weights to the site's; returns that of its units."""
    read = site.reads(key + "input", x.axes[-1])
    made = site.unit(key + "units", layer.units)
    gates = tiled(_GATES[type(layer)], made, 1)
    bias = layer.weights[2:]  # of a GRU it may have a row for each kernel
    site.weights += [(Summed(read), gates), (Summed(made), gates)]
    site.weights += [(None,) * (len(weight.shape) - 1) + (gates,) for weight in bias]
    return made


def _outputs(layer, x, made, *states):
    outputs = (*x.axes[:-1], made) if layer.return_sequences else (None, made)
    if not layer.return_state:
        return [outputs]
    return [outputs, *((None, state) for state in states for _ in range(_STATES[type(layer)]))]


def _bidirectional(site, x, initial_state=None, **kwargs):
    del kwargs
    layers = site.layer.forward_layer, site.layer.backward_layer
    if initial_state is not None or any(type(layer) not in _GATES for layer in layers):
        return site.opaque("it has initial states, or a layer inside without a rule")
    forward, backward = (_weights(site, layer, x, layer.name) for layer in layers)
    site.edits[("layer", "config", "units")] = forward
    site.edits[("backward_layer", "config", "units")] = backward
    merge = site.config["merge_mode"]
    if merge == "concat":
        return _outputs(layers[0], x, (*forward, *backward), forward, backward)
    site.tie(forward, backward)
    outputs = _outputs(layers[0], x, forward, forward, backward)
    return outputs if merge is not None else [outputs[0], *outputs]


RECURRENT_RULES = {
    keras.layers.LSTM: _recurrent,
    keras.layers.GRU: _recurrent,
    keras.layers.SimpleRNN: _recurrent,
    keras.layers.Bidirectional: _bidirectional,
}
