"""MACs of Keras models and of their `.tflite` files equal hand counts, layer by layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_kd import runtimes
from keras_kd.measurement import sizes
from tests.measurement import files

# Layers, the shape of a row, and the multiply-accumulates of one row by hand. Where a file has
# other ones than the model, its own follow.
CASES = {
    "dense": ([layers.Dense(3)], (7,), 7 * 3),
    "dense of steps": ([layers.Dense(3)], (5, 7), 5 * 7 * 3),
    "conv1d": ([layers.Conv1D(6, 3)], (10, 4), 8 * 6 * 3 * 4),
    "conv1d, causal, dilated": (
        [layers.Conv1D(6, 3, dilation_rate=2, padding="causal")],
        (10, 4),
        10 * 6 * 3 * 4,
    ),
    "conv2d, strided": (
        [layers.Conv2D(6, 3, strides=2, padding="same")],
        (9, 8, 4),
        5 * 4 * 6 * 3 * 3 * 4,
    ),
    # TensorFlow's converter keeps 9 x 8 padded to 10 x 8, so that the file does a row more.
    "conv2d, dilated": (
        [layers.Conv2D(6, 3, dilation_rate=2)],
        (9, 8, 4),
        5 * 4 * 6 * 3 * 3 * 4,
        6 * 4 * 6 * 3 * 3 * 4,
    ),
    "conv2d, groups": ([layers.Conv2D(6, 3, groups=2)], (9, 8, 4), 7 * 6 * 6 * 3 * 3 * 2),
    "conv3d": ([layers.Conv3D(4, (2, 3, 3))], (5, 6, 7, 2), 4 * 4 * 5 * 4 * 2 * 3 * 3 * 2),
    "depthwise": (
        [layers.DepthwiseConv2D(3, depth_multiplier=2)],
        (9, 8, 4),
        7 * 6 * 8 * 3 * 3,
    ),
    "depthwise, dilated": (
        [layers.DepthwiseConv2D(3, dilation_rate=2)],
        (8, 8, 4),
        4 * 4 * 4 * 3 * 3,
    ),
    "separable": (
        [layers.SeparableConv2D(6, 3, padding="same")],
        (9, 8, 4),
        9 * 8 * (4 * 3 * 3 + 4 * 6),
    ),
    "transpose": (
        [layers.Conv2DTranspose(6, 3, strides=2, padding="same")],
        (5, 4, 3),
        5 * 4 * 3 * 3 * 3 * 6,
    ),
    "einsum": ([layers.EinsumDense("abc,cde->abde", (None, 2, 3))], (5, 4), 5 * 4 * 2 * 3),
    "simple rnn": ([layers.SimpleRNN(5)], (6, 4), 6 * 5 * (4 + 5)),
    "lstm": ([layers.LSTM(5)], (6, 4), 6 * 4 * 5 * (4 + 5)),
    # The file leaves out the product of the first state, which is 0.
    "lstm, unrolled": (
        [layers.LSTM(5, unroll=True)],
        (6, 4),
        6 * 4 * 5 * (4 + 5),
        6 * 4 * 5 * (4 + 5) - 4 * 5 * 5,
    ),
    "gru, backwards": (
        [layers.GRU(5, go_backwards=True, return_sequences=True)],
        (6, 4),
        6 * 3 * 5 * (4 + 5),
    ),
    "bidirectional": (
        [layers.Bidirectional(layers.LSTM(5, return_sequences=True)), layers.GRU(3)],
        (6, 4),
        2 * 6 * 4 * 5 * (4 + 5) + 6 * 3 * 3 * (10 + 3),
    ),
    "time distributed": ([layers.TimeDistributed(layers.Dense(3))], (6, 8), 6 * 8 * 3),
    "nothing": (
        [layers.Rescaling(2.0), layers.LayerNormalization(), layers.ReLU(), layers.Softmax()],
        (6, 8),
        0,
    ),
}
RECURRENT = ("rnn", "lstm", "gru", "bidirectional")


def sequential(name, shape, stack):
    rows = 1 if any(word in name for word in RECURRENT) else None
    stack = [type(layer).from_config(layer.get_config()) for layer in stack]
    return files.filled(keras.Sequential([keras.Input(shape, batch_size=rows), *stack]))


def attention():
    x, y = keras.Input((5, 8), name="x"), keras.Input((3, 8), name="y")
    layer = layers.MultiHeadAttention(2, 3, value_dim=4, output_shape=7)
    macs = 8 * 2 * (5 * 3 + 3 * 3 + 3 * 4) + 2 * 5 * 3 * (3 + 4) + 5 * 2 * 4 * 7
    return files.filled(keras.Model([x, y], layer(x, y))), macs


def of_model(model, inputs):
    return sizes.measure_keras(model, inputs)


def of_file(model, inputs, path):
    return sizes.measure_file(runtimes.TFLiteFile(files.tflite(model, path)), inputs)


@pytest.mark.parametrize("name", CASES)
def test_of_layers_by_hand(name, tmp_path):
    stack, shape, macs, *in_file = CASES[name]
    model, x = sequential(name, shape, stack), np.zeros((1, *shape), "float32")
    size, notes = of_model(model, x)
    assert size["macs"] == macs
    assert not any(note.startswith("macs") for note in notes)
    size, notes = of_file(model, x, tmp_path / "m.tflite")
    assert size["macs"] == (in_file or [macs])[0]
    assert not notes


def test_of_attention_by_hand(tmp_path):
    model, macs = attention()
    x, y = np.zeros((1, 5, 8), "float32"), np.zeros((1, 3, 8), "float32")
    assert of_model(model, [x, y])[0]["macs"] == macs
    assert of_file(model, {"x": x, "y": y}, tmp_path / "m.tflite")[0]["macs"] == macs


def test_an_embedding_is_looked_up_not_multiplied(tmp_path):
    stack = [layers.Embedding(9, 4), layers.GlobalAveragePooling1D(), layers.Dense(3)]
    model = files.filled(keras.Sequential([keras.Input((6,), dtype="int32"), *stack]))
    ids = np.zeros((1, 6), "int32")
    assert of_model(model, ids)[0]["macs"] == 4 * 3
    assert of_file(model, ids, tmp_path / "m.tflite")[0]["macs"] == 4 * 3


def test_sizes_that_only_the_data_tells(tmp_path):
    inputs = keras.Input((None, 8), name="x")
    hidden = layers.MultiHeadAttention(2, 3)(inputs, inputs)
    model = files.filled(keras.Model(inputs, layers.Dense(2)(hidden)))
    path = files.tflite(model, tmp_path / "m.tflite")
    for steps in (3, 7):
        x = np.zeros((1, steps, 8), "float32")
        macs = steps * 8 * 6 * 4 + 2 * steps * steps * (3 + 3) + steps * 8 * 2
        assert of_model(model, x)[0]["macs"] == macs
        assert sizes.measure_file(runtimes.TFLiteFile(path), x)[0]["macs"] == macs


def test_a_file_of_several_rows_counts_for_one(tmp_path):
    model = files.filled(keras.Sequential([keras.Input((6, 4), batch_size=3), layers.LSTM(5)]))
    x = np.zeros((1, 6, 4), "float32")
    assert of_file(model, x, tmp_path / "m.tflite")[0]["macs"] == 6 * 4 * 5 * (4 + 5)


class Hidden(layers.Layer):
    """Multiplies outside of any layer, and once for nothing."""

    def call(self, x):
        keras.ops.matmul(x, keras.ops.transpose(x))
        return keras.ops.matmul(keras.ops.einsum("bi,bj->bij", x, x), x[:, :, None])


def test_of_operations_without_a_layer_and_only_those_that_are_used():
    model = keras.Sequential([keras.Input((4,)), Hidden()])
    assert of_model(model, np.zeros((1, 4), "float32"))[0]["macs"] == 4 * 4 + 4 * 4


class Repeats(layers.Layer):
    """A loop whose number of steps depends on the data."""

    def call(self, x):
        kernel = tf.ones((4, 4))
        goes_on = lambda value: tf.reduce_sum(value) < 100.0  # noqa: E731
        return tf.while_loop(goes_on, lambda value: (tf.matmul(value, kernel),), (x,))[0]


def test_a_loop_without_a_known_number_of_steps_is_noted():
    model = keras.Sequential([keras.Input((4,)), Repeats()])
    size, notes = of_model(model, np.ones((1, 4), "float32"))
    assert size["macs"] == 4 * 4
    assert any("does not show how many steps" in note for note in notes)


class Spectrum(layers.Layer):
    def call(self, x):
        return tf.abs(tf.signal.rfft(x))


def test_what_multiplies_and_is_not_counted_is_named(tmp_path):
    model = keras.Sequential([keras.Input((8,)), Spectrum(), layers.Dense(2)])
    x = np.zeros((1, 8), "float32")
    size, notes = of_model(model, x)
    assert size["macs"] == 5 * 2
    assert "macs: not counted, though they multiply: RFFT (1)." in notes
    size, notes = of_file(model, x, tmp_path / "m.tflite")
    assert size["macs"] == 5 * 2
    assert notes == ["macs: not counted, though they multiply: RFFT2D (1)."]


class Inner(layers.Layer):
    """Its work is a TensorFlow function, traced for any number of rows or for those given."""

    def __init__(self, model, is_shared):
        super().__init__()
        self.model, self.is_shared = model, is_shared
        self.function = tf.function(lambda x: model(x, training=False))

    def call(self, x):
        shared = self.function
        return (shared if self.is_shared else tf.function(self.model))(x)


@pytest.mark.parametrize("is_shared", [False, True])
def test_functions_inside_are_looked_into(is_shared):
    stack = [layers.BatchNormalization(), layers.Conv2D(4, 3, groups=2), layers.Dense(2)]
    inner = keras.Sequential([keras.Input((5, 5, 4)), *stack])
    model = keras.Sequential([keras.Input((5, 5, 4)), Inner(inner, is_shared)])
    size, notes = of_model(model, np.zeros((1, 5, 5, 4), "float32"))
    assert size["macs"] == (0 if is_shared else 9 * 4 * 9 * 2 + 9 * 4 * 2)
    missed = "macs: not counted, though they multiply: Conv2D (1), MatMul (1)."
    assert (missed in notes) == is_shared
