"""Students of every kind, tiny, and how a file is run without keras_kd."""

import keras
import numpy as np
import onnxruntime
from keras import layers

CLASSES = 5


def cnn():
    x = inputs = keras.Input((8, 8, 2), name="image")
    for layer in (
        layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.SeparableConv2D(8, 3, padding="same"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
        layers.Conv2D(8, 1, groups=2),
        layers.GlobalAveragePooling2D(),
        layers.Dense(CLASSES, name="logits"),
    ):
        x = layer(x)
    return keras.Model(inputs, x)


def mobile():
    """The parts of MobileNetV3: hard_silu, squeeze and excitation, an inverted residual."""
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    x = layers.Activation("hard_silu")(layers.BatchNormalization()(x))
    y = layers.Conv2D(8, 1, use_bias=False)(x)
    y = layers.Activation("hard_silu")(layers.BatchNormalization()(y))
    y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    gate = layers.Conv2D(8, 1, activation="hard_sigmoid")(gate)
    y = layers.Conv2D(4, 1)(layers.Multiply()([y, gate]))
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(x))


def transformer():
    """With the exact gelu, and positions that are a constant of eager mode."""
    inputs = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(20, 8)(inputs)
    x = x + layers.Embedding(6, 8)(keras.ops.expand_dims(keras.ops.arange(6), 0))
    attention = layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, attention]))
    hidden = layers.Dense(8)(layers.Dense(16, activation="gelu")(x))
    x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, hidden]))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(x))


def lstm():
    inputs = keras.Input((6, 3), name="series")
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(layers.LSTM(4)(inputs)))


def gru():
    """Masked, of any length."""
    inputs = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.GRU(4)(layers.Embedding(20, 6, mask_zero=True)(inputs))
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(x))


def several():
    """Two inputs, two outputs, in dicts."""
    numbers = keras.Input((6,), name="numbers")
    kind = keras.Input((4,), dtype="int32", name="kind")
    embedded = layers.Flatten()(layers.Embedding(10, 3)(kind))
    x = layers.Dense(8, activation="relu")(layers.Concatenate()([numbers, embedded]))
    outputs = {"sort": layers.Dense(CLASSES)(x), "box": layers.Dense(4)(x)}
    return keras.Model({"numbers": numbers, "kind": kind}, outputs)


ALL = {"cnn": cnn, "mobile": mobile, "transformer": transformer}
ALL |= {"lstm": lstm, "gru": gru, "several": several}


def made(name):
    """A student with weights large enough that its outputs differ from row to row."""
    model, rng = ALL[name](), np.random.default_rng(0)
    for weight in model.weights:
        kind = weight.path.rsplit("/", 1)[-1]
        fan = max(int(np.prod(weight.shape[:-1])), 1)
        value = rng.normal(size=weight.shape) / np.sqrt(fan)
        is_scale = kind in ("gamma", "moving_variance")
        weight.assign(1 + 0.1 * np.abs(value) if is_scale else value)
    return model


def inputs_of(model, rows=16):
    rng = np.random.default_rng(1)

    def one(x):
        shape = [rows, *(size or 7 for size in x.shape[1:])]
        if x.dtype == "int32":
            return rng.integers(0, 10, shape).astype("int32")
        return rng.normal(size=shape).astype("float32")

    return keras.tree.map_structure(one, model.input)


def run(path, inputs, optimized=True):
    """What ONNX Runtime makes of a file: a dict of outputs, of inputs in the order of the file."""
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options)
    names = [x.name for x in session.get_inputs()]
    flat = [inputs[name] for name in names] if isinstance(inputs, dict) else [inputs]
    found = session.run(None, dict(zip(names, flat, strict=True)))
    return dict(zip([x.name for x in session.get_outputs()], found, strict=True))
