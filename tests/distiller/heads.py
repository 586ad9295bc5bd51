"""Linear models with two heads on one input, and the truth about their logits."""

import keras
import numpy as np

from tests.distiller import linear

CLASSES = {"a": 3, "b": 4}
FEATURES = linear.FEATURES


def model(seed, structure="dict", names=("a", "b")):
    """Outputs as `{"a": ..., "b": ...}` or `[a, b]`; the layers are called so too."""
    inputs = keras.Input((FEATURES,))
    outputs = {name: keras.layers.Dense(CLASSES[name], name=name)(inputs) for name in names}
    made = keras.Model(inputs, outputs if structure == "dict" else list(outputs.values()))
    rng = np.random.default_rng(seed)
    for name in names:
        layer = made.get_layer(name)
        layer.set_weights([rng.normal(size=weight.shape) for weight in layer.weights])
    return made


def logits_of(made, x):
    """Float64 `{name: logits}`."""
    return {name: linear.logits_of(made.get_layer(name), x) for name in CLASSES}


def labels(rows=linear.ROWS):
    rng = np.random.default_rng([3, rows])
    return {name: rng.integers(classes, size=rows) for name, classes in CLASSES.items()}


def arrange(values, structure):
    """A dict of values per head in the form of the model's outputs."""
    return dict(values) if structure == "dict" else list(values.values())
