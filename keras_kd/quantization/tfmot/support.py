"""Which layers tensorflow-model-optimization trains for integers, and the error for others.

What is in these tables was quantized, exported and run as an int8 file; see the tests.
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


_BEFORE_NORM = ("Conv2D", "Conv2DTranspose", "DepthwiseConv2D", "SeparableConv2D", "Dense")
# Activations inside of layers, and of the layer Activation.
ACTIVATIONS = ("linear", "relu", "sigmoid", "softmax", "tanh")
LAYERS = {
    "Dense": Support(True, True),
    "Conv2D": Support(True, True),
    "DepthwiseConv2D": Support(True, True),
    "SeparableConv2D": Support(True, "rounded as two layers, depthwise and pointwise"),
    "Conv2DTranspose": Support(True, True),
    "BatchNormalization": Support(True, "right after a dense or 2-D convolutional layer"),
    "Activation": Support(True, f"of {', '.join(ACTIVATIONS)}"),
    "ReLU": Support(True, True),
    "LeakyReLU": Support(True, True),
    "Softmax": Support(True, True),
    "Add": Support(True, True),
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
        f"{'' if reason is None else ': ' + reason}. It takes {', '.join(sorted(LAYERS))}. "
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
    if kind not in LAYERS:
        raise refused(name, kind)
    activation = config.get("activation", "linear")
    if activation not in ACTIVATIONS:
        raise refused(name, kind, f"its activation is {activation!r}, not one of {ACTIVATIONS}")
    if config.get("data_format") == "channels_first":
        raise refused(name, kind, "its data_format is 'channels_first'")
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
