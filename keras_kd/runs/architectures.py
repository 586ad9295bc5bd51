"""Small built-in models by kind of data, which `kd.students.shrink` can make smaller.

Their layers have names of their own: what is made of them does not depend on what was made before.
"""

import keras

from keras_kd.runs.samples import Samples


def build(data: Samples, width: int, depth: int, dropout: float) -> keras.Model:
    """An untrained classifier.

    Args:
        data: What it is for.
        width: Channels or units.
        depth: Repeated layers.
        dropout: The rate before the last layer.

    Returns:
        A model that returns logits `[batch, classes]`.
    """
    layers = _BODIES[data.kind](data, width, depth)
    head = [
        keras.layers.Dropout(dropout, seed=0, name="dropout"),
        keras.layers.Dense(len(data.classes), name="logits"),
    ]
    inputs = keras.Input(data.shape, dtype=data.dtype, name="inputs")
    return keras.Sequential([inputs, *layers, *head], name="teacher")


def _of_images(data, width, depth):
    """Convolutions; two halvings for small images, more for larger ones, down to about 8 pixels."""
    height, breadth, _ = data.shape
    halvings = max(0, min(4, (min(height, breadth) // 4).bit_length() - 1))
    layers = [
        keras.layers.Rescaling(1 / 255, name="rescaling"),
        *_convolution("stem", max(8, width // 2), 2 if halvings > 2 else 1),
    ]
    for i in range(max(0, halvings - 1)):
        layers += _convolution(f"down_{i}", width, 2)
    for i in range(depth):
        layers += _convolution(f"block_{i}", width, 1)
    return [*layers, keras.layers.GlobalAveragePooling2D(name="pool")]


def _convolution(name, filters, strides):
    return [
        keras.layers.Conv2D(
            filters, 3, strides=strides, padding="same", use_bias=False, name=f"{name}_conv"
        ),
        keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm"),
        keras.layers.ReLU(name=f"{name}_relu"),
    ]


def _of_table(data, width, depth):
    del data
    names = ["first", *(f"block_{i}" for i in range(depth))]
    return [keras.layers.Dense(width, "relu", name=name) for name in names]


def _of_texts(data, width, depth):
    size = len(data.preprocessing["vocabulary"])
    blocks = [
        keras.layers.Conv1D(width, 3, padding="same", activation="relu", name=f"block_{i}")
        for i in range(depth)
    ]
    return [
        keras.layers.Embedding(size, width, name="embedding"),
        *blocks,
        keras.layers.GlobalMaxPooling1D(name="pool"),
    ]


_BODIES = {"images": _of_images, "table": _of_table, "texts": _of_texts}
