"""Students that tensorflow-model-optimization does not take: named before it is imported."""

import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.quantization import tfmot
from keras_kd.quantization.tfmot import convert

X, Y = np.zeros((32, 8, 8, 3), "float32"), np.arange(32) % 3


class Own(layers.Layer):
    def call(self, inputs):
        return inputs


def distill(middle, shape=(8, 8, 3)):
    inputs = keras.Input(shape)
    student = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(middle(inputs))))
    tfmot.distill(lambda x: x, student, (X, Y))


SEQUENCES = {
    "LSTM": lambda: layers.LSTM(4, name="culprit"),
    "LayerNormalization": lambda: layers.LayerNormalization(name="culprit"),
    "Conv1D": lambda: layers.Conv1D(4, 3, name="culprit"),
    "GroupNormalization": lambda: layers.GroupNormalization(4, name="culprit"),
    "Rescaling": lambda: layers.Rescaling(2.0, name="culprit"),
    "PReLU": lambda: layers.PReLU(name="culprit"),
    "Own": lambda: Own(name="culprit"),
    "Functional": lambda: keras.Model(*[keras.Input((8, 4))] * 2, name="culprit"),
    "Sequential": lambda: keras.Sequential([layers.Dense(4)], name="culprit"),
}


@pytest.mark.parametrize("kind", SEQUENCES)
def test_layers_it_does_not_take_are_named(kind):
    with pytest.raises(ValueError, match=rf"Layer 'culprit' \({kind}\)"):
        distill(SEQUENCES[kind](), (8, 4))
    assert "tensorflow_model_optimization" not in sys.modules


def test_attention_and_embeddings_are_named():
    def attention(x):
        return layers.MultiHeadAttention(2, 4, name="culprit")(x, x)

    with pytest.raises(ValueError, match=r"'culprit' \(MultiHeadAttention\)"):
        distill(attention, (8, 4))
    with pytest.raises(ValueError, match=r"'culprit' \(Embedding\)"):
        distill(layers.Embedding(9, 4, name="culprit"), (8,))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: layers.Conv2D(4, 3, activation="hard_silu", name="culprit"), "hard_silu"),
        (lambda: layers.Conv2D(4, 3, activation="silu", name="culprit"), "silu"),
        (lambda: layers.Activation("hard_sigmoid", name="culprit"), "hard_sigmoid"),
        (lambda: layers.ReLU(negative_slope=0.1, name="culprit"), "negative_slope"),
        (lambda: layers.BatchNormalization(name="culprit"), "right after"),
    ],
)
def test_unsupported_layers_raise_with_name_and_reason(layer, reason):
    with pytest.raises(ValueError, match=f"'culprit'.*{reason}"):
        distill(layer())


@pytest.mark.parametrize("before", ["relu", "pooling", "dense"])
def test_batch_normalization_must_follow_a_convolution(before):
    def middle(x):
        if before == "relu":
            x = layers.Conv2D(4, 3, activation="relu")(x)
        elif before == "dense":
            x = layers.Dense(4)(x)
        else:
            x = layers.MaxPooling2D()(layers.Conv2D(4, 3)(x))
        return layers.BatchNormalization(name="culprit")(x)

    with pytest.raises(ValueError, match="'culprit'.*right after"):
        distill(middle)


def test_calls_it_cannot_copy_raise():
    shared = layers.Conv2D(3, 3, padding="same", name="culprit")
    with pytest.raises(ValueError, match="'culprit'.*more than once"):
        distill(lambda x: shared(shared(x)))
    with pytest.raises(ValueError, match="'culprit'.*called with"):
        distill(lambda x: layers.Dropout(0.5, name="culprit")(x, training=True))
    with pytest.raises(ValueError, match="Multiply.*operation"):
        distill(lambda x: x * 2.0)
    with pytest.raises(ValueError, match="'culprit'.*two at a time"):
        distill(lambda x: layers.Add(name="culprit")([x, x, x]))


def test_a_subclassed_student_raises():
    class Student(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="has no weights yet"):
        tfmot.distill(lambda x: x, Student(), (X, Y))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": True}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"alpha": -1.0}, "alpha"),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_arguments_are_checked(arguments, name):
    student = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=name):
        tfmot.distill(lambda x: x, student, (X, Y), **arguments)


def test_the_table_tells_of_each_layer_and_is_in_the_documentation():
    lines = tfmot.table().splitlines()
    for name in convert.LAYERS:
        assert any(line.split()[0] == name for line in lines), name
    assert tfmot.table() in tfmot.__doc__
