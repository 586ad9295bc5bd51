"""Which layers of KerasHub's models belong together."""

import keras
import pytest

import keras_kd as kd
from tests.hub import models


def pairs(teacher, student, **options):
    return list(kd.pair_layers(teacher, student, print_fn=None, **options))


def blocks(*pairs_of_numbers, path="backbone/transformer_layer_"):
    return [(f"{path}{i}", f"{path}{j}") for i, j in pairs_of_numbers]


@pytest.fixture(scope="module")
def bert():
    return models.bert_classifier()


@pytest.fixture(scope="module")
def distilbert():
    return models.distilbert_classifier()


def test_the_students_last_block_meets_the_teachers_last(bert, distilbert):
    found = kd.pair_layers(bert, distilbert, print_fn=None)
    assert list(found) == blocks((1, 0), (3, 1))
    assert [row["score"] for row in found.rows] == [0.0, 0.0]
    assert pairs(bert, distilbert, count=1) == blocks((3, 1))
    assert pairs(bert, distilbert, pattern="*transformer_layer_1") == blocks((1, 1))
    # By the names of the models, too.
    assert pairs(bert, distilbert, pattern="*backbone/*") == blocks((1, 0), (3, 1))


def test_a_student_of_one_block_and_one_deeper_than_its_teacher(bert, distilbert):
    assert pairs(bert, models.distilbert_classifier(layers=1)) == blocks((3, 0))
    assert pairs(distilbert, bert) == blocks((0, 1), (1, 3))
    one = models.distilbert_classifier(layers=1)
    assert pairs(one, models.distilbert_classifier(layers=1)) == blocks((0, 0))


def test_a_bert_of_twelve_layers_and_one_of_four():
    """As TinyBERT pairs them."""
    teacher = models.bert_classifier(layers=12, width=4, heads=1)
    student = models.distilbert_classifier(layers=4, width=4, heads=1)
    expected = [(2, 0), (5, 1), (8, 2), (11, 3)]
    assert pairs(teacher, student) == blocks(*expected)
    assert pairs(teacher, kd.students.shrink(teacher, depth=0.34, print_fn=None)) == blocks(
        *expected
    )


def test_causal_models():
    assert pairs(models.gpt2(layers=4), models.gpt2(layers=2)) == blocks((1, 0), (3, 1))
    assert pairs(models.llama3(layers=3), models.llama3(layers=1)) == blocks((2, 0))
    assert pairs(models.qwen(layers=2), models.qwen3(layers=1)) == blocks((1, 0))
    # The blocks of another class have another name.
    assert pairs(models.qwen(layers=4), models.gemma(layers=2)) == [
        (f"backbone/transformer_layer_{i}", f"backbone/decoder_block_{j}")
        for i, j in ((1, 0), (3, 1))
    ]


def test_an_encoder_that_stays_whole_and_a_decoder_that_does_not():
    teacher = models.bart(layers=3)
    student = kd.students.shrink(teacher, layers={"decoder": [0, -1]}, print_fn=None)
    path = "backbone/transformer_{}_layer_"
    assert pairs(teacher, student, count=9) == [
        *blocks((0, 0), (1, 1), (2, 2), path=path.format("encoder")),
        *blocks((1, 0), (2, 1), path=path.format("decoder")),
    ]


def test_encoders_with_encoders_and_decoders_with_decoders():
    found = pairs(models.whisper(layers=4), models.whisper(layers=2))
    assert found == [
        *blocks((1, 0), (3, 1), path="transformer_encoder_layer_"),
        *blocks((1, 0), (3, 1), path="transformer_decoder_layer_"),
    ]


def test_of_tuples_the_hidden_states():
    # That a student's only layer is a block, the teacher's say.
    found = kd.pair_layers(models.t5(layers=2), models.t5(layers=1, width=8), print_fn=None)
    layers = [f"transformer_{side}_layer_" for side in ("encoder", "decoder")]
    assert list(found) == [
        (kd.taps.Tap(f"{layer}1", index=0), kd.taps.Tap(f"{layer}0", index=0)) for layer in layers
    ]
    assert "'transformer_encoder_layer_1' (index 0)" in str(found)
    assert len(found.hints()) == 2


def test_by_similarity_with_inputs_that_only_the_teacher_takes(bert, distilbert):
    x, _ = models.pairs_of_segments(16)
    found = pairs(bert, distilbert, strategy="similarity", data=x, pattern="*transformer_layer_*")
    assert 1 <= len(found) <= 2
    assert all("transformer_layer" in path for pair in found for path in pair)


def test_one_line_distills_block_by_block_and_is_loaded(tmp_path):
    teacher, student = models.gpt2(layers=2, seed=1), models.gpt2(layers=1, width=8)
    hints = kd.pair_layers(teacher, student, print_fn=None).hints(weight=1.0)
    attention = kd.losses.AttentionMaps(
        *[lambda m: m.backbone.transformer_layers[-1]._self_attention_layer] * 2
    )
    x, labels, weights = models.next_tokens()
    distiller = kd.Distiller(teacher, student, [*hints, attention], alpha=0.0)
    distiller.compile(
        keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    history = distiller.fit(x, labels, sample_weight=weights, epochs=6, verbose=0).history
    for hint in hints:
        assert history[hint.name][-1] < 0.9 * history[hint.name][0]
    # Where Keras counts its names up meanwhile, the paths are those of the file.
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert [loss.student_layer for loss in loaded.distillation_losses] == [
        "backbone/transformer_layer_0",
        kd.taps.Tap("backbone/transformer_layer_0/self_attention_layer", attention.kind),
    ]
    before, after = (
        each.evaluate(x, labels, sample_weight=weights, with_teacher=True, verbose=0)
        for each in (distiller, loaded)
    )
    assert after == pytest.approx(before, rel=1e-6)
