"""Padding does not count: masks that tensors carry, and those that an input tells."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd.taps.recorder import Taps
from tests.distiller import linear
from tests.losses.test_feature_losses import groups, kl, unit, variational
from tests.taps import networks
from tests.taps.test_taps import attention_truth


@pytest.mark.parametrize(
    ("loss", "kind"), [("mse", None), ("mse", "attention_scores"), ("kl", None)]
)
def test_padding_does_not_count_in_attention(loss, kind):
    teacher, student = networks.transformer(4), networks.transformer(2)
    path = "transformer_layer_0/self_attention_layer"
    maps = kd.losses.AttentionMaps(path, path, loss, kind, name="maps")
    made = linear.compiled(teacher, student, maps)
    tokens, labels = networks.tokens_and_labels()
    found = made.evaluate(tokens, labels, with_teacher=True, return_dict=True, verbose=0)["maps"]
    which = 0 if maps.kind == "attention_logits" else 1
    t, s = (attention_truth(model, tokens, 0)[which] for model in (teacher, student))
    real = tokens != 0
    if loss == "mse":
        values, valid = (
            (groups(t, 2) - groups(s, 2)) ** 2,
            real[:, None, :, None] & real[:, None, None, :],
        )
    else:
        values, valid = kl(groups(t, 2), s), real[:, None, :]
    valid = np.broadcast_to(valid, values.shape)
    assert found == pytest.approx(values[valid].mean(), rel=1e-4)


def squares(loss, t, s):
    return ((t - s) ** 2).mean(-1)


def cosine(loss, t, s):
    return 1 - (unit(t) * unit(s)).sum(-1)


LOSSES = {
    "hidden": (kd.losses.HiddenStates, squares),
    "cosine": (kd.losses.CosineHidden, cosine),
    "hint": (kd.losses.FeatureHint, squares),
    "variational": (kd.losses.VariationalInformation, variational),
}
# Attention layers take the masks off the tensors that they are given.
LAYERS = {
    "embedding": "embedding",
    "first block": "transformer_layer_0",
    "last block": "transformer_layer_1",
    "attention": "transformer_layer_1/self_attention_layer",
    "input": kd.taps.Tap("transformer_layer_0/self_attention_layer", "input"),
    "input of a block": kd.taps.Tap("transformer_layer_1", "input"),
}


def of_layer(model, layer, tokens):
    """What a layer gives, without the mask of it."""
    _, values = Taps(model, [layer]).run(lambda: model(tokens, training=False))
    return np.float64(values[layer])


@pytest.mark.parametrize(
    ("loss", "layer"),
    [("hidden", layer) for layer in LAYERS]
    + [(loss, "first block") for loss in ("cosine", "hint", "variational")],
)
def test_padding_does_not_count_in_hidden_states(loss, layer):
    make, truth = LOSSES[loss]
    layer = LAYERS[layer]
    teacher, student = networks.transformer(), networks.transformer()
    loss = make(layer, layer, name="states")
    made = linear.compiled(teacher, student, loss)
    tokens, labels = networks.tokens_and_labels()
    found = made.evaluate(tokens, labels, with_teacher=True, return_dict=True, verbose=0)["states"]
    t, s = (of_layer(model, layer, tokens) for model in (teacher, student))
    assert found == pytest.approx(truth(loss, t, s)[tokens != 0].mean(), rel=1e-5)


def with_padding_mask(seed):
    """As keras_hub's models: an input says what is padding, and no tensor carries a mask."""
    keras.utils.set_random_seed(seed)
    ids = keras.Input((None,), dtype="int32", name="ids")
    inputs = {"ids": ids, "padding": keras.Input((None,), name="padding")}
    x = keras.layers.Embedding(networks.TOKENS, 6)(inputs["ids"])
    x = keras.layers.Dense(6, name="states")(x)
    weights = keras.ops.expand_dims(inputs["padding"], -1)
    pooled = keras.ops.sum(x * weights, axis=1)
    return keras.Model(inputs, keras.layers.Dense(4)(pooled))


@pytest.mark.parametrize("mode", linear.MODES)
def test_padding_that_an_input_tells_does_not_count(mode):
    teacher, student = with_padding_mask(1), with_padding_mask(2)
    loss = kd.losses.HiddenStates("states", "states", mask_input="padding")
    optimizer = {"optimizer": keras.optimizers.SGD(0.0)}
    made = linear.compiled(teacher, student, loss, mode=mode, compile_args=optimizer)
    tokens, labels = networks.tokens_and_labels()
    x = {"ids": tokens, "padding": (tokens != 0).astype("float32")}
    found = made.fit(x, labels, verbose=0).history["hidden_states"][0]
    t, s = (
        np.float64(keras.Model(m.input, m.get_layer("states").output).predict(x, verbose=0))
        for m in (teacher, student)
    )
    assert found == pytest.approx(((t - s) ** 2).mean(-1)[tokens != 0].mean(), rel=1e-5)
    assert type(loss).from_config(loss.get_config()).mask_input == "padding"
    loss = kd.losses.HiddenStates("states", "states", mask_input="mask")
    with pytest.raises(ValueError, match=r"input 'mask'.*\['ids', 'padding'\]"):
        kd.Distiller(teacher, student, loss)


def attending_to_padding(seed):
    """Its attention knows nothing of padding, which an input tells."""
    keras.utils.set_random_seed(seed)
    ids = keras.Input((networks.LENGTH,), dtype="int32", name="ids")
    inputs = {"ids": ids, "padding": keras.Input((networks.LENGTH,), name="padding")}
    initializer = keras.initializers.RandomNormal(stddev=3.0)
    x = keras.layers.Embedding(networks.TOKENS, 6, initializer)(ids)
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    return keras.Model(inputs, keras.layers.Dense(4)(x[:, 0]))


@pytest.mark.parametrize("loss", ["mse", "kl"])
def test_padding_of_attention_that_an_input_tells_does_not_count(loss):
    teacher, student = attending_to_padding(1), attending_to_padding(2)
    maps = kd.losses.AttentionMaps(
        "attention", "attention", loss, "attention_scores", mask_input="padding", name="maps"
    )
    made = linear.compiled(teacher, student, maps)
    tokens, labels = networks.tokens_and_labels()
    x = {"ids": tokens, "padding": (tokens != 0).astype("float32")}
    found = made.evaluate(x, labels, with_teacher=True, return_dict=True, verbose=0)["maps"]
    t, s = (of_layer(m, maps.teacher_layer, x) for m in (teacher, student))
    real = tokens != 0
    values = (t - s) ** 2 if loss == "mse" else kl(t, s)
    pairs = real[:, None, :, None] & real[:, None, None, :]
    valid = np.broadcast_to(pairs if loss == "mse" else real[:, None, :], values.shape)
    assert found == pytest.approx(values[valid].mean(), rel=1e-4)
