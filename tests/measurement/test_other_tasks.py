"""Figures of regression and of text equal those of the libraries."""

import keras
import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer
from sklearn import metrics

import keras_kd as kd
from tests.measurement import files

X, _ = files.arrays()
WEIGHTS = np.random.default_rng(5).uniform(0.5, 2.0, size=37).astype("float32")


def r2(y, values, weights=None):
    """The R2 of each column, weighted by its variance."""
    y, values = np.float64(y), np.float64(values)
    weights = np.ones(len(y)) if weights is None else np.float64(weights)
    mean = (weights[:, None] * y).sum(0) / weights.sum()
    spread = (weights[:, None] * (y - mean) ** 2).sum(0)
    each = 1 - (weights[:, None] * (y - values) ** 2).sum(0) / spread
    return (spread * each).sum() / spread.sum()


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("numbers", [1, 3])
def test_regression(numbers, weights):
    model = files.classifier(classes=numbers)
    values = np.asarray(model(X), "float64")
    y = values + np.random.default_rng(0).normal(size=values.shape)
    data = (X, y[:, 0] if numbers == 1 else y)
    found = kd.measure(model, data if weights is None else (*data, weights), latency=False)
    options = {"sample_weight": weights}
    assert found.task == "regression"
    assert found.quality == pytest.approx(
        {
            "mae": metrics.mean_absolute_error(y, values, **options),
            "rmse": metrics.root_mean_squared_error(y, values, **options),
            "r2": r2(y, values, weights),
        },
        rel=1e-5,
    )
    assert found.predictions.shape == data[1].shape
    np.testing.assert_allclose(found.predictions.reshape(y.shape), values, rtol=1e-6, atol=1e-6)
    assert found.per_class == []


def test_regression_of_a_row_has_no_r2():
    found = kd.measure(files.classifier(classes=1), (X[:1], [0.5]), latency=False)
    assert set(found.quality) == {"mae", "rmse"}
    assert "r2: left out; it needs at least two samples." in found.notes


def test_columns_that_hardly_vary_do_not_rule_r2():
    model = files.classifier(classes=3)
    values = np.asarray(model(X), "float64")
    y = values + np.random.default_rng(0).normal(size=values.shape)
    y[:, 1] = 0.1 + 1e-12 * np.arange(len(y))  # the mean over columns is below -1e20
    found = kd.measure(model, (X, y), task="regression", latency=False)
    expected = r2(y[:, ::2], values[:, ::2])
    assert abs(found.quality["r2"] - r2(y, values)) < 1e-5
    assert -10 < found.quality["r2"] < expected
    y[:, 1] = 0.1
    found = kd.measure(model, (X, y), task="regression", latency=False)
    assert found.quality["r2"] == pytest.approx(expected, rel=1e-5)
    note = "r2: 1 of 3 numbers have the same label in all samples and do not count."
    assert note in found.notes
    found = kd.measure(model, (X, np.full_like(y, 0.1)), task="regression", latency=False)
    assert "r2" not in found.quality
    assert "r2: left out; the labels are all the same." in found.notes


def test_numbers_that_are_missing():
    y = np.linspace(0, 1, len(X))
    y[3] = np.nan
    model = files.classifier(classes=1)
    with pytest.raises(ValueError, match="are NaN or infinite. Give samples without a label"):
        kd.measure(model, (X, y), latency=False)
    weights = np.isfinite(y).astype("float32")
    assert kd.measure(model, (X, y, weights), latency=False).samples == len(X) - 1


TEXTS = ["the cat sat on the mat today", "a small dog barks at night", "nothing alike here at all"]
TRUE = ["the cat sat on a mat today", "a small dog barks every night", "this is something else"]
OTHER = ["on the mat sat a cat", "at night a small dog barks", "nothing alike at all"]


def expected(references):
    """Of a list of references for each text."""
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    quality = {
        "bleu": sacrebleu.corpus_bleu(TEXTS, [list(x) for x in zip(*references, strict=True)]).score
    }
    for name, key in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        scores = [
            max(scorer.score(one, text)[key].fmeasure for one in each)
            for each, text in zip(references, TEXTS, strict=True)
        ]
        quality[name] = np.mean(scores)
    return quality


class Speaker(keras.layers.Layer):
    def call(self, rows):
        return keras.ops.one_hot(rows, 3)


def decode(outputs):
    return [TEXTS[i] for i in np.argmax(outputs, axis=-1)]


def test_text_of_a_list_a_function_and_a_model():
    rows = np.arange(3)
    model = keras.Sequential([keras.Input((), dtype="int32"), Speaker()], name="speaker")
    for given, options, kind in (
        (TEXTS, {}, "texts"),
        (lambda x: [TEXTS[i] for i in x], {"batch_size": 2}, "function"),
        (model, {"decode": decode}, "keras"),
    ):
        found = kd.measure(given, (rows, TRUE), latency=False, **options)
        assert found.quality == pytest.approx(expected([[x] for x in TRUE]))
        assert (found.task, found.kind, found.samples) == ("text", kind, 3)
        assert found.predictions.tolist() == TEXTS
        assert found.labels.tolist() == TRUE
    assert 5 < found.quality["bleu"] < 80


def test_text_with_several_references():
    references = [list(pair) for pair in zip(TRUE, OTHER, strict=True)]
    found = kd.measure(TEXTS, (["x"] * 3, references), latency=False)
    assert found.quality == pytest.approx(expected(references))


def test_texts_of_weight_0_do_not_count():
    one = kd.measure(TEXTS[:2], (["x"] * 2, TRUE[:2]), latency=False)
    other = kd.measure(TEXTS, (["x"] * 3, TRUE, [1.0, 1.0, 0.0]), latency=False)
    assert one.quality == other.quality


def test_bad_texts():
    with pytest.raises(ValueError, match="BLEU takes no sample weights"):
        kd.measure(TEXTS, (["x"] * 3, TRUE, [1.0, 2.0, 1.0]), latency=False)
    with pytest.raises(ValueError, match=r"texts has 2 samples where the data has 3"):
        kd.measure(TEXTS[:2], (["x"] * 3, TRUE), latency=False)
    with pytest.raises(ValueError, match="gives 2 texts where the data has 3 samples"):
        kd.measure(lambda x: TEXTS[:2], (["x"] * 3, TRUE), latency=False)
    with pytest.raises(ValueError, match="`decode` makes strings of a model's outputs"):
        kd.measure(files.classifier(), (X[:3], TRUE), task="text", latency=False)
    with pytest.raises(ValueError, match="`decode`. Expected a function"):
        kd.measure(TEXTS, (["x"] * 3, TRUE), decode="utf-8", latency=False)
