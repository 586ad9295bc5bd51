"""KerasHub's models train on what `mask_tokens` and `pack` make, and learn; `measure` agrees."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.hub import models
from tests.language import hub

WORDS, LENGTH = models.TOKENS, models.LENGTH


def counting(rows=64):
    """Texts in which each token is one more than the one before; padded behind."""
    rng = np.random.default_rng(0)
    start = rng.integers(10, 20, size=(rows, 1))
    ids = start + np.arange(LENGTH)
    mask = np.arange(LENGTH) < rng.integers(5, LENGTH + 1, size=(rows, 1))
    return np.where(mask, ids, 0).astype("int32"), mask.astype("int32")


@pytest.mark.slow
# The pooled output, which masked models leave alone.
@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables")
def test_a_masked_model_learns_and_teaches():
    ids, mask = counting()
    data = tf.data.Dataset.from_tensor_slices({"token_ids": ids, "padding_mask": mask}).batch(16)
    options = {"mask_id": 3, "vocabulary_size": WORDS, "seed": 0}
    masked = kd.language.mask_tokens(data, positions=3, **options)
    segmented = masked.map(
        lambda x, y, w: ({**x, "segment_ids": tf.zeros_like(x["token_ids"])}, y, w)
    )

    def model(layers):
        return keras_hub.models.BertMaskedLM(models.bert_backbone(layers), preprocessor=None)

    teacher, student = model(2), model(1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher.compile(keras.optimizers.Adam(0.01), loss=loss, weighted_metrics=[])
    history = teacher.fit(segmented, epochs=15, shuffle=False, verbose=0).history["loss"]
    assert history[-1] < 0.6 * history[0]
    distiller = kd.Distiller(teacher, student, kd.losses.SoftTargets(2.0), alpha=0.0, beta=1.0)
    distiller.compile(keras.optimizers.Adam(0.01))
    history = distiller.fit(segmented, epochs=6, shuffle=False, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]
    found = kd.measure(
        student, segmented, task="language_model", teacher=teacher, latency=False, verbose=0
    )
    assert found.quality["perplexity"] < 0.6 * WORDS
    assert found.teacher["kl"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("ignore_class", [-100, None])
def test_a_causal_model_learns_from_packed_documents(ignore_class):
    rng = np.random.default_rng(0)
    documents = [(s + np.arange(n)).tolist() for s, n in rng.integers(5, 20, size=(60, 2))]
    packed = kd.language.pack(documents, LENGTH, ignore_class=ignore_class)
    student = models.gpt2(layers=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignore_class)
    before = kd.measure(student, packed, task="language_model", latency=False, verbose=0)
    distiller = kd.Distiller(models.gpt2(layers=1, seed=1), student, alpha=1.0, beta=0.0)
    distiller.compile(keras.optimizers.Adam(0.03), loss=loss)
    data = tf.data.Dataset.from_tensor_slices(packed).batch(16)
    distiller.fit(data, epochs=6, shuffle=False, verbose=0)
    after = kd.measure(student, packed, task="language_model", latency=False, verbose=0)
    assert after.quality["perplexity"] < 0.4 * before.quality["perplexity"]
    assert f"{sum(len(each) - 1 for each in documents)} positions of" in after.notes[0]
    # Whichever way the labels say it.
    other = kd.language.pack(documents, LENGTH, ignore_class=None if ignore_class else -100)
    same = kd.measure(student, other, task="language_model", latency=False, verbose=0)
    assert same.quality == pytest.approx(after.quality)


def test_texts_of_a_model_are_measured():
    model, prompts = hub.causal(), ["abc", "defgh", "hh"]
    model.compile(sampler="greedy", jit_compile=False)

    def write(model, prompts):
        return model.generate(prompts, max_length=12, strip_prompt=True)

    true = write(model, list(prompts))
    found = kd.measure(
        model, (prompts, true), task="speech_recognition", generate=write, latency=False, verbose=0
    )
    assert found.quality["wer"] == 0.0
    assert found.predictions.tolist() == true
    assert found.size["parameters"] == model.count_params()
