"""Rules of recurrent layers."""

import keras

from keras_kd.students.channels import Summed, tiled

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


RULES = {
    keras.layers.LSTM: _recurrent,
    keras.layers.GRU: _recurrent,
    keras.layers.SimpleRNN: _recurrent,
    keras.layers.Bidirectional: _bidirectional,
}
