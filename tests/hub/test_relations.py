"""`SequenceRelations` and `EmbeddingKD` between KerasHub's models of other widths and heads."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.hub import models
from tests.hub.cases import Case, spread, without_dropout
from tests.hub.test_taps import tapped
from tests.losses.test_sequence_losses import KINDS, relations

pytestmark = pytest.mark.in_turn(4)

BLOCK = "backbone/transformer_layer_"
SELF = "/self_attention_layer"


@dataclasses.dataclass
class Pair:
    """Models, a batch, what is read of each, and the input that marks its padding.

    Attributes:
        teacher: A model.
        student: A smaller one, of another width.
        x: Inputs that end in padding.
        layers: The attention layers of teacher and student.
        heads: Relation heads that both widths are split into.
        mask: The name of an input.
        states: The layers whose states are pooled.
    """

    teacher: object
    student: object
    x: dict
    layers: tuple
    heads: list
    mask: str = "padding_mask"
    states: tuple = ()


def of_blocks(teacher, student, x, heads=(2, 2, 2), attention=SELF, block=BLOCK):
    layers = tuple(f"{block}{i}{attention}" for i in (1, 0))
    return Pair(teacher, student, x, layers, list(heads), states=(f"{block}1", f"{block}0"))


PAIRS = {
    "bert": lambda: of_blocks(
        models.bert_classifier(layers=2, width=16),
        models.distilbert_classifier(layers=1, width=8),
        models.pairs_of_segments()[0],
        (4, 4, 4),
    ),
    "gpt2": lambda: of_blocks(
        models.gpt2(layers=2), models.gpt2(layers=1, width=8), models.tokens()
    ),
    # Keys that queries share: 4 heads of queries, 2 of keys.
    "llama3": lambda: of_blocks(
        models.llama3(layers=2), models.llama3(layers=1, width=8), models.tokens(), (4, 2, 2)
    ),
    "gemma": lambda: of_blocks(
        models.gemma(layers=2),
        models.gemma(layers=1, width=8),
        models.tokens(),
        (4, 2, 2),
        "/attention",
        "backbone/decoder_block_",
    ),
    "qwen": lambda: of_blocks(
        models.qwen(layers=2), models.qwen(layers=1, width=8), models.tokens(), (4, 2, 2)
    ),
    "t5": lambda: Pair(
        models.t5(layers=1),
        models.t5(layers=1, width=8),
        models.translations(),
        ("transformer_encoder_layer_0/self_attention",) * 2,
        [4, 4, 4],
        "encoder_padding_mask",
        ("encoder_output_layer_norm",) * 2,
    ),
    "bart": lambda: Pair(
        models.bart_backbone(layers=1),
        models.bart_backbone(layers=1, width=8),
        models.translations(),
        (f"transformer_decoder_layer_0{SELF}",) * 2,
        [2, 2, 2],
        "decoder_padding_mask",
        ("transformer_decoder_layer_0",) * 2,
    ),
    "whisper": lambda: Pair(
        models.whisper(layers=1),
        models.whisper(layers=1, width=8),
        models.speech(),
        (f"transformer_decoder_layer_0{SELF}",) * 2,
        [2, 2, 2],
        "decoder_padding_mask",
        ("transformer_decoder_layer_0",) * 2,
    ),
}


def losses_of(pair, **options):
    # Where heads are split later, and for models of one number of heads, they are given.
    heads = None if len(set(pair.heads)) > 1 else pair.heads[0]
    return [
        kd.losses.SequenceRelations(
            *pair.layers, relation_heads=heads, name="relations", **options
        ),
        kd.losses.EmbeddingKD(*pair.states, loss="cosine", name="embedding", **options),
    ]


def read(model, tap, x):
    return np.float64(tapped(model, tap, {name: x[name] for name in model.input}))


@pytest.mark.parametrize("kind", PAIRS)
def test_values_without_padding(kind):
    pair = PAIRS[kind]()
    teacher, student = spread(pair.teacher), without_dropout(spread(pair.student, 1))
    case = Case(teacher, student, losses_of(pair, mask_input=pair.mask), pair.x, mask=pair.mask)
    made = case.distiller(learning_rate=0.0, run_eagerly=True)
    found = made.evaluate(pair.x, with_teacher=True, return_dict=True, verbose=0)
    states = [
        [read(model, kd.taps.Tap(layer, of), pair.x) for of in KINDS]
        for model, layer in zip((teacher, student), pair.layers, strict=True)
    ]
    values = relations(*states, pair.heads, [1.0] * 3, case.counts)
    assert found["relations"] == pytest.approx(values[case.counts].mean(), rel=2e-4)
    other = models.other_padding(pair.x)
    again = made.evaluate(other, with_teacher=True, return_dict=True, verbose=0)
    assert again == found
    without = kd.Distiller(teacher, student, losses_of(pair), alpha=0.0)
    without.compile(run_eagerly=True)
    counted = without.evaluate(pair.x, with_teacher=True, return_dict=True, verbose=0)
    for name in ("relations", "embedding"):
        assert abs(counted[name] - found[name]) > 1e-5


def test_the_first_minilm_is_trained_saved_and_loaded(tmp_path):
    """Attention and the relation of values, of 4 and 2 heads, and a small width."""
    x, y = models.pairs_of_segments()
    layers = [f"{BLOCK}{i}{SELF}" for i in (1, 0)]
    case = Case(
        spread(models.bert_classifier(layers=2, width=16)),
        without_dropout(spread(models.distilbert_classifier(layers=1, width=8), 1)),
        [
            kd.losses.AttentionMaps(*layers, loss="kl", mask_input="padding_mask"),
            kd.losses.SequenceRelations(*layers, relations=["values"], mask_input="padding_mask"),
            kd.losses.EmbeddingKD(f"{BLOCK}1", f"{BLOCK}0", "cls", mask_input="padding_mask"),
        ],
        x,
        y,
        y_of_tokens=False,
    )
    made = case.distiller()
    history = made.fit(*case.data, epochs=12, shuffle=False, verbose=0).history
    for name in ("attention_maps", "sequence_relations", "embedding_kd"):
        assert history[name][-1] < 0.9 * history[name][0]
    made.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    logs = [
        each.evaluate(*case.data, with_teacher=True, return_dict=True, verbose=0)
        for each in (made, loaded)
    ]
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)
    configs = [[x.get_config() for x in each.distillation_losses] for each in (made, loaded)]
    assert configs[0] == configs[1]
