"""The table of what can be tapped: blocks, attention of any kind, layers that give `None`."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd.taps import overview
from tests.distiller import linear
from tests.taps import networks
from tests.taps.networks import HEADS, LENGTH, WIDTH


class Own(keras.layers.Layer):
    """Attention without `return_attention_scores`, as Llama's: its softmax is read."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.normalize = keras.layers.Softmax()
        self.value = keras.layers.Dense(WIDTH)

    def call(self, x, rows=None):
        scores = self.normalize(keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1))))
        return keras.ops.matmul(scores, self.value(x))


class Around(keras.layers.Layer):
    """A block around it, which has one softmax inside, too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention, self.norm = Own(), keras.layers.LayerNormalization()

    def call(self, x):
        return self.norm(x + self.attention(x))


class Partly(keras.layers.Layer):
    """Gives a tuple in which a tensor is left out."""

    def call(self, x):
        return x, None


def attending(depth=2):
    inputs = keras.Input((LENGTH, WIDTH))
    x = inputs
    for i in range(depth):
        x = Around(name=f"block_{i}")(x)
    return keras.Model(inputs, networks.head()(x))


def rows_of(model, **options):
    return kd.taps.summary(model, print_fn=None, **options)


def test_attention_is_shown_once_where_a_softmax_is_read():
    shown = {row["layer"]: row["attention"] for row in rows_of(attending()) if row["attention"]}
    scores = (None, LENGTH, LENGTH)
    assert shown == {"block_0/attention": scores, "block_1/attention": scores}


def test_softmax_over_classes_is_no_attention():
    class Head(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense, self.softmax = keras.layers.Dense(3), keras.layers.Softmax()

        def call(self, x):
            return self.softmax(self.dense(x))

    model = keras.Sequential([keras.Input((4,)), Head()])
    assert [row["attention"] for row in rows_of(model)] == [None] * 3


def test_calls_of_a_shared_attention_layer_have_their_own_shapes():
    attention = keras.layers.MultiHeadAttention(HEADS, 3, name="attention")
    long, short = keras.Input((LENGTH, WIDTH)), keras.Input((2, WIDTH))
    outputs = attention(attention(long, long), short)
    rows = rows_of(keras.Model([long, short], outputs))
    shapes = [row["attention"] for row in rows if row["layer"] == "attention"]
    assert shapes == [(None, HEADS, LENGTH, LENGTH), (None, HEADS, LENGTH, 2)]


def test_none_among_the_outputs():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.partly = Partly()

        def call(self, x):
            return self.partly(x)[0]

    rows = rows_of(Model(), inputs=np.zeros((2, 3), "float32"))
    assert [row["output"] for row in rows] == [((None, 3), None)]


def test_blocks_only():
    lines = []
    rows = kd.taps.summary(networks.transformer(), print_fn=lines.append, blocks_only=True)
    assert [row["layer"] for row in rows] == [
        "backbone/embedding",
        "backbone/transformer_layer_0",
        "backbone/transformer_layer_1",
        "head",
    ]
    assert rows[1]["attention"] == (None, HEADS, None, None)
    assert rows[0]["attention"] is None
    assert len(lines) == 5
    # Without blocks: what has weights.
    assert [row["layer"] for row in rows_of(networks.functional(), blocks_only=True)] == [
        "first",
        "head",
    ]


def found(model, inputs=None, known=()):
    top = overview.top_of(overview.calls_of(model, inputs))
    return [[call.row["layer"] for call in run] for run in overview.runs_of(top, known)]


def test_blocks_in_a_list_and_in_a_layer_around_them():
    x = np.zeros((2, linear.FEATURES), "float32")
    assert found(networks.subclassed(), x) == [["blocks/0", "blocks/1"]]

    class Stack(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.blocks = [Around(), Around()]

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    model = keras.Sequential([keras.Input((LENGTH, WIDTH)), Stack()])
    name = model.layers[0].name
    assert found(model) == [[f"{name}/blocks/0", f"{name}/blocks/1"]]


def test_a_layer_with_weights_between_them_divides_blocks():
    inputs = keras.Input((LENGTH, WIDTH))
    x = Around(name="a")(inputs)
    x = Around(name="b")(keras.layers.Dropout(0.1)(x))
    x = keras.layers.LayerNormalization()(x)
    x = Around(name="d")(Around(name="c")(x))
    assert found(keras.Model(inputs, x)) == [["a", "b"], ["c", "d"]]


def test_a_layer_alone():
    # One that attends is a block of a transformer; another only where its class is known to be.
    assert found(attending(depth=1)) == [["block_0"]]
    inputs = keras.Input((linear.FEATURES,))
    model = keras.Model(inputs, networks.Block(WIDTH, name="only")(inputs))
    assert found(model) == []
    assert found(model, known={networks.Block}) == [["only"]]


def test_layers_that_are_not_blocks():
    inputs = keras.Input((LENGTH, WIDTH))
    x = inputs
    for _ in range(2):  # attention layers are a block's parts
        x = keras.layers.MultiHeadAttention(HEADS, 3)(x, x)
    for _ in range(2):  # all plain models are of one class
        x = keras.Sequential([keras.layers.Dense(WIDTH), keras.layers.ReLU()])(x)
    for _ in range(2):  # not made of layers
        x = keras.layers.Dense(WIDTH)(x)
    assert found(keras.Model(inputs, x)) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3,), r"`model`. Expected a keras.Model. Received: model=3 of type int"),
        ((keras.layers.Dense,), r"`model`. Expected a keras.Model"),
        ((networks.functional(), None, 3), r"`print_fn`.*print_fn=3"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        kd.taps.summary(*arguments)
