"""What KerasHub's attention layers compute inside: scores, queries, keys and values."""

import functools

import numpy as np
import pytest

import keras_kd as kd
from keras_kd.models import paths
from tests.hub.test_taps import ATTENTION, BATCHES, BUILDERS, tapped

LAYERS = [(kind, path) for kind in BUILDERS for path in dict.fromkeys(ATTENTION[kind][:1])] + [
    (kind, ATTENTION[kind][-1]) for kind in ("t5", "bart", "whisper")
]
PROJECTED = {"queries": "query", "keys": "key", "values": "value"}


@pytest.fixture(scope="module")
def made():
    """Each model once, by kind."""
    return functools.cache(lambda kind: BUILDERS[kind]())


def projected(layer, x):
    """What a dense layer of any form gives, in float64."""
    kernel, *bias = (np.float64(weight) for weight in layer.get_weights())
    outputs = np.einsum(getattr(layer, "equation", "btd,de->bte"), np.float64(x), kernel)
    return outputs + bias[0] if bias else outputs


def child(layer, name):
    endings = ("dense", "projector")
    (found,) = (x for key, x in paths.children(layer) if key in [f"{name}_{e}" for e in endings])
    return found


@pytest.mark.parametrize(("kind", "path"), LAYERS)
def test_queries_keys_and_values(kind, path, made):
    model, x = made(kind), BATCHES[kind]()
    layer = paths.find_layer(model, path)
    inputs = tapped(model, kd.taps.Tap(path, "input"), x)
    encoded = inputs
    if "cross" in path:
        encoder = {"whisper": "encoder_layer_norm", "t5": "encoder_output_layer_norm"}
        encoded = tapped(model, encoder.get(kind, "transformer_encoder_layer_1"), x)
    for of, given in (("queries", inputs), ("keys", encoded), ("values", encoded)):
        found = tapped(model, kd.taps.Tap(path, of), x)
        expected = projected(child(layer, PROJECTED[of]), given)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "path"), LAYERS)
def test_scores_times_values_are_what_the_layer_gives(kind, path, made):
    """That they are the layer's own scores, by query heads in its order."""
    model, x = made(kind), BATCHES[kind]()
    layer = paths.find_layer(model, path)
    scores = np.float64(tapped(model, kd.taps.Tap(path, "attention_scores"), x))
    values = np.float64(tapped(model, kd.taps.Tap(path, "values"), x))
    heads = scores.shape[1]
    if values.ndim == 3:
        values = values.reshape(*values.shape[:2], heads, -1)
    values = np.repeat(values, heads // values.shape[2], axis=2)
    attended = np.einsum("bhqk,bkhd->bqhd", scores, values)
    output = child(layer, "output")
    if not hasattr(output, "equation"):
        attended = attended.reshape(*attended.shape[:2], -1)
    found = kd.taps.Tap(path, index=0) if kind == "t5" else path
    given = tapped(model, found, x)
    np.testing.assert_allclose(projected(output, attended), given, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "path"),
    [("gemma", "backbone/decoder_block_0"), ("t5", "transformer_encoder_layer_0")],
)
def test_a_block_around_one_attention_layer_reads_the_same(kind, path, made):
    model, x = made(kind), BATCHES[kind]()
    for of in ("queries", "attention_scores"):
        inner = tapped(model, kd.taps.Tap(ATTENTION[kind][0], of), x)
        np.testing.assert_array_equal(tapped(model, kd.taps.Tap(path, of), x), inner)


def test_pairs_that_may_not_attend_are_masked_in_scores_without_a_softmax_layer(made):
    model, x = made("t5"), BATCHES["t5"]()
    path = "transformer_decoder_layer_1/self_attention"
    scores = tapped(model, kd.taps.Tap(path, "attention_scores"), x)
    mask = np.asarray(scores._keras_mask)[:, 0]
    earlier = np.tril(np.ones(mask.shape[1:], bool))
    np.testing.assert_array_equal(mask, earlier & (x["decoder_padding_mask"][:, None] != 0))
    assert np.max(np.where(mask[:, None], 0.0, scores)) < 1e-6


def test_logits_where_softmax_is_a_function(made):
    with pytest.raises(ValueError, match=r"T5MultiHeadAttention, computes no attention_logits"):
        tapped(made("t5"), kd.taps.Tap(ATTENTION["t5"][0], "attention_logits"), BATCHES["t5"]())


def test_a_block_of_two_attention_layers_says_which_there_are(made):
    tap = kd.taps.Tap("transformer_decoder_layer_0", "keys")
    message = r"holds several attention layers, \['self_attention_layer', 'cross_attention_layer'\]"
    with pytest.raises(ValueError, match=message):
        tapped(made("bart"), tap, BATCHES["bart"]())


def test_layers_without_projections_say_which_have_them(made):
    path = "backbone/transformer_layer_0/feedforward_intermediate_dense"
    message = (
        r"Dense, has no values that are found.*'query_dense'.*holds \[\].*self_attention_layer"
    )
    with pytest.raises(ValueError, match=message):
        tapped(made("bert"), kd.taps.Tap(path, "values"), BATCHES["bert"]())
