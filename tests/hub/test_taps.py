"""What can be tapped of KerasHub's models: the table, paths, attention, tuples."""

import functools

import numpy as np
import pytest

import keras_kd as kd
from keras_kd.models import paths
from keras_kd.taps.recorder import Taps
from tests.hub import models

BUILDERS = {
    "bert": models.bert_classifier,
    "distilbert": models.distilbert_classifier,
    "gpt2": models.gpt2,
    "llama3": models.llama3,
    "gemma": models.gemma,
    "qwen": models.qwen,
    "t5": models.t5,
    "bart": models.bart_backbone,
    "whisper": models.whisper,
}
BATCHES = {
    "bert": lambda: models.pairs_of_segments(4)[0],
    "distilbert": lambda: models.tokens(4),
    "gpt2": lambda: models.tokens(4),
    "llama3": lambda: models.tokens(4),
    "gemma": lambda: models.tokens(4),
    "qwen": lambda: models.tokens(4),
    "t5": lambda: models.translations(4),
    "bart": lambda: models.translations(4),
    "whisper": lambda: models.speech(4),
}


def of_both_sides(attention):
    """The attention layers of an encoder and of a decoder, which has two in each block."""
    return [f"transformer_encoder_layer_{i}/self_{attention}" for i in range(2)] + [
        f"transformer_decoder_layer_{i}/{kind}_{attention}"
        for i in range(2)
        for kind in ("self", "cross")
    ]


def in_blocks(count):
    return [f"backbone/transformer_layer_{i}/self_attention_layer" for i in range(count)]


# Layers whose scores can be read, in order.
ATTENTION = {
    "bert": in_blocks(4),
    "distilbert": in_blocks(2),
    "gpt2": in_blocks(3),
    "llama3": in_blocks(3),
    "gemma": [f"backbone/decoder_block_{i}/attention" for i in range(2)],
    "qwen": in_blocks(2),
    "t5": of_both_sides("attention"),
    "bart": of_both_sides("attention_layer"),
    "whisper": of_both_sides("attention_layer"),
}
OF_BOTH_SIDES = [f"transformer_{side}_layer_{i}" for side in ("encoder", "decoder") for i in (0, 1)]
BLOCKS = {
    "bert": [f"backbone/transformer_layer_{i}" for i in range(4)],
    "distilbert": [f"backbone/transformer_layer_{i}" for i in range(2)],
    "gpt2": [f"backbone/transformer_layer_{i}" for i in range(3)],
    "llama3": [f"backbone/transformer_layer_{i}" for i in range(3)],
    "gemma": [f"backbone/decoder_block_{i}" for i in range(2)],
    "qwen": [f"backbone/transformer_layer_{i}" for i in range(2)],
    "t5": OF_BOTH_SIDES,
    "bart": OF_BOTH_SIDES,
    "whisper": OF_BOTH_SIDES,
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
    expected = [path for path in blocks if "transformer_decoder" not in path]
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
