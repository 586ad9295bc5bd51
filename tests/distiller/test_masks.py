"""Padded tokens (Keras' masks, from `Embedding(mask_zero=True)`) count in no term."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from tests import reference
from tests.distiller.linear import MODES, assert_same_values, from_logits

VOCABULARY, CLASSES, LENGTHS = 9, 4, (5, 2, 4, 1)


def tagger(seed, mask=True):
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(VOCABULARY, 3, mask_zero=mask, name="embedding"),
            layers.Dense(CLASSES, name="head"),
        ]
    )
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    return model


def tokens(padding):
    """Token ids and labels, padded with `padding` zeros more than they need."""
    rng = np.random.default_rng(0)
    x = np.zeros((len(LENGTHS), max(LENGTHS) + padding), "int32")
    y = np.zeros_like(x)
    for row, length in enumerate(LENGTHS):
        x[row, :length] = rng.integers(1, VOCABULARY, length)
        y[row, :length] = rng.integers(CLASSES, size=length)
    return x, y


def logits_of(model, x):
    embedding, kernel, bias = (np.float64(weight) for weight in model.get_weights())
    return embedding[x] @ kernel + bias


def compiled(teacher, student, loss=None, mode="eager"):
    distiller = kd.Distiller(teacher, student, loss)
    distiller.compile(keras.optimizers.SGD(0.1), loss=from_logits(), **MODES[mode])
    return distiller


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_only_the_tokens_are_averaged(mode, weighted):
    teacher, student = tagger(1), tagger(2)
    x, y = tokens(padding=3)
    valid = x != 0
    rows = np.array([[1.0], [0.5], [0.0], [2.0]]) if weighted else np.ones((4, 1))
    mean = lambda loss: (loss * rows)[valid].sum() / valid.sum()  # noqa: E731
    hard = mean(reference.hard_loss(logits_of(student, x), y))
    soft = mean(reference.soft_target_loss(logits_of(student, x), logits_of(teacher, x), 4.0))
    distiller = compiled(teacher, student, mode=mode)
    logs = distiller.train_on_batch(x, y, rows if weighted else None, return_dict=True)
    expected = {"hard_loss": hard, "soft_targets": soft, "loss": 0.5 * (hard + soft)}
    assert_same_values(logs, expected)


@pytest.mark.parametrize("teacher_masks", [True, False])
def test_the_length_of_the_padding_does_not_matter(teacher_masks):
    weights = []
    for padding in (0, 6):
        teacher, student = tagger(1, teacher_masks), tagger(2)
        compiled(teacher, student).train_on_batch(*tokens(padding))
        weights.append(student.get_weights())
    for short, long in zip(*weights, strict=True):
        np.testing.assert_allclose(long, short, rtol=1e-6, atol=1e-6)


def test_labels_of_the_padding_are_ignored():
    x, y = tokens(padding=2)
    logs = []
    for label in (0, 3):
        distiller = compiled(tagger(1), tagger(2))
        logs.append(distiller.train_on_batch(x, np.where(x == 0, label, y), return_dict=True))
    assert_same_values(logs[1], logs[0])


class MaskedError(kd.losses.DistillationLoss):
    def call(self, teacher_outputs, student_outputs):
        return keras.ops.mean((teacher_outputs - student_outputs) ** 2, axis=-1)


def test_a_loss_of_an_inner_layer_sees_the_layers_mask():
    teacher, student = tagger(1), tagger(2)
    x, y = tokens(padding=3)
    loss = MaskedError(teacher_layer="embedding", student_layer="embedding", name="hint")
    gap = teacher.get_weights()[0][x] - student.get_weights()[0][x]
    expected = np.mean(gap**2, axis=-1)[x != 0].mean()
    logs = compiled(teacher, student, loss).train_on_batch(x, y, return_dict=True)
    assert_same_values(logs, {"hint": expected})


def test_a_masked_batch_without_any_token():
    teacher, student = tagger(1), tagger(2)
    before = student.get_weights()
    logs = compiled(teacher, student).train_on_batch(
        np.zeros((2, 3), "int32"), np.zeros((2, 3), "int32"), return_dict=True
    )
    assert logs["soft_targets"] == 0.0
    for actual, expected in zip(student.get_weights(), before, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_a_masked_model_with_a_loss_object_of_keras_distillation():
    teacher, student = tagger(1), tagger(2)
    x, y = tokens(padding=3)
    soft = reference.soft_target_loss(logits_of(student, x), logits_of(teacher, x), 3.0)
    loss = keras.distillation.LogitsDistillation(temperature=3.0)
    logs = compiled(teacher, student, loss).train_on_batch(x, y, return_dict=True)
    assert_same_values(logs, {"logits_distillation": soft[x != 0].mean()})
