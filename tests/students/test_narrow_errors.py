"""What cannot be narrowed is said by name, with the remedy; and the remedy works."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from tests.students import networks
from tests.taps.networks import Backbone


def shrink(teacher, width=0.5, **kwargs):
    return kd.students.shrink(teacher, width=width, print_fn=None, **kwargs)


@keras.saving.register_keras_serializable(package="tests")
class Scaled(layers.Layer):
    """A layer that nobody knows a rule for."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    def call(self, x):
        return x * self.scale


def between(layer, width=8):
    """A layer between two dense ones."""
    inputs = keras.Input((4, 6))
    x = layer(layers.Dense(width, name="before")(inputs))
    x = layers.Dense(10, name="after")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def grouped():
    return layers.Conv1D(8, 3, padding="same", groups=2, name="inner")


NO_RULE = {
    "custom": (lambda: Scaled(name="inner"), r"'inner' \(Scaled\).*no rule for its type"),
    "groups": (grouped, r"'inner' \(Conv1D\).*its convolution has groups"),
    "divided": (lambda: layers.Reshape((4, 2, 4), name="inner"), r"divides an axis of channels"),
    "lambda": (lambda: layers.Lambda(lambda x: x[..., ::2], name="inner"), r"\(Lambda\)"),
    "time": (lambda: layers.TimeDistributed(layers.Dense(8), name="inner"), r"no rule for its"),
}


@pytest.mark.parametrize("case", NO_RULE)
def test_layers_without_a_rule(case):
    make, message = NO_RULE[case]
    teacher = between(make())
    with pytest.raises(ValueError, match=message + r".*\['before'\].*keep=\['inner'\]"):
        shrink(teacher)
    networks.randomize(teacher)
    student = shrink(teacher, keep=["inner"])
    assert student.get_layer("before").units == 8
    assert student.get_layer("after").units == 5
    for a, b in zip(
        teacher.get_layer("inner").get_weights(),
        student.get_layer("inner").get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert student(networks.data(teacher)).shape == teacher(networks.data(teacher)).shape


def test_sums_of_differently_composed_channels():
    inputs = keras.Input((4,))
    parts = [layers.Dense(units, name=f"d{units}")(inputs) for units in (4, 8, 2, 10)]
    sides = [layers.Concatenate()(parts[:2]), layers.Concatenate()(parts[2:])]
    x = layers.Add(name="sum")(sides)
    teacher = keras.Model(inputs, layers.Dense(2)(layers.Dense(6, name="more")(x)))
    with pytest.raises(ValueError, match=r"'sum' \(Add\).*composed differently.*keep=\['sum'\]"):
        shrink(teacher)
    student = shrink(teacher, keep="sum")
    assert student.get_layer("more").units == 3
    assert student.get_layer("d10").units == 10


def test_an_error_names_only_what_would_be_narrowed():
    inputs = keras.Input((4,))
    x = layers.Concatenate()([inputs, layers.Dense(4, name="made")(inputs)])
    x = layers.Dense(6)(Scaled(name="inner")(x))
    with pytest.raises(ValueError, match=r"'inner' \(Scaled\).*those of \['made'\]"):
        shrink(keras.Model(inputs, layers.Dense(2)(x)))


def test_what_is_added_to_an_input_keeps_its_width():
    inputs = keras.Input((6,))
    x = layers.Add()([inputs, layers.Dense(6, name="residual")(inputs)])
    x = layers.Dense(8, name="hidden")(x)
    student = shrink(keras.Model(inputs, layers.Dense(2)(x)))
    assert student.get_layer("residual").units == 6
    assert student.get_layer("hidden").units == 4


def test_outputs_keep_their_width_through_activations():
    inputs = keras.Input((6,))
    x = layers.Dense(8, name="hidden")(inputs)
    features = layers.Dense(8, name="features")(x)
    out = layers.Dropout(0.1)(layers.Activation("relu")(features))
    student = shrink(keras.Model(inputs, out))
    assert student.get_layer("features").units == 8
    assert student.get_layer("hidden").units == 4


def test_keep_names_layers_nested_models_and_paths():
    teacher = networks.nested()
    student = shrink(teacher, keep=["neck"])
    assert student.get_layer("neck").get_layer("hidden").units == 8
    # What the backbone gives to the neck is as wide as what the neck gives itself.
    assert student.get_layer("backbone").get_layer("conv").filters == 8
    student = shrink(teacher, keep=["neck/hidden"])
    assert student.get_layer("neck").get_layer("hidden").units == 8
    assert student.get_layer("neck").get_layer("last").units == 4


def test_one_channel_and_broadcasting():
    """A gate of one channel times many: the many are narrowed, the one is not."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 3, padding="same", name="conv")(inputs)
    gate = layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="gate")(x)
    x = layers.GlobalAveragePooling2D()(x * gate)
    student = shrink(keras.Model(inputs, layers.Dense(2)(x)))
    assert student.get_layer("conv").filters == 4
    assert student.get_layer("gate").filters == 1


def test_a_quantized_layer_is_not_narrowed():
    teacher = networks.mlp()
    teacher.get_layer("hidden_1").quantize("int8")
    with pytest.raises(ValueError, match=r"'hidden_1' \(Dense\).*quantized"):
        shrink(teacher)


class Subclassed(keras.Model):
    def call(self, x):
        return x


def shared_inside():
    """A layer of a nested model that the outer one calls too."""
    inputs = keras.Input((4,))
    layer = layers.Dense(4, name="both")
    inner = keras.Model(inputs, layer(inputs), name="inner")
    other = keras.Input((4,))
    return keras.Model(other, layers.Dense(2)(layer(inner(other))))


def nothing_inside():
    return keras.Sequential([keras.Input((4,)), layers.Dense(2, name="head")])


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        (lambda: "model", {}, r"`teacher`. Expected a functional or sequential.*'model'"),
        (Subclassed, {}, r"a Subclassed, is neither functional nor sequential"),
        (Backbone, {}, r"a Backbone, is neither.*pass keras.Model\(model.inputs"),
        (lambda: keras.Sequential([layers.Dense(2)]), {}, r"shape of its inputs.*keras.Input"),
        (shared_inside, {}, r"'inner/both' is also 'both'"),
        (nothing_inside, {}, r"Nothing of model .* can be narrowed to width=0.5"),
        (networks.mlp, {"keep": ["hiden_0"]}, r"'hiden_0'.*Close to it: \['hidden_0'"),
        (networks.mlp, {"copy": "first"}, r"`copy`. Expected one of .*copy='first'"),
        (networks.mlp, {"width": 1.5}, r"`width`. Expected a number above 0.*width=1.5"),
        (networks.mlp, {"width": True}, r"width=True"),
    ],
)
def test_errors(made, options, message):
    with pytest.raises(ValueError, match=message):
        shrink(made(), **options)
