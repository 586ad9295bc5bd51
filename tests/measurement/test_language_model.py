"""`task="language_model"`: perplexity and agreement in float64; padding, batches, KerasHub."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import extras

TEXTS, LENGTH, WORDS = 11, 7, 13
QUIET = {"task": "language_model", "latency": False, "verbose": 0}


def head(seed, scale=2.0):
    """A model that reads ids and gives logits, no two alike."""
    keras.utils.set_random_seed(seed)
    table = keras.layers.Embedding(WORDS, WORDS)
    model = keras.Sequential([keras.Input((None,), dtype="int32"), table])
    table.set_weights([np.random.default_rng(seed).normal(size=(WORDS, WORDS)) * scale])
    return model


def data(seed=0):
    """Ids, labels with -100 at some positions, weights with 0 at others."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(WORDS, size=(TEXTS, LENGTH)).astype("int32")
    labels = rng.integers(WORDS, size=(TEXTS, LENGTH))
    labels[rng.random((TEXTS, LENGTH)) < 0.3] = -100
    weights = np.where(rng.random((TEXTS, LENGTH)) < 0.2, 0.0, rng.uniform(0.5, 2.0, labels.shape))
    labels[4] = -100  # a text without a label
    return ids, labels, weights


def log_softmax(logits):
    logits = np.float64(logits)
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def expected(model, ids, labels, weights):
    logs = log_softmax(model(ids))
    counts = np.where(labels >= 0, weights, 0.0)
    losses = -np.take_along_axis(logs, np.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    loss = (counts * losses).sum() / counts.sum()
    right = logs.argmax(axis=-1) == labels
    return {
        "perplexity": np.exp(loss),
        "log_loss": loss,
        "accuracy": (counts * right).sum() / counts.sum(),
    }


@pytest.mark.parametrize("batch_size", [None, 3, 100])
def test_figures(batch_size):
    model, (ids, labels, weights) = head(0), data()
    found = kd.measure(model, (ids, labels, weights), batch_size=batch_size, **QUIET)
    assert found.quality == pytest.approx(expected(model, ids, labels, weights), rel=1e-6)
    plain = kd.measure(model, (ids, labels), **QUIET)
    ones = np.ones_like(weights)
    assert plain.quality == pytest.approx(expected(model, ids, labels, ones), rel=1e-6)
    assert plain.samples == TEXTS - 1
    assert f"{(labels >= 0).sum()} positions of 10 texts count." in plain.notes
    by_text = kd.measure(model, (ids, labels, weights[:, 0] + 0.1), **QUIET)
    of_texts = np.broadcast_to(weights[:, :1] + 0.1, ids.shape)
    assert by_text.quality == pytest.approx(expected(model, ids, labels, of_texts), rel=1e-6)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary():
    model = head(0, scale=0.0)
    assert kd.measure(model, data()[:2], **QUIET).quality["perplexity"] == pytest.approx(WORDS)


def test_probabilities():
    model, (ids, labels, weights) = head(0), data()
    shares = keras.Sequential([keras.Input((None,), dtype="int32"), model, keras.layers.Softmax()])
    found = kd.measure(shares, (ids, labels, weights), from_logits=False, **QUIET)
    assert found.quality == pytest.approx(expected(model, ids, labels, weights), rel=1e-5)
    with pytest.raises(ValueError, match="are probabilities. Pass from_logits=False"):
        kd.measure(shares, (ids, labels), **QUIET)


def test_padding_counts_nowhere_and_batches_may_have_lengths_of_their_own():
    model, (ids, labels, _) = head(0), data()
    whole = kd.measure(model, (ids, labels), **QUIET)
    short = [(ids[:5, :4], labels[:5, :4]), (ids[5:], labels[5:])]
    batches = tf.data.Dataset.from_generator(
        lambda: short,
        output_signature=(
            tf.TensorSpec([None, None], tf.int32),
            tf.TensorSpec([None, None], tf.int64),
        ),
    )
    cut = labels.copy()
    cut[:5, 4:] = -100
    expected_quality = kd.measure(model, (ids, cut), **QUIET).quality
    assert kd.measure(model, batches, **QUIET).quality == pytest.approx(expected_quality)
    other = np.where(labels < 0, 0, ids)
    embedded = kd.measure(model, (other, labels), **QUIET)
    assert embedded.quality == whole.quality


def test_agreement_with_a_teacher():
    student, teacher, (ids, labels, weights) = head(0), head(1), data()
    found = kd.measure(student, (ids, labels, weights), teacher=teacher, **QUIET)
    logs, own = log_softmax(teacher(ids)), log_softmax(student(ids))
    counts = np.where(labels >= 0, weights, 0.0)
    kl = (np.exp(logs) * (logs - own)).sum(axis=-1)
    same = logs.argmax(axis=-1) == own.argmax(axis=-1)
    difference = abs(np.exp(logs) - np.exp(own)).mean(axis=-1)
    true = {"agreement": same, "kl": kl, "mean_abs_difference": difference}
    true = {name: (counts * x).sum() / counts.sum() for name, x in true.items()}
    assert found.teacher == pytest.approx(true, rel=1e-5)
    given = kd.measure(student, (ids, labels, weights), teacher=np.asarray(teacher(ids)), **QUIET)
    assert given.teacher == pytest.approx(true, rel=1e-5)


def test_influences_are_those_of_leaving_a_text_out():
    """The delta method: near the change of the figure when the weight of a text grows a little."""
    model, (ids, labels, weights) = head(0), data()
    found = kd.measure(model, (ids, labels, weights), **QUIET)
    for name in ("perplexity", "log_loss", "accuracy"):
        scores = found.sample_scores[name]
        assert scores.value() == pytest.approx(found.quality[name])
        influences = scores.influences()
        more = np.ones(len(influences))
        more[3] += 1e-6
        slope = (scores.value(more) - scores.value()) / 1e-6
        assert (influences[3] - found.quality[name]) / len(more) == pytest.approx(slope, rel=1e-3)
        if name != "perplexity":
            assert influences.mean() == pytest.approx(found.quality[name])


def test_kerashub():
    models = extras.require("tests.hub.models")
    model = models.gpt2()
    x, labels, weights = models.next_tokens()
    found = kd.measure(model, (x, labels, weights), **QUIET)
    logs = log_softmax(model(x))
    losses = -np.take_along_axis(logs, labels[..., None], axis=-1)[..., 0]
    true = np.exp((weights * losses).sum() / weights.sum())
    assert found.quality["perplexity"] == pytest.approx(true, rel=1e-5)
    other = models.other_padding(x)
    assert kd.measure(model, (other, labels, weights), **QUIET).quality == found.quality


def test_a_file_has_the_same_perplexity(tmp_path):
    model, (ids, labels, weights) = head(0), data()
    fixed = keras.Sequential([keras.Input((LENGTH,), dtype="int32"), model])
    path = tmp_path / "model.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(fixed).convert())
    found = kd.measure(path, (ids, labels, weights), **QUIET)
    assert found.quality == pytest.approx(expected(model, ids, labels, weights), rel=1e-5)


def test_bad_input():
    ids, labels, _ = data()

    def raises(match, model=None, y=labels, **options):
        with pytest.raises(ValueError, match=match):
            kd.measure(model or head(0), (ids, y), **{**QUIET, **options})

    pooled = keras.Sequential([head(0), keras.layers.GlobalAveragePooling1D()])
    raises(r"gives outputs of shape .*Expected \[texts, positions, vocabulary\]", pooled)
    raises(r"Expected token ids \[texts, positions\] as labels", y=labels[:, :3])
    raises(r"Expected token ids \[texts, positions\] as labels", y=labels + 0.5)
    raises("The data has the token 13, but .* only 13", y=np.full_like(labels, 13))
    raises("no position with a label", y=np.full_like(labels, -100))
    raises("`top_k` is for classes and retrieval", top_k=3)
    raises("`class_names` names classes", class_names=["a"])
    wide = keras.Sequential([head(0), keras.layers.Dense(9)])
    raises("The teacher has 9 outputs per sample where the model has 13", teacher=wide)
    raises("The teacher gives outputs of shape", teacher=np.zeros((TEXTS, LENGTH - 1, WORDS)))
    broken = head(0)
    broken.layers[0].embeddings.assign(np.full((WORDS, WORDS), np.nan))
    raises("gives NaN or infinities", broken)
