"""Which layers tensorflow-model-optimization trains for integers, and the error for others.

What is in these tables was quantized, exported and run as an int8 file; see the tests. Some
combinations still fail (pooling right after Concatenate): `distil` makes a trial file of the
student before it trains.
"""

from typing import NamedTuple


class Support(NamedTuple):
    """How the two engines take a layer.

    Attributes:
        native: Whether `keras_kd.quantization_aware` takes it.
        tfmot: Whether this engine does, or the condition in words.
    """

    native: bool
    tfmot: bool | str


_BEFORE_NORM = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D")
# Those inside of layers, and those of the layer Activation: behind them swish and relu6 stay float.
ACTIVATIONS = ("linear", "relu", "sigmoid", "softmax", "tanh", "gelu")
OF_ACTIVATION = (*ACTIVATIONS, "silu", "relu6")
LAYERS = {
    "Dense": Support(True, True),
    "Conv2D": Support(True, True),
    "DepthwiseConv2D": Support(True, True),
    "SeparableConv2D": Support(True, "rounded as two layers, depthwise and pointwise"),
    "Conv2DTranspose": Support(True, False),  # quantize_model takes it; the file leaves it in float
    "BatchNormalization": Support(True, "right after a 2-D convolution without activation"),
    "Activation": Support(True, f"of {', '.join(OF_ACTIVATION)}"),
    "ReLU": Support(True, "without negative_slope (LeakyReLU has one) and threshold"),
    "LeakyReLU": Support(True, True),
    "Softmax": Support(True, True),
    "Add": Support(True, "of two"),
    "Concatenate": Support(True, True),
    "AveragePooling2D": Support(True, True),
    "GlobalAveragePooling2D": Support(True, True),
    "MaxPooling2D": Support(True, True),
    "GlobalMaxPooling2D": Support(True, True),
    "UpSampling2D": Support(True, True),
    "ZeroPadding2D": Support(True, True),
    "Cropping2D": Support(True, True),
    "Flatten": Support(True, True),
    "Reshape": Support(True, True),
    "Permute": Support(True, True),
    "Dropout": Support(True, True),
    "SpatialDropout2D": Support(True, True),
}
TAKEN = tuple(sorted(name for name, support in LAYERS.items() if support.tfmot))


def table():
    """The layers of both engines as text, a line each."""
    lines = [f"{'layer':24}{'keras_kd':10}tfmot"]
    for name, (native, tfmot) in sorted(LAYERS.items()):
        lines.append(f"{name:24}{_word(native):10}{_word(tfmot)}")
    lines.append(f"{'any other':24}{'yes, or it names it':10} no")
    return "\n".join(lines)


def _word(value):
    return value if isinstance(value, str) else ("yes" if value else "no")


def refused(name, kind, reason=None):
    """The error for a layer that tfmot does not take.

    Args:
        name: Of the layer.
        kind: Its class, in words.
        reason: What of it is in the way; `None`: its class.
    """
    return ValueError(
        f"Layer {name!r} ({kind}) cannot be trained with tensorflow-model-optimization"
        f"{'' if reason is None else ': ' + reason}. It takes {', '.join(TAKEN)}. "
        "keras_kd.quantization_aware, the other engine, takes any architecture that a file can "
        "hold."
    )


def check(name, kind, config, before):
    """Raises unless tfmot takes a layer.

    Args:
        name: Of the layer.
        kind: The name of its class.
        config: Its configuration; activations by name.
        before: `(kind, config)` of the layers whose outputs it gets.
    """
    if kind in ("Functional", "Sequential", "Model"):
        raise refused(name, kind, "it is a model inside of the model; put its layers in directly")
    if kind not in TAKEN:
        raise refused(name, kind)
    activation = config.get("activation", "linear")
    known = OF_ACTIVATION if kind == "Activation" else ACTIVATIONS
    if activation not in known:
        raise refused(name, kind, f"its activation is {activation!r}, not one of {known}")
    if config.get("data_format") == "channels_first":
        raise refused(name, kind, "its data_format is 'channels_first'")
    if kind == "ReLU" and (config["negative_slope"] or config["threshold"]):
        raise refused(name, kind, "it has a negative_slope or a threshold")
    if kind == "Add" and len(before) > 2:
        raise refused(name, kind, f"it adds {len(before)} values; add two at a time")
    if kind == "BatchNormalization":
        _check_norm(name, kind, before)


def _check_norm(name, kind, before):
    found = [
        kind
        for kind, config in before
        if kind in _BEFORE_NORM and config.get("activation", "linear") == "linear"
    ]
    if not found:
        raise refused(
            name,
            kind,
            f"it must come right after one of {_BEFORE_NORM} that has no activation of its own; it "
            f"comes after {[kind for kind, _ in before]}",
        )
