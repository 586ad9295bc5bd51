"""Teachers of each family that can be shrunk, small."""

import keras
import numpy as np
from keras import layers

CLASSES = 5
TOKENS, LENGTH = 11, 6


def mlp(width=12, depth=4):
    hidden = [layers.Dense(width, activation="relu", name=f"hidden_{i}") for i in range(depth)]
    return keras.Sequential([keras.Input((width,)), *hidden, layers.Dense(CLASSES, name="head")])


def vgg():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv_0"),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv_1"),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="conv_2"),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(12, 3, padding="same", activation="relu", name="conv_3"),
            layers.Flatten(name="flat"),
            layers.Dropout(0.01, name="drop"),
            layers.Dense(16, activation="relu", name="dense"),
            layers.Dense(CLASSES, activation="softmax", name="head"),
        ]
    )


def _normalized(x, filters, name, size=3, strides=1, activation="relu"):
    x = layers.Conv2D(
        filters, size, strides=strides, padding="same", use_bias=False, name=f"{name}_conv"
    )(x)
    x = layers.BatchNormalization(name=f"{name}_norm")(x)
    return x if activation is None else layers.Activation(activation, name=f"{name}_act")(x)


def resnet(blocks=2):
    inputs = keras.Input((8, 8, 3))
    x = _normalized(inputs, 8, "stem")
    for stage, filters in enumerate((8, 12)):
        for block in range(blocks):
            name, strides = f"s{stage}b{block}", 1 + (stage == 1 and block == 0)
            y = _normalized(x, filters, name + "_0", strides=strides)
            y = _normalized(y, filters, name + "_1", activation=None)
            if strides == 2:
                x = _normalized(x, filters, name + "_skip", 1, 2, activation=None)
            x = layers.Activation("relu", name=name)(layers.Add(name=name + "_add")([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES, name="head")(x), name="resnet")


def densenet():
    inputs = x = keras.Input((8, 8, 3))
    for i in range(3):
        y = layers.BatchNormalization(name=f"norm_{i}")(x)
        y = layers.Conv2D(4 + 2 * i, 3, padding="same", activation="relu", name=f"conv_{i}")(y)
        x = layers.Concatenate(name=f"concat_{i}")([x, y])
    x = layers.Conv2D(8, 1, name="transition")(x)
    x = layers.Flatten(name="flat")(layers.AveragePooling2D(2)(x))
    return keras.Model(inputs, layers.Dense(CLASSES, name="head")(x), name="densenet")


def mobilenet(multiplier=2):
    """With depthwise and separable convolutions, and squeeze and excitation."""
    inner = 16 * multiplier
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    for i in range(2):
        y = layers.Conv2D(16, 1, activation="relu", name=f"expand_{i}")(x)
        y = layers.DepthwiseConv2D(
            3, padding="same", depth_multiplier=multiplier, name=f"depth_{i}"
        )(y)
        gate = layers.GlobalAveragePooling2D(name=f"mean_{i}")(y)
        gate = layers.Reshape((1, 1, inner), name=f"reshape_{i}")(gate)
        gate = layers.Conv2D(4, 1, activation="relu", name=f"squeeze_{i}")(gate)
        gate = layers.Conv2D(inner, 1, activation="sigmoid", name=f"excite_{i}")(gate)
        y = layers.Multiply(name=f"gate_{i}")([y, gate])
        y = layers.Conv2D(8, 1, name=f"project_{i}")(y)
        x = layers.Add(name=f"add_{i}")([x, y])
    x = layers.SeparableConv2D(12, 3, name="separable")(x)
    x = layers.GroupNormalization(3, name="group_norm")(x)
    x = layers.GlobalMaxPooling2D(name="mean")(x)
    return keras.Model(inputs, layers.Dense(CLASSES, name="head")(x), name="mobilenet")


def transformer(blocks=2, width=8, heads=4):
    """With positions that are embedded too, and operations such as x + y between tensors."""
    tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    positions = keras.Input((LENGTH,), dtype="int32", name="positions")
    x = layers.Embedding(TOKENS, width, name="embedding")(tokens)
    x = x + layers.Embedding(LENGTH, width, name="position")(positions)
    for i in range(blocks):
        y = layers.LayerNormalization(name=f"b{i}_norm_0")(x)
        x = x + layers.MultiHeadAttention(heads, 3, dropout=0.1, name=f"b{i}_attention")(y, y)
        y = layers.LayerNormalization(name=f"b{i}_norm_1")(x)
        y = layers.Dense(2 * width, activation="gelu", name=f"b{i}_up")(y)
        x = x + layers.Dense(width, name=f"b{i}_down")(y)
    x = layers.LayerNormalization(name="norm")(x)
    outputs = layers.Dense(CLASSES, name="head")(x[:, 0])
    return keras.Model([tokens, positions], outputs, name="transformer")


def lstm(units=5):
    tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    x = layers.Embedding(TOKENS, 6, name="embedding")(tokens)
    x = layers.Bidirectional(layers.GRU(units, return_sequences=True), name="both")(x)
    x, *state = layers.LSTM(6, return_sequences=True, return_state=True, name="encoder")(x)
    x = layers.LSTM(6, name="decoder")(x, initial_state=state)
    x = layers.Concatenate(name="concat")([x, layers.Dense(4, name="side")(state[0])])
    return keras.Model(tokens, layers.Dense(CLASSES, name="head")(x), name="lstm")


def nested():
    """A backbone and a sequential head, the head called twice."""
    inputs = keras.Input((8, 8, 3))
    backbone = keras.Model(inputs, layers.Conv2D(8, 3, name="conv")(inputs), name="backbone")
    head = keras.Sequential(
        [keras.Input((8,)), layers.Dense(8, name="hidden"), layers.Dense(8, name="last")],
        name="neck",
    )
    x = layers.GlobalAveragePooling2D(name="mean")(backbone(inputs))
    x = head(layers.Activation("relu", name="relu")(head(x)))
    x = layers.Dense(8, name="wide")(x)
    return keras.Model(inputs, layers.Dense(CLASSES, name="head")(x), name="nested")


def various():
    """The other layers with rules, and several inputs and outputs by name."""
    image, other = keras.Input((2, 8, 8), name="image"), keras.Input((4,), name="other")
    first = {"data_format": "channels_first"}
    x = layers.Conv2DTranspose(6, 3, padding="same", name="up", data_format="channels_last")(image)
    x = layers.PReLU(shared_axes=[1, 2], name="prelu")(x)
    x = layers.Reshape((-1, 6), name="to_tokens")(x)
    x = layers.EinsumDense("abc,cde->abde", (None, 4, 3), bias_axes="de", name="einsum")(x)
    x = layers.Reshape((-1, 12), name="from_heads")(x)
    x = layers.Permute((2, 1), name="permute")(x)
    x = layers.GlobalAveragePooling1D(name="averaged", **first)(x)
    x = layers.Concatenate(name="concat")([x, layers.Dense(6, name="of_other")(other), other])
    x = layers.RMSNormalization(name="rms")(x)
    y = layers.RepeatVector(3, name="repeat")(layers.Dense(8, name="dense")(x))
    y = layers.Conv1D(6, 2, name="conv")(layers.ZeroPadding1D(1, name="pad")(y))
    y = layers.Attention(name="attention")([y, y])
    y = keras.ops.mean(keras.ops.relu(y) * 0.5, axis=1)
    outputs = {"a": layers.Dense(CLASSES, name="a")(x), "b": layers.Dense(2, name="b")(y)}
    return keras.Model({"image": image, "other": other}, outputs, name="various")


def data(model, rows=3, seed=0):
    """A batch of inputs in the structure of the model's."""
    rng = np.random.default_rng(seed)

    def one(tensor):
        shape = (rows, *tensor.shape[1:])
        if tensor.dtype == "int32":
            limit = LENGTH if tensor.name == "positions" else TOKENS
            return rng.integers(0, limit, shape).astype("int32")
        return rng.normal(size=shape).astype("float32")

    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(one, inputs)


def randomize(model, seed=0):
    """Other weights than the initial zeros and ones; positive, so that they can be variances."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = rng.normal(size=weight.shape) * 0.3
        weight.assign(np.abs(value) + 0.1 if "variance" in weight.path else value)


FAMILIES = {
    made.__name__: made
    for made in (
        mlp, vgg, resnet, densenet, mobilenet, transformer, lstm, nested, various,
    )
}  # fmt: skip
