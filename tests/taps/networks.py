"""Models of the kinds that are tapped, small, each with a head of `linear.CLASSES` logits."""

import keras
import numpy as np

from tests.distiller import linear

TOKENS, WIDTH, HEADS, LENGTH = 11, 6, 2, 7


def head():
    return keras.layers.Dense(linear.CLASSES, name="head")


def functional():
    inputs = keras.Input((linear.FEATURES,))
    x = keras.layers.Dense(WIDTH, name="first")(inputs)
    x = keras.layers.ReLU(name="relu")(x)
    x = x + 1.0  # an operation, no layer
    return keras.Model(inputs, head()(x))


def sequential():
    return keras.Sequential(
        [keras.Input((linear.FEATURES,)), keras.layers.Dense(WIDTH, name="first"), head()]
    )


def nested():
    inner = keras.Sequential(
        [keras.Input((linear.FEATURES,)), keras.layers.Dense(WIDTH, name="block")], name="inner"
    )
    inputs = keras.Input((linear.FEATURES,))
    backbone = keras.Model(inputs, keras.layers.ReLU(name="out")(inner(inputs)), name="backbone")
    outer = keras.Input((linear.FEATURES,))
    return keras.Model(outer, head()(backbone(outer)))


@keras.saving.register_keras_serializable(package="tests")
class Block(keras.layers.Layer):
    """A layer of layers, whose names Keras counts up."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self._dense = keras.layers.Dense(units)
        self.norm = keras.layers.LayerNormalization()

    def build(self, shape):
        self._dense.build(shape)
        self.norm.build((*shape[:-1], self.units))

    def call(self, x):
        return self.norm(self._dense(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """Its blocks are in a list, its head in an attribute."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [Block(WIDTH), Block(WIDTH)]
        self.head = keras.layers.Dense(linear.CLASSES)

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def subclassed():
    model = Subclassed()
    model(np.zeros((1, linear.FEATURES), "float32"))
    return model


def shared():
    layer = keras.layers.Dense(linear.FEATURES, activation="tanh", name="shared")
    inputs = keras.Input((linear.FEATURES,))
    return keras.Model(inputs, head()(layer(layer(layer(inputs)))))


def several_outputs():
    inputs = keras.Input((linear.FEATURES,))
    x = keras.layers.Dense(WIDTH, name="first")(inputs)
    outputs = {"a": head()(x), "b": keras.layers.Dense(linear.CLASSES, name="other")(x)}
    return keras.Model(inputs, outputs)


@keras.saving.register_keras_serializable(package="tests")
class Encoder(keras.layers.Layer):
    """As keras_hub's TransformerEncoder: a layer that holds its parts in private attributes."""

    def __init__(self, heads=HEADS, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.supports_masking = heads, True
        self._self_attention_layer = keras.layers.MultiHeadAttention(
            heads, 4, dropout=0.1, name="self_attention_layer"
        )
        self._self_attention_layer_norm = keras.layers.LayerNormalization(name="attention_norm")
        self._feedforward = keras.layers.Dense(WIDTH, name="feedforward")

    def build(self, shape):
        self._self_attention_layer.build(shape, shape)
        self._self_attention_layer_norm.build(shape)
        self._feedforward.build(shape)

    def call(self, x, mask=None, return_attention_scores=False):
        pairs = None if mask is None else mask[:, None, :] & mask[:, :, None]
        given = {"query": x, "value": x, "attention_mask": pairs}
        scores = None
        if return_attention_scores:
            attended, scores = self._self_attention_layer(**given, return_attention_scores=True)
        else:
            attended = self._self_attention_layer(**given)
        outputs = self._feedforward(self._self_attention_layer_norm(x + attended))
        return (outputs, scores) if return_attention_scores else outputs

    def get_config(self):
        return {**super().get_config(), "heads": self.heads}


class Backbone(keras.Model):
    """As keras_hub's backbones: a functional model made in `__init__` of a subclass."""

    def __init__(self, heads=HEADS):
        tokens = keras.Input((None,), dtype="int32", name="tokens")
        embedding = keras.layers.Embedding(TOKENS, WIDTH, mask_zero=True, name="embedding")
        x = embedding(tokens)
        for i in range(2):
            x = Encoder(heads, name=f"transformer_layer_{i}")(x)
        super().__init__(inputs=tokens, outputs=x, name="backbone")


def transformer(heads=HEADS):
    tokens = keras.Input((None,), dtype="int32")
    x = Backbone(heads)(tokens)
    return keras.Model(tokens, head()(keras.layers.GlobalAveragePooling1D()(x)))


def tokens_and_labels(rows=12, seed=0):
    """Sequences that end in padding."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, TOKENS, (rows, LENGTH))
    lengths = rng.integers(2, LENGTH + 1, rows)
    tokens[np.arange(LENGTH) >= lengths[:, None]] = 0
    return tokens.astype("int32"), rng.integers(linear.CLASSES, size=rows)
