"""What can be tapped of KerasHub's models: the table, paths, attention, tuples."""

import functools

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd.models import paths
from keras_kd.taps.recorder import Taps
from tests.hub import models

BUILDERS = {
    "bart": models.bart,
    "bert": models.bert_classifier,
    "distilbert": models.distilbert_classifier,
    "gemma": models.gemma,
    "gpt2": models.gpt2,
    "llama3": models.llama3,
    "qwen": models.qwen,
    "qwen3": models.qwen3,
    "t5": models.t5,
    "whisper": models.whisper,
}
BATCHES = {
    **dict.fromkeys(BUILDERS, lambda: models.tokens(4)),
    "bart": lambda: models.translations(4),
    "bert": lambda: models.pairs_of_segments(4)[0],
    "t5": lambda: models.translations(4),
    "whisper": lambda: models.speech(4),
}
# Layers whose scores can be read, in order; T5 has no softmax layer.


def of_blocks(count, attention="/self_attention_layer", path="backbone/transformer_layer_"):
    return [f"{path}{i}{attention}" for i in range(count)]


def of_two_stacks(attention, path="transformer_"):
    """Blocks of an encoder and of a decoder, of two layers each, or their attention."""
    sides = ("encoder", ["self"]), ("decoder", ["self", "cross"])
    if not attention:
        return [f"{path}{side}_layer_{i}" for side, _ in sides for i in range(2)]
    return [
        f"{path}{side}_layer_{i}/{kind}{attention}"
        for side, kinds in sides
        for i in range(2)
        for kind in kinds
    ]


# Layers whose scores can be read, in order.
ATTENTION = {
    "bart": of_two_stacks("_attention_layer", "backbone/transformer_"),
    "bert": of_blocks(4),
    "distilbert": of_blocks(2),
    "gemma": of_blocks(3, "/attention", "backbone/decoder_block_"),
    "gpt2": of_blocks(3),
    "llama3": of_blocks(3),
    "qwen": of_blocks(3),
    "qwen3": of_blocks(3),
    "t5": of_two_stacks("_attention"),
    "whisper": of_two_stacks("_attention_layer"),
}
BLOCKS = {
    "bart": of_two_stacks("", "backbone/transformer_"),
    "bert": of_blocks(4, ""),
    "distilbert": of_blocks(2, ""),
    "gemma": of_blocks(3, "", "backbone/decoder_block_"),
    "gpt2": of_blocks(3, ""),
    "llama3": of_blocks(3, ""),
    "qwen": of_blocks(3, ""),
    "qwen3": of_blocks(3, ""),
    "t5": of_two_stacks(""),
    "whisper": of_two_stacks(""),
}


@pytest.fixture(scope="module")
def made():
    """Each model once, by kind."""
    return functools.cache(lambda kind: BUILDERS[kind]())


def tapped(model, layer, inputs):
    _, values = Taps(model, [layer]).run(lambda: model(inputs, training=False))
    return values[layer]


@pytest.mark.parametrize("kind", BUILDERS)
def test_the_table_has_each_attention_layer_once_and_every_row_can_be_tapped(kind, made):
    model, x = made(kind), BATCHES[kind]()
    rows = kd.taps.summary(model, print_fn=None)
    attending = [row["layer"] for row in rows if row["attention"] is not None]
    assert attending == ATTENTION[kind]
    assert all(len(row["attention"]) == 4 for row in rows if row["attention"] is not None)
    taps = [kd.taps.Tap(row["layer"], call=row["call"]) for row in rows]
    one = [tap for tap, row in zip(taps, rows, strict=True) if is_one(row["output"])]
    scores = [kd.taps.Tap(path, "attention_scores") for path in attending]
    _, values = Taps(model, one + scores).run(lambda: model(x, training=False))
    shapes = {kd.taps.Tap(row["layer"], call=row["call"]): row["output"] for row in rows}
    for tap in one:
        assert fits(values[tap].shape, shapes[tap])
    for tap in scores:
        rows_of_scores = np.sum(values[tap], axis=-1)
        np.testing.assert_allclose(rows_of_scores, np.ones_like(rows_of_scores), rtol=1e-5)


def is_one(shape):
    return isinstance(shape, tuple) and all(n is None or isinstance(n, int) for n in shape)


def fits(actual, expected):
    same = [n is None or n == m for n, m in zip(expected, actual, strict=True)]
    return all(same)


@pytest.mark.parametrize("kind", BUILDERS)
def test_blocks_only(kind, made):
    lines = []
    rows = kd.taps.summary(made(kind), print_fn=lines.append, blocks_only=True)
    blocks = [row["layer"] for row in rows if row["layer"] in BLOCKS[kind]]
    assert blocks == BLOCKS[kind]
    # What has weights around them: embeddings, norms, heads.
    assert len(lines) == len(rows) + 1 <= len(blocks) + 8
    shown = [row for row in rows if row["attention"] is not None]
    # A decoder of two attentions has no scores of its own.
    expected = [path for path in blocks if "decoder_layer" not in path]
    assert [row["layer"] for row in shown] == expected
    for row in shown:
        scores = tapped(made(kind), kd.taps.Tap(row["layer"], "attention_scores"), BATCHES[kind]())
        assert fits(scores.shape, row["attention"])


def test_a_bert_of_twelve_layers_fits_on_a_screen():
    rows = kd.taps.summary(
        models.bert_classifier(layers=12, width=4, heads=1), print_fn=None, blocks_only=True
    )
    assert len(rows) == 18


def test_paths_are_the_same_for_the_next_model_of_the_process(made):
    model, other = made("bert"), models.bert_classifier()
    assert model.backbone.name != other.backbone.name
    x = BATCHES["bert"]()
    layer = other.backbone.transformer_layers[3]
    assert paths.path_of(other, layer) == "backbone/transformer_layer_3"
    assert paths.path_of(model, model.backbone.transformer_layers[3]) == (
        "backbone/transformer_layer_3"
    )
    expected = tapped(other, kd.taps.Tap(layer), x)
    for path in (
        "backbone/transformer_layer_3",
        "backbone/transformer_layers/3",
        f"{other.backbone.name}/transformer_layer_3",
        f"{other.backbone.name}/transformer_layers/3",
        "transformer_layer_3",
        "transformer_layers/3",
    ):
        assert paths.find_layer(other, path) is layer
        np.testing.assert_array_equal(tapped(other, path, x), expected)
    with pytest.raises(ValueError, match=r"no layer 'backbone/transformer_layer_4'.*layer_3"):
        paths.find_layer(other, "backbone/transformer_layer_4")
    # A head by either of its names.
    assert paths.find_layer(other, "output_dense") is paths.find_layer(other, "logits")


def test_all_layers_of_a_model_are_found_by_their_paths(made):
    for kind in BUILDERS:
        for path, _, layer in paths.walk(made(kind)):
            assert paths.find_layer(made(kind), path) is layer


def test_tuples_of_t5(made):
    model, x = made("t5"), models.translations(4)
    layer = "transformer_encoder_layer_1"
    with pytest.raises(
        ValueError,
        match=rf"'{layer}'.*returns 2 tensors, with the shapes 0: \(4, 12, 16\), "
        rf"1: \(4, 2, 12, 12\).*keras_kd.taps.Tap\('{layer}', index=0\)",
    ):
        tapped(model, layer, x)
    hidden = tapped(model, kd.taps.Tap(layer, index=0), x)
    assert hidden.shape == (4, models.LENGTH, 16)
    np.testing.assert_array_equal(
        model.encoder_layer_norm(hidden), tapped(model, "encoder_output_layer_norm", x)
    )
    inner = f"{layer}/self_attention"
    assert tapped(model, kd.taps.Tap(inner, index=1), x).shape == (4, 2, 12, 12)
    with pytest.raises(ValueError, match=r"returns no tensor at index 2"):
        tapped(model, kd.taps.Tap(inner, index=2), x)


def test_the_attention_of_t5_before_and_after_its_softmax(made):
    """It calls the function: no softmax layer is in it. Its first layer's, from its kernels."""
    model, x = made("t5"), models.translations(4)
    path = "transformer_encoder_layer_0/self_attention"
    attention = paths.find_layer(model, path)
    bias = tapped(model, kd.taps.Tap(path, index=1), x).numpy()
    given = tapped(model, kd.taps.Tap(path, "input"), x).numpy()
    kernels = [np.float64(attention.weights[i].numpy()) for i in (1, 2)]
    query, key = ((given @ kernel).reshape(4, -1, 2, 8) for kernel in kernels)
    logits = np.einsum("bqnd,bknd->bnqk", query, key) + bias
    expected = np.exp(logits - logits.max(axis=-1, keepdims=True))
    expected /= expected.sum(axis=-1, keepdims=True)
    before = tapped(model, kd.taps.Tap(path, "attention_logits"), x)
    after = tapped(model, kd.taps.Tap(path, "attention_scores"), x)
    np.testing.assert_allclose(before, logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)
    mask = after._keras_mask
    keys = x["encoder_padding_mask"].astype(bool)[:, None, None, :]
    np.testing.assert_array_equal(mask, np.broadcast_to(keys, mask.shape))
    # A block of one attention has its scores; the function is as it was.
    block = kd.taps.Tap("transformer_encoder_layer_0", "attention_scores")
    np.testing.assert_array_equal(tapped(model, block, x), after)
    assert keras.ops.nn.softmax.__module__.startswith("keras.")


def test_heads_that_share_keys_are_heads(made):
    """Gemma groups them: its scores have an axis more."""
    model, x = made("gemma"), models.tokens(4)
    path = "backbone/decoder_block_0/attention"
    groups = tapped(model, f"{path}/softmax", x).numpy()
    assert groups.shape == (4, 2, 2, models.LENGTH, models.LENGTH)
    scores = tapped(model, kd.taps.Tap(path, "attention_scores"), x)
    np.testing.assert_array_equal(scores, groups.reshape(4, 4, models.LENGTH, models.LENGTH))


def test_outputs_of_a_backbone_by_their_keys(made):
    model, x = made("bert"), BATCHES["bert"]()
    pooled = tapped(model, kd.taps.Tap("backbone", index="pooled_output"), x)
    np.testing.assert_array_equal(pooled, tapped(model, "backbone/pooled_dense", x))
    with pytest.raises(ValueError, match=r"'sequence_output': \(4, 12, 32\).*index='"):
        tapped(model, "backbone", x)
    with pytest.raises(ValueError, match=r"returns nothing at index 0"):
        tapped(model, kd.taps.Tap("backbone", index=0), x)


def test_summary_of_t5_says_none_where_there_is_no_tensor(made):
    rows = {row["layer"]: row for row in kd.taps.summary(made("t5"), print_fn=None)}
    attention = rows["transformer_decoder_layer_0/cross_attention"]
    assert attention["output"] == ((None, None, 16), (None, 2, None, None), None)
