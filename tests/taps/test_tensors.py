"""Layers that give, or are given, several tensors: which one a tap means."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd.taps import tap as taps_tap
from keras_kd.taps.recorder import Taps
from tests.distiller.linear import compiled
from tests.taps import networks
from tests.taps.networks import LENGTH, TOKENS

UNITS = 5


def recurrent(units=UNITS):
    """Ends in padding, which the recurrent layer's mask says."""
    tokens = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(TOKENS, 4, mask_zero=True)(tokens)
    sequence, hidden, state = keras.layers.LSTM(
        units, return_sequences=True, return_state=True, name="lstm"
    )(x)
    joined = keras.layers.Concatenate(name="joined")([hidden, state])
    x = keras.layers.GlobalAveragePooling1D()(sequence)
    return keras.Model(tokens, networks.head()(keras.layers.Concatenate()([x, joined])))


@keras.saving.register_keras_serializable(package="tests")
class Twins(keras.layers.Layer):
    """Gives a dict, or a tuple with nothing in it where a tensor could be."""

    def __init__(self, named, **kwargs):
        super().__init__(**kwargs)
        self.named = named

    def call(self, x):
        return {"double": 2.0 * x, "half": 0.5 * x} if self.named else (2.0 * x, None)


def tapped(model, layer, inputs):
    _, values = Taps(model, [layer]).run(lambda: model(inputs, training=False))
    return values[layer]


def test_each_tensor_by_its_position():
    model, (x, _) = recurrent(), networks.tokens_and_labels()
    expected = model.get_layer("lstm")(model.layers[1](x))
    for i in range(3):
        for index in (i, i - 3):
            found = tapped(model, kd.taps.Tap("lstm", index=index), x)
            np.testing.assert_array_equal(found, expected[i])


def test_the_mask_is_the_chosen_tensors():
    model, (x, _) = recurrent(), networks.tokens_and_labels()
    np.testing.assert_array_equal(
        tapped(model, kd.taps.Tap("lstm", index=0), x)._keras_mask, x != 0
    )
    assert getattr(tapped(model, kd.taps.Tap("lstm", index=1), x), "_keras_mask", None) is None


def test_a_layer_that_computes_one_mask_gives_it_to_its_first_tensor():
    class Pair(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.supports_masking = True

        def call(self, x):
            return x, keras.ops.sum(x, axis=1)

        def compute_mask(self, inputs, previous_mask):
            return previous_mask

    tokens = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(TOKENS, 4, mask_zero=True)(tokens)
    model = keras.Model(tokens, Pair(name="pair")(x))
    x, _ = networks.tokens_and_labels()
    first, second = (tapped(model, kd.taps.Tap("pair", index=i), x) for i in (0, 1))
    np.testing.assert_array_equal(first._keras_mask, x != 0)
    assert getattr(second, "_keras_mask", None) is None


def test_inputs_of_a_layer_that_is_given_a_list():
    model, (x, _) = recurrent(), networks.tokens_and_labels()
    state = tapped(model, kd.taps.Tap("joined", "input", index=1), x)
    np.testing.assert_array_equal(state, tapped(model, kd.taps.Tap("lstm", index=2), x))
    with pytest.raises(
        ValueError, match=r"'joined'.*takes 2 tensors.*Tap\('joined', 'input', index=0\)"
    ):
        tapped(model, kd.taps.Tap("joined", "input"), x)


def test_dicts_by_key_and_tuples_with_one_tensor():
    inputs = keras.Input((3,))
    named = keras.Model(inputs, Twins(True, name="twins")(inputs))
    x = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(tapped(named, kd.taps.Tap("twins", index="half"), x), 0.5 * x)
    with pytest.raises(ValueError, match=r"'double': \(2, 3\), 'half': \(2, 3\).*index='double'"):
        tapped(named, "twins", x)
    with pytest.raises(ValueError, match=r"nothing at index 'third'.*index='double'"):
        tapped(named, kd.taps.Tap("twins", index="third"), x)
    layer = Twins(False)

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.twins = layer

        def call(self, x):
            return self.twins(x)[0]

    for tap in ("twins", kd.taps.Tap("twins", index=0)):
        np.testing.assert_array_equal(tapped(Model(), tap, x), 2.0 * x)
    with pytest.raises(ValueError, match=r"no tensor at index 1.*index=0"):
        tapped(Model(), kd.taps.Tap("twins", index=1), x)


@pytest.mark.parametrize("index", [3, -4, "lstm"])
def test_a_tensor_that_is_not_there(index):
    with pytest.raises(ValueError, match=r"'lstm'.*nothing at index .*0: \(12, 7, 5\)"):
        tapped(recurrent(), kd.taps.Tap("lstm", index=index), networks.tokens_and_labels()[0])


def test_without_an_index_it_is_refused_before_training():
    with pytest.raises(
        ValueError,
        match=r"'lstm'.*returns 3 tensors, with the shapes 0: \(None, None, 5\), 1: \(None, 5\), "
        r"2: \(None, 5\). Choose one of them: keras_kd.taps.Tap\('lstm', index=0\)",
    ):
        kd.Distiller(recurrent(), recurrent(), kd.losses.FeatureHint("lstm", "lstm"))


@pytest.mark.parametrize("index", [0, 2])
def test_a_hint_on_one_tensor_is_trained_saved_and_loaded(index, tmp_path):
    keras.utils.set_random_seed(0)
    tap = kd.taps.Tap("lstm", index=index)
    teacher, student = recurrent(), recurrent(3)
    embeddings = teacher.layers[1].embeddings
    embeddings.assign(20.0 * embeddings)  # or there would be next to nothing to learn
    hint = kd.losses.FeatureHint(tap, tap, name="hint")
    compile_args = {"optimizer": keras.optimizers.Adam(0.02)}
    made = compiled(teacher, student, [hint], mode="graph", alpha=0.0, compile_args=compile_args)
    x, y = networks.tokens_and_labels()
    history = made.fit(x, y, epochs=12, verbose=0).history["hint"]
    assert history[-1] < 0.8 * history[0]
    made.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert loaded.distillation_losses[0].student_layer == tap
    values = [
        each.evaluate(x, y, with_teacher=True, verbose=0, return_dict=True)["hint"]
        for each in (made, loaded)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_configuration_text_and_equality():
    tap = kd.taps.Tap("lstm", call=-1, index=2)
    assert kd.taps.Tap.from_config(tap.get_config()) == tap
    # As written before there was an index.
    assert kd.taps.Tap.from_config({"layer": "a", "kind": "input", "call": 1}) == kd.taps.Tap(
        "a", "input", 1
    )
    assert str(tap) == "'lstm' (call -1) (index 2)"
    others = [kd.taps.Tap("lstm", call=-1), kd.taps.Tap("lstm", index=2), kd.taps.Tap("lstm")]
    assert len({tap, *others, kd.taps.Tap("lstm", call=-1, index=2)}) == 4
    model = recurrent()
    by_object = kd.taps.Tap(model.get_layer("lstm"), index=1)
    assert taps_tap.resolve(model, by_object)[0] == kd.taps.Tap("lstm", index=1)
    assert taps_tap.resolve(model, lambda m: kd.taps.Tap("lstm", index=1))[0] == kd.taps.Tap(
        "lstm", index=1
    )


def test_the_last_call_of_a_shared_layer_that_gives_several():
    lstm = keras.layers.LSTM(3, return_sequences=True, return_state=True, name="lstm")
    inputs = keras.Input((LENGTH, 3))
    model = keras.Model(inputs, networks.head()(lstm(lstm(inputs)[0])[1]))
    x = np.random.default_rng(0).normal(size=(2, LENGTH, 3)).astype("float32")
    expected = lstm(lstm(x)[0])[1]
    np.testing.assert_array_equal(tapped(model, kd.taps.Tap("lstm", call=-1, index=1), x), expected)
    with pytest.raises(ValueError, match=r"Tap\('lstm', call=-1, index=0\)"):
        tapped(model, kd.taps.Tap("lstm", call=-1), x)
    with pytest.raises(ValueError, match=r"Tap\('lstm', call=0, index=1\)"):
        tapped(model, kd.taps.Tap("lstm", index=1), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": 1.0}, r"`index`.*index=1.0"),
        ({"index": True}, r"`index`.*index=True"),
        ({"kind": "attention_scores", "index": 0}, "takes no `index`"),
        ({"call": False}, r"`call`.*call=False"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        kd.taps.Tap("lstm", **options)


@pytest.mark.parametrize("layers", ["lstm", kd.taps.Tap("lstm"), 3])
def test_lists_of_layers(layers):
    with pytest.raises(ValueError, match=r"`taps`. Expected a list of layers. Received: taps="):
        taps_tap.check_each("taps", layers)
    assert taps_tap.check_each("taps", None) == []
    assert taps_tap.check_each("taps", ["lstm"]) == ["lstm"]
