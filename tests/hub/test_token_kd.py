"""Language models of KerasHub learn without their logits: heads of all kinds."""

import functools

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.distiller.linear import assert_same_values
from tests.hub import models

pytestmark = pytest.mark.in_turn(4)

TEMPERATURE = 2.0


def causal_data():
    return named(*models.next_tokens(rows=6))


def named(x, y, sample_weight):
    """The arguments of `fit` and `evaluate`."""
    return {"x": x, "y": y, "sample_weight": sample_weight}


def translation_data():
    x = models.translations(rows=6)
    labels = np.roll(x["decoder_token_ids"], -1, axis=1)
    weights = np.roll(x["decoder_padding_mask"], -1, axis=1).astype("float32")
    weights[:, -1] = 0.0
    return named(x, labels, weights)


KINDS = {
    "gpt2": (models.gpt2, causal_data, "padding_mask"),
    "llama3": (models.llama3, causal_data, "padding_mask"),
    "gemma": (
        models.gemma,
        causal_data,
        "padding_mask",
    ),
    "qwen3": (
        functools.partial(models.qwen3, tie_word_embeddings=False),
        causal_data,
        "padding_mask",
    ),
    "bart": (models.bart, translation_data, "decoder_padding_mask"),
}


def distiller(kind, loss, **options):
    make, _, mask = KINDS[kind]
    made = kd.Distiller(make(), make(layers=1, width=8, seed=1), loss, mask_input=mask)
    hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.Adam(0.01), loss=hard, run_eagerly=True, **options)
    return made


@functools.cache
def trained(kind):
    """The distiller of a kind after two epochs, and its history."""
    made = distiller(kind, kd.losses.TokenKD(TEMPERATURE, memory_mb=4e-2))
    return made, made.fit(**KINDS[kind][1](), epochs=2, shuffle=False, verbose=0).history


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_equals_one_with_logits(kind):
    made, history = trained(kind)
    other = distiller(kind, kd.losses.SoftTargets(TEMPERATURE), weighted_metrics=["accuracy"])
    logs = other.fit(**KINDS[kind][1](), epochs=2, shuffle=False, verbose=0).history
    for one, two in zip(made.student.weights, other.student.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), atol=2e-4, err_msg=one.path)
    for name, of_logits in (("token_kd", "soft_targets"), ("token_accuracy", "accuracy")):
        np.testing.assert_allclose(history[name], logs[of_logits], rtol=1e-4)
    np.testing.assert_allclose(history["hard_loss"], logs["hard_loss"], rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_under_the_padding_counts_nowhere(kind):
    made, _ = trained(kind)
    data = KINDS[kind][1]()
    options = {"verbose": 0, "return_dict": True, "with_teacher": True}
    found = made.evaluate(**data, **options)
    other = {**data, "x": models.other_padding(data["x"])}
    assert made.evaluate(**other, **options) == found


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_holds_the_whole_model(kind, tmp_path):
    made, _ = trained(kind)
    made.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert type(loaded.student) is type(made.student)
    options = {"verbose": 0, "return_dict": True, "with_teacher": True}
    data = KINDS[kind][1]()
    assert_same_values(loaded.evaluate(**data, **options), made.evaluate(**data, **options))


def test_adapters_of_lora_learn_through_the_head():
    teacher, student = models.gpt2(), models.gpt2(layers=1, width=8, seed=1)
    student.backbone.enable_lora(2)
    trainable = {weight.path for weight in student.trainable_weights}
    made = kd.Distiller(teacher, student, kd.losses.TokenKD(TEMPERATURE), mask_input="padding_mask")
    hard = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.Adam(0.05), loss=hard, run_eagerly=True)
    before = {weight.path: weight.numpy() for weight in student.weights}
    history = made.fit(**causal_data(), epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    moved = {w.path for w in student.weights if (w.numpy() != before[w.path]).any()}
    assert moved == trainable
