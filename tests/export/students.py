"""Small students of each kind, and rows for them."""

import functools

import keras
import numpy as np
from keras import layers, ops

CLASSES = 10


def block(x, layer):
    x = layers.BatchNormalization(momentum=0.9, name=f"{layer.name}_norm")(layer(x))
    return layers.ReLU(name=f"{layer.name}_relu")(x)


def cnn():
    inputs = keras.Input((8, 8, 1), name="image")
    x = block(inputs, layers.Conv2D(8, 3, padding="same", use_bias=False, name="first"))
    x = block(x, layers.SeparableConv2D(16, 3, padding="same", strides=2, name="separable"))
    x = block(x, layers.DepthwiseConv2D(3, padding="same", name="depthwise"))
    x = block(x, layers.Conv2D(32, 1, name="last"))
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(x), name="cnn")


def mobile():
    """Blocks of MobileNetV3: hard-swish, squeeze and excitation, a residual."""
    inputs = keras.Input((8, 8, 1), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs))
    first = layers.Activation("hard_silu")(x)
    x = layers.Conv2D(16, 1, use_bias=False)(first)
    x = layers.Activation("hard_silu")(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.Activation("hard_silu")(layers.BatchNormalization()(x))
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
    squeezed = layers.Conv2D(4, 1, activation="relu")(squeezed)
    squeezed = layers.Conv2D(16, 1, activation="hard_sigmoid")(squeezed)
    x = layers.Multiply()([x, squeezed])
    x = layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(x))
    x = layers.Add()([x, first])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(x), name="mobile")


class Positions(layers.Layer):
    """Adds a learned vector for each position."""

    def build(self, shape):
        self.positions = self.add_weight(shape=shape[1:], initializer="uniform", name="positions")

    def call(self, inputs):
        return inputs + self.positions


def read(x, width):
    """One block of a transformer with two heads, and the classes of what it gives."""
    attended = layers.MultiHeadAttention(2, width // 2)(x, x)
    x = layers.LayerNormalization(epsilon=1e-5)(layers.Add()([x, attended]))
    wide = layers.Dense(width)(layers.Dense(2 * width, activation="gelu")(x))
    x = layers.LayerNormalization(epsilon=1e-5)(layers.Add()([x, wide]))
    return layers.Dense(CLASSES, name="logits")(layers.GlobalAveragePooling1D()(x))


def transformer():
    inputs = keras.Input((12,), dtype="int32", name="tokens")
    x = Positions()(layers.Embedding(50, 16)(inputs))
    return keras.Model(inputs, read(x, width=16), name="transformer")


def reader_of_rows():
    """A transformer that reads the rows of the digits of scikit-learn."""
    inputs = keras.Input((8, 8), name="rows")
    x = Positions()(layers.LayerNormalization()(layers.Dense(24)(inputs)))
    return keras.Model(inputs, read(x, width=24), name="reader")


def recurrent(layer, unroll=False):
    inputs = keras.Input((6, 5), name="steps")
    x = layer(16, unroll=unroll)(inputs)
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(x), name="recurrent")


def several():
    """Two inputs and two outputs, in dicts."""
    image, ids = keras.Input((6, 6, 2), name="image"), keras.Input((4,), dtype="int32", name="ids")
    seen = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(image))
    read = layers.Flatten()(layers.Embedding(20, 4)(ids))
    x = layers.Concatenate()([seen, read])
    outputs = {
        "kind": layers.Dense(CLASSES, name="kind")(x),
        "size": layers.Dense(1, name="size")(layers.Dense(8, activation="relu")(x)),
    }
    return keras.Model({"image": image, "ids": ids}, outputs, name="several")


def numbers():
    """Three numbers of a row."""
    inputs = keras.Input((8,), name="x")
    x = layers.Dense(16, activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(3, name="numbers")(x), name="numbers")


def yes_or_no(activation=None):
    inputs = keras.Input((8,), name="x")
    x = layers.Dense(16, activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(1, activation, name="yes")(x), name="yes_or_no")


def denoising():
    """A picture of a picture."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(3, 3, strides=2, padding="same", name="picture")(x)
    return keras.Model(inputs, x, name="denoising")


def embedding():
    """Vectors of length 1."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Flatten()(layers.Conv2D(8, 3, strides=2, activation="relu")(inputs))
    x = layers.UnitNormalization(name="vector")(layers.Dense(8, use_bias=False)(x))
    return keras.Model(inputs, x, name="embedding")


def causal():
    """Attention that looks back only."""
    inputs = keras.Input((12,), dtype="int32", name="tokens")
    x = layers.Embedding(50, 16)(inputs)
    attended = layers.MultiHeadAttention(2, 8)(x, x, use_causal_mask=True)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(layers.Add()([x, attended])))
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(x), name="causal")


class Subclassed(keras.Model):
    """Does not know its inputs."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


STUDENTS = {
    "cnn": cnn,
    "mobile": mobile,
    "transformer": transformer,
    "lstm": functools.partial(recurrent, layers.LSTM),
    "gru": functools.partial(recurrent, layers.GRU),
    "unrolled": functools.partial(recurrent, layers.GRU, unroll=True),
    "several": several,
}

# What their outputs are, where they are not logits of classes.
JUDGED = {
    "numbers": numbers,
    "one logit": yes_or_no,
    "one sigmoid": functools.partial(yes_or_no, "sigmoid"),
    "image to image": denoising,
    "embedding": embedding,
    "masked attention": causal,
}


def made(name):
    """A student with random weights, whose BatchNormalization has seen the rows."""
    keras.utils.set_random_seed(3)
    student = {**STUDENTS, **JUDGED}[name]()
    for _ in range(30):
        student(rows(name), training=True)
    return student


def rows(name, count=64):
    """Inputs of a student, in its structure."""
    rng = np.random.default_rng(5)
    if name in ("cnn", "mobile"):
        return rng.normal(size=(count, 8, 8, 1)).astype("float32")
    if name in ("image to image", "embedding"):
        return rng.normal(size=(count, 8, 8, 3)).astype("float32")
    if name in ("numbers", "one logit", "one sigmoid"):
        return rng.normal(size=(count, 8)).astype("float32")
    if name in ("transformer", "masked attention"):
        return rng.integers(50, size=(count, 12)).astype("int32")
    if name == "several":
        return {
            "image": rng.normal(size=(count, 6, 6, 2)).astype("float32"),
            "ids": rng.integers(20, size=(count, 4)).astype("int32"),
        }
    return rng.normal(size=(count, 6, 5)).astype("float32")


def outputs(student, inputs):
    """The outputs of a student as a list of arrays."""
    return [ops.convert_to_numpy(x) for x in keras.tree.flatten(student(inputs, training=False))]
