"""Paths through models whose layers have attributes, names, or both."""

import keras
import pytest

from keras_kd.models import paths
from tests.distiller import linear
from tests.taps import networks


class Trunk(keras.Model):
    """Functional, made in `__init__` of a subclass: one name is given, the others Keras makes."""

    def __init__(self):
        first, second = keras.layers.Dense(4), keras.layers.Dense(4, name="given")
        inputs = keras.Input((linear.FEATURES,))
        super().__init__(inputs, second(keras.layers.ReLU()(first(inputs))))
        self.first, self.second = first, second
        self.all = [first, second]


class Task(keras.Model):
    """As keras_hub's tasks: what it holds was made elsewhere."""

    def __init__(self, trunk):
        inputs = trunk.input
        head = keras.layers.Dense(linear.CLASSES, name="logits")
        super().__init__(inputs, head(trunk(inputs)))
        self.trunk, self.output_dense = trunk, head


def test_attributes_stand_for_the_names_that_keras_counts():
    for model in (Task(Trunk()), Task(Trunk())):
        found = [path for path, _, _ in paths.walk(model)]
        relu = next(layer.name for layer in model.trunk.layers if "re_lu" in layer.name)
        assert found == ["trunk", "trunk/first", f"trunk/{relu}", "trunk/given", "logits"]


@pytest.mark.parametrize("trunk", ["trunk", "by name"])
@pytest.mark.parametrize(
    ("layer", "attribute"),
    [
        ("given", "second"),
        ("second", "second"),
        ("all/1", "second"),
        ("first", "first"),
        ("all/0", "first"),
        ("by name", "first"),
    ],
)
def test_each_step_of_a_path_is_an_attribute_or_a_name(trunk, layer, attribute):
    model = Task(Trunk())
    expected = getattr(model.trunk, attribute)
    trunk = model.trunk.name if trunk == "by name" else trunk
    layer = expected.name if layer == "by name" else layer
    assert paths.find_layer(model, f"{trunk}/{layer}") is expected
    assert paths.find_layer(model, layer) is expected


def test_attributes_of_a_plain_functional_model_are_no_paths():
    model = networks.functional()
    model.here = model.get_layer("first")  # lost in a file and in a copy
    assert paths.path_of(model, model.here) == "first"
    with pytest.raises(ValueError, match="no layer 'here'"):
        paths.find_layer(model, "here")


def test_an_attribute_is_never_taken_for_another_layers_name():
    class Crossed(keras.Model):
        """Each attribute is called as Keras calls the other one's layer."""

        def __init__(self):
            super().__init__()
            self.dense_a = keras.layers.Dense(2, name="dense_b")
            self.dense_b = keras.layers.Dense(2, name="dense_a")

        def call(self, x):
            return self.dense_b(self.dense_a(x))

    model = Crossed()
    for attribute in ("dense_a", "dense_b"):
        layer = getattr(model, attribute)
        assert paths.path_of(model, layer) == attribute
        assert paths.find_layer(model, attribute) is layer


def test_several_nested_layers_raise_with_paths_that_work():
    twice = keras.Sequential([keras.Input((linear.FEATURES,)), Trunk(), of_four()])
    with pytest.raises(ValueError, match="Several layers") as raised:
        paths.find_layer(twice, "given")
    listed = [path for path, _, layer in paths.walk(twice) if layer.name == "given"]
    assert len(listed) == 2
    for path in listed:
        assert repr(path) in str(raised.value)
        assert paths.find_layer(twice, path).name == "given"


def of_four():
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(4, name="given")(inputs), name="four")
