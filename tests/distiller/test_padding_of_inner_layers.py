"""Padding in outputs of inner layers that losses read: attention's own mask, and warnings."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from tests import reference
from tests.distiller import linear
from tests.distiller.linear import MODES, assert_same_values

BATCH, TIME, WORDS, WIDTH, HEADS, CLASSES = 4, 6, 20, 8, 2, 3
LENGTHS = (6, 2, 4, 3)
MASK = {"mask_input": "padding_mask"}


def model(seed, is_of_tokens=True):
    """A causal transformer's attention, which leaves out padded keys, and not padded queries."""
    ids = keras.Input((TIME,), dtype="int32", name="ids")
    mask = keras.Input((TIME,), dtype="int32", name="padding_mask")
    hidden = layers.Embedding(WORDS, WIDTH, name="words")(ids)
    attended = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name="attention")(
        hidden, hidden, attention_mask=mask[:, None, :], use_causal_mask=True
    )
    attended = attended if is_of_tokens else attended[:, 0]
    made = keras.Model(
        {"ids": ids, "padding_mask": mask}, layers.Dense(CLASSES, name="head")(attended)
    )
    rng = np.random.default_rng(seed)
    made.set_weights([rng.normal(size=weight.shape) for weight in made.weights])
    return made


def batch(padding=0):
    rng = np.random.default_rng(1)
    mask = np.arange(TIME)[None] < np.array(LENGTHS)[:, None]
    ids = np.where(mask, rng.integers(1, WORDS, (BATCH, TIME)), padding)
    y = np.where(mask, rng.integers(CLASSES, size=(BATCH, TIME)), padding % CLASSES)
    return {"ids": ids, "padding_mask": mask.astype("int32")}, y


def attention_logits(made, x):
    """`[batch, heads, queries, keys]`, in float64."""
    words, *weights = (np.float64(weight) for weight in made.get_weights())
    query, key = (
        np.einsum("btd,dhk->bhtk", words[x["ids"]], kernel) + bias[None, :, None]
        for kernel, bias in (weights[:2], weights[2:4])
    )
    return query @ np.swapaxes(key, 2, 3) / np.sqrt(WIDTH // HEADS)


def expected(kind, pair, x):
    """The means over the pairs, or queries, without padding or forbidden positions."""
    counts = x["padding_mask"] != 0
    teacher, student = (attention_logits(each, x) for each in pair)
    allowed = counts[:, None, :, None] & counts[:, None, None, :] & np.tri(TIME, dtype=bool)
    allowed = np.broadcast_to(allowed, teacher.shape)
    if kind == "mse":
        return np.mean((teacher - student)[allowed] ** 2)
    of_queries = [
        reference.kl(*[reference.log_softmax(np.where(row, each, -1e9)) for each in scores])
        for row, *scores in zip(allowed, teacher, student, strict=True)
    ]
    return np.mean(np.stack(of_queries)[allowed.any(-1)])


SPELLINGS = {"distiller": (MASK, {}), "loss": ({}, MASK), "both": (MASK, MASK)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["mse", "kl"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_attention_counts_where_its_mask_and_the_input_do(spelling, kind, mode):
    pair = model(1), model(2)
    x, y = batch()
    of_distiller, of_loss = SPELLINGS[spelling]
    loss = kd.losses.AttentionMaps("attention", "attention", kind, **of_loss)
    distiller = kd.Distiller(*pair, loss, **of_distiller)
    distiller.compile(keras.optimizers.SGD(0.0), linear.from_logits(), **MODES[mode])
    logs = distiller.train_on_batch(x, y, return_dict=True)
    assert_same_values(logs, {"attention_maps": expected(kind, pair, x)})
    x, y = batch(13)
    distiller.reset_metrics()
    other = distiller.train_on_batch(x, y, return_dict=True)
    assert other["attention_maps"] == logs["attention_maps"]


def crossing(seed):
    """Words attend to four regions of an image, which have no padding."""
    inputs = {
        "ids": keras.Input((TIME,), dtype="int32", name="ids"),
        "padding_mask": keras.Input((TIME,), dtype="int32", name="padding_mask"),
        "image": keras.Input((4, WIDTH), name="image"),
    }
    hidden = layers.Embedding(WORDS, WIDTH, name="words")(inputs["ids"])
    attend = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, name="attention")
    made = keras.Model(inputs, layers.Dense(CLASSES)(attend(hidden, inputs["image"])))
    rng = np.random.default_rng(seed)
    made.set_weights([rng.normal(size=weight.shape) for weight in made.weights])
    return made


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_of_attention_to_something_else_the_queries_are_masked(spelling):
    of_distiller, of_loss = SPELLINGS[spelling]
    loss = kd.losses.AttentionMaps("attention", "attention", **of_loss)
    distiller = kd.Distiller(crossing(1), crossing(2), loss, **of_distiller)
    distiller.compile(keras.optimizers.SGD(0.0), linear.from_logits(), run_eagerly=True)
    logs, image = [], np.random.default_rng(0).normal(size=(BATCH, 4, WIDTH)).astype("float32")
    for padding in (0, 13):
        x, y = batch(padding)
        distiller.reset_metrics()
        logs.append(distiller.train_on_batch({**x, "image": image}, y, return_dict=True))
    assert logs[0]["attention_maps"] == logs[1]["attention_maps"] > 0


def padding_warnings(losses, is_of_tokens=False, y=True, weight=None, **options):
    """The warnings of `fit` about padding."""
    pair = model(1, is_of_tokens), model(2, is_of_tokens)
    x, labels = batch()
    labels = labels if is_of_tokens else labels[:, 0]
    distiller = kd.Distiller(*pair, losses, alpha=float(y), **options)
    distiller.compile("sgd", linear.from_logits() if y else None, run_eagerly=True)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(2):
            distiller.fit(x, labels if y else None, sample_weight=weight, verbose=0)
    return [str(w.message) for w in found if "padding" in str(w.message)]


def hints(**options):
    return [
        kd.losses.HiddenStates("words", "words", **options),
        kd.losses.AttentionMaps("attention", "attention", **options),
    ]


def test_padding_that_counts_in_hints_alone_warns_once():
    (message,) = padding_warnings([kd.losses.SoftTargets(), *hints()])
    assert "9 of 24 positions are padding" in message
    assert "losses of inner layers 'hidden_states', 'attention_maps'" in message
    assert "mask_input='padding_mask'" in message
    # The attention's own mask leaves out padded keys, and not padded queries.
    (message,) = padding_warnings(hints()[1])
    assert "losses of inner layers 'attention_maps'" in message
    assert padding_warnings([kd.losses.SoftTargets(), *hints(**MASK)]) == []
    assert padding_warnings(kd.losses.SoftTargets()) == []


def test_padding_of_outputs_that_no_loss_reads_does_not_warn():
    assert padding_warnings(hints(**MASK), is_of_tokens=True, y=False) == []
    (message,) = padding_warnings(hints(**MASK), is_of_tokens=True)  # the hard loss
    assert "mask_input='padding_mask' to Distiller" in message
    (message,) = padding_warnings(hints(), is_of_tokens=True)
    assert "mask_input='padding_mask' to Distiller" in message
    assert padding_warnings(hints(), is_of_tokens=True, **MASK) == []
    weight = np.float32(batch()[0]["padding_mask"])
    assert padding_warnings(hints(), is_of_tokens=True, weight=weight) == []
