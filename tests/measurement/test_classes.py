"""Every figure of a classifier equals scikit-learn's, or that of independent NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics

import keras_kd as kd
from tests.measurement import files

WEIGHTS = np.random.default_rng(5).uniform(0.5, 2.0, size=37).astype("float32")
X, Y = files.arrays()
NAMES = ["ant", "bee", "cat", "dog"]


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def logits(seed=1):
    return np.asarray(files.classifier(seed)(X), "float64")


def measured(data, **options):
    model = options.pop("model", None) or files.classifier()
    return kd.measure(model, data, latency=False, **options)


def expected_ece(p, y, w):
    confidence, right, error = p.max(axis=1), p.argmax(axis=1) == y, 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            gap = np.average(right[inside], weights=w[inside]) - np.average(
                confidence[inside], weights=w[inside]
            )
            error += w[inside].sum() / w.sum() * abs(gap)
    return error


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_every_figure_of_several_classes(weights):
    data = (X, Y) if weights is None else (X, Y, weights)
    found = measured(data, top_k=(1, 2, 3, 4))
    p = softmax(logits())
    y, predicted, options = Y, p.argmax(axis=1), {"sample_weight": weights}
    expected = {
        "accuracy": metrics.accuracy_score(y, predicted, **options),
        "top_2_accuracy": metrics.top_k_accuracy_score(y, p, k=2, **options),
        "top_3_accuracy": metrics.top_k_accuracy_score(y, p, k=3, **options),
        "f1_macro": metrics.f1_score(y, predicted, average="macro", **options),
        "f1_micro": metrics.f1_score(y, predicted, average="micro", **options),
        "roc_auc": metrics.roc_auc_score(y, p, multi_class="ovr", **options),
        "log_loss": metrics.log_loss(y, p, **options),
        "ece": expected_ece(p, y, np.ones(len(y)) if weights is None else weights),
    }
    assert found.quality == pytest.approx(expected, rel=1e-5)
    assert 0.3 < expected["accuracy"] < 0.9  # neither trivial
    assert (found.task, found.kind, found.samples) == ("multiclass", "keras", len(Y))
    np.testing.assert_array_equal(found.predictions, predicted)
    np.testing.assert_array_equal(found.labels, y)
    confusion = metrics.confusion_matrix(y, predicted, **options)
    np.testing.assert_allclose(found.confusion, confusion, rtol=1e-6)


def test_classes_one_by_one():
    found = measured((X, Y, WEIGHTS), class_names=NAMES)
    predicted = logits().argmax(axis=1)
    table = metrics.precision_recall_fscore_support(Y, predicted, sample_weight=WEIGHTS)
    for i, row in enumerate(found.per_class):
        assert row["label"] == NAMES[i]
        for key, values in zip(("precision", "recall", "f1", "support"), table, strict=True):
            assert row[key] == pytest.approx(values[i])
    plain = measured((X, Y)).per_class
    assert [row["label"] for row in plain] == [0, 1, 2, 3]
    assert [row["support"] for row in plain] == np.bincount(Y).tolist()


def test_macro_f1_is_over_the_classes_that_have_rows():
    """For every model: one that predicts an absent class once is not averaged over one more."""
    rows = np.isin(Y, [0, 1])
    found = measured((X[rows], Y[rows]))
    predicted = logits()[rows].argmax(axis=1)
    assert set(predicted) - {0, 1}
    options = {"average": "macro", "labels": [0, 1]}
    assert found.quality["f1_macro"] == metrics.f1_score(Y[rows], predicted, **options)
    assert found.quality["f1_macro"] > metrics.f1_score(Y[rows], predicted, average="macro")


def test_the_reliability_curve():
    found = measured((X, Y))
    p = softmax(logits())
    confidence, right = p.max(axis=1), p.argmax(axis=1) == Y
    assert [round(15 * row["low"]) for row in found.reliability] == list(range(15))
    assert sum(row["count"] for row in found.reliability) == len(Y)
    for row in found.reliability:
        inside = (confidence > row["low"]) & (confidence <= row["high"])
        assert row["count"] == inside.sum()
        if inside.any():
            assert row["confidence"] == pytest.approx(confidence[inside].mean())
            assert row["accuracy"] == pytest.approx(right[inside].mean())
        else:
            assert row["confidence"] is None


def test_data_of_any_kind_gives_the_same():
    expected = measured((X, Y, WEIGHTS))
    slices = tf.data.Dataset.from_tensor_slices((X, Y, WEIGHTS))
    for data, options in (
        (slices.batch(8), {}),
        ((X, Y, WEIGHTS), {"batch_size": 5}),
        ((X.astype("float64"), Y[:, None], WEIGHTS.tolist()), {}),
        ((X, np.eye(4)[Y], WEIGHTS), {}),
    ):
        found = measured(data, **options)
        assert found.quality == pytest.approx(expected.quality, rel=1e-5)
        np.testing.assert_array_equal(found.labels, Y)


def test_probabilities_are_taken_where_they_are_promised():
    inner = files.classifier()
    model = keras.Sequential([keras.Input((5,)), inner, keras.layers.Softmax()])
    found = measured((X, Y), model=model, from_logits=False)
    assert found.quality == pytest.approx(measured((X, Y)).quality, rel=1e-4)
    with pytest.raises(ValueError, match=r"are probabilities. Pass from_logits=False"):
        measured((X, Y), model=model)
    with pytest.raises(ValueError, match="are no probabilities: they range from -"):
        measured((X, Y), from_logits=False)


def test_samples_that_do_not_count():
    weights, labels = WEIGHTS.copy(), Y.copy()
    weights[:4], labels[4:9] = 0.0, -1
    x = X.copy()
    x[:4] = np.nan  # padding: neither may its NaN be found
    found = measured((x, labels, weights))
    expected = measured((X[9:], Y[9:], WEIGHTS[9:]))
    assert found.quality == pytest.approx(expected.quality, rel=1e-6)
    assert found.samples == len(Y) - 9
    assert "9 samples without a label or of weight 0 do not count." in found.notes


def test_labels_of_positions():
    model = keras.Sequential(
        [keras.Input((3, 5)), keras.layers.TimeDistributed(files.classifier())]
    )
    x, y = X[:36].reshape(12, 3, 5), Y[:36].reshape(12, 3)
    expected = measured((X[:36], Y[:36], WEIGHTS[:36]))
    found = measured((x, y, WEIGHTS[:36].reshape(12, 3)), model=model)
    assert found.quality == pytest.approx(expected.quality, rel=1e-5)
    assert found.samples == 36


def test_a_missing_class_leaves_out_the_roc_auc():
    rows = Y != 2
    found = measured((X[rows], Y[rows]), class_names=NAMES)
    assert "roc_auc" not in found.quality
    assert "roc_auc: left out; the data has no sample of the class(es) cat." in found.notes
    assert found.per_class[2]["support"] == 0
    expected = metrics.log_loss(Y[rows], softmax(logits()[rows]), labels=range(4))
    assert found.quality["log_loss"] == pytest.approx(expected, rel=1e-5)


def test_no_confusion_of_many_classes():
    model = files.classifier(classes=101)
    assert measured((X, Y), model=model).confusion is None


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("from_logits", [True, False])
def test_yes_or_no(from_logits, weights):
    model = files.classifier(classes=1, activation=None if from_logits else "sigmoid")
    y = (Y > 1).astype("float32")
    data = (X, y[:, None]) if weights is None else (X, y, weights)
    found = measured(data, model=model, from_logits=from_logits)
    z = np.asarray(files.classifier(classes=1)(X), "float64")[:, 0]
    yes, options = 1 / (1 + np.exp(-z)), {"sample_weight": weights}
    p, predicted = np.stack([1 - yes, yes], axis=1), yes > 0.5
    expected = {
        "accuracy": metrics.accuracy_score(y, predicted, **options),
        "f1_macro": metrics.f1_score(y, predicted, average="macro", **options),
        "f1_micro": metrics.f1_score(y, predicted, average="micro", **options),
        "roc_auc": metrics.roc_auc_score(y, yes, **options),
        "log_loss": metrics.log_loss(y, p, **options),
        "ece": expected_ece(p, y, np.ones(len(y)) if weights is None else weights),
    }
    assert found.task == "binary"
    assert found.quality == pytest.approx(expected, rel=1e-4)
    np.testing.assert_array_equal(found.predictions, predicted)


def test_yes_or_no_of_probabilities_must_be_said():
    model = files.classifier(classes=1, activation="sigmoid")
    with pytest.raises(ValueError, match="Pass from_logits=False"):
        measured((X, Y > 1), model=model)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weighted"])
def test_several_labels(weights):
    y = np.random.default_rng(1).integers(2, size=(len(X), 4))
    found = measured((X, y) if weights is None else (X, y, weights), class_names=NAMES)
    yes, options = 1 / (1 + np.exp(-logits())), {"sample_weight": weights}
    predicted = yes > 0.5
    losses = [metrics.log_loss(y[:, i], yes[:, i], **options) for i in range(4)]
    two = np.stack([1 - yes, yes], axis=-1).reshape(-1, 2)
    w = np.repeat(np.ones(len(y)) if weights is None else weights, 4)
    expected = {
        "accuracy": metrics.accuracy_score(y, predicted, **options),
        "f1_macro": metrics.f1_score(y, predicted, average="macro", **options),
        "f1_micro": metrics.f1_score(y, predicted, average="micro", **options),
        "roc_auc": metrics.roc_auc_score(y, yes, average="macro", **options),
        "log_loss": np.mean(losses),
        "ece": expected_ece(two, y.ravel(), w),
    }
    assert found.task == "multilabel"
    assert found.quality == pytest.approx(expected, rel=1e-5)
    assert found.confusion is None
    recall = metrics.recall_score(y, predicted, average=None, **options)
    assert [row["recall"] for row in found.per_class] == pytest.approx(list(recall))
    np.testing.assert_array_equal(found.predictions, predicted)


def test_a_label_that_is_the_same_in_all_rows():
    y = np.random.default_rng(1).integers(2, size=(len(X), 4))
    y[:, 1] = 1
    found = measured((X, y), class_names=NAMES)
    assert "roc_auc" not in found.quality
    assert "roc_auc: left out; all samples have the same value of the label(s) bee." in found.notes


def test_batches_that_were_padded_to_lengths_of_their_own():
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 20, size) for size in (3, 5, 2, 7)]
    tagger = keras.Sequential(
        [keras.Input((None,), dtype="int32"), keras.layers.Embedding(20, 4), keras.layers.Dense(3)]
    )
    data = tf.data.Dataset.from_generator(
        lambda: ((row, row % 3) for row in rows),
        output_signature=(tf.TensorSpec((None,), "int32"), tf.TensorSpec((None,), "int32")),
    )
    found = kd.measure(
        tagger, data.padded_batch(2, padding_values=(0, -1)), teacher=tagger, latency=False
    )
    logits = [np.asarray(tagger(row[None]))[0] for row in rows]
    right = np.concatenate([x.argmax(-1) == row % 3 for x, row in zip(logits, rows, strict=True)])
    assert found.samples == len(right) == 17
    assert found.quality["accuracy"] == np.mean(right)
    assert found.teacher["agreement"] == 1.0
