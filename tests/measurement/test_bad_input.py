"""Wrong arguments and data raise before work, and never give wrong figures."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.measurement import files

X, Y = files.arrays()


def measure(*data, model=None, **options):
    return kd.measure(model or files.classifier(), data or (X, Y), latency=False, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "classes"}, "`task`. Expected 'auto' or one of"),
        ({"from_logits": "yes"}, "`from_logits`. Expected True or False"),
        ({"top_k": (0,)}, "`top_k`. Expected a whole number of at least 1"),
        ({"top_k": "5"}, "`top_k`. Expected whole numbers"),
        ({"runs": 0}, "`runs`. Expected a whole number of at least 1"),
        ({"warmup": -1}, "`warmup`"),
        ({"batch_size": 2.5}, "`batch_size`. Expected a whole number"),
        ({"class_names": "abcd"}, "`class_names`. Expected a list with a name of its own"),
        ({"class_names": ["a", "a", "b", "c"]}, "`class_names`. Expected a list with a name"),
    ],
)
def test_arguments_are_checked_before_the_model_runs(options, message):
    def never(x):
        raise AssertionError

    with pytest.raises(ValueError, match=message):
        measure(model=never, **options)


def test_names_of_another_number_of_classes():
    with pytest.raises(ValueError, match="has 2 names; the model has 4 classes"):
        measure(class_names=["a", "b"])


@pytest.mark.parametrize(
    "given", [None, 3, "student.h5", "missing.tflite", "missing.onnx", "missing.keras", keras.Model]
)
def test_what_cannot_be_measured(given):
    message = "`model_or_file` must be|Expected a .tflite|There is no file"
    with pytest.raises(ValueError, match=message):
        kd.measure(given, (X, Y), latency=False)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X, "`data` must be a tf.data.Dataset"),
        ((X,), "`data` must be a tf.data.Dataset"),
        ((X, Y[:5]), "must have one length"),
        ((X[:0], Y[:0]), "must have one length"),
        (tf.data.Dataset.from_tensor_slices((X, Y)), "dataset of single samples"),
        (tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).repeat(), "never ends"),
        (tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).take(0), "is empty"),
    ],
)
def test_bad_data(data, message):
    with pytest.raises(ValueError, match=message):
        kd.measure(files.classifier(), data, latency=False)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (Y + 1, {}, "has the label 4, but the model only 4 classes"),
        (Y + 0.5, {}, "do not belong to outputs of shape"),
        (Y.astype(str), {}, "do not belong to outputs of shape"),
        (Y, {"task": "multilabel"}, "Expected a 0 or 1 for each output"),
        (Y, {"task": "regression"}, "Expected a number for each output"),
        (np.full(37, -1), {}, "no sample with a label and a weight above 0"),
    ],
)
def test_labels_that_do_not_fit(labels, options, message):
    with pytest.raises(ValueError, match=message):
        measure(X, labels, **options)


def test_a_task_that_the_outputs_do_not_fit():
    with pytest.raises(ValueError, match=r"The task is 'multiclass', but .* shape \(37, 1\)"):
        measure(X, Y, model=files.classifier(classes=1), task="multiclass")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (-np.ones(37), "must be finite and at least 0"),
        (np.full(37, np.nan), "must be finite and at least 0"),
        (np.ones((37, 2)), "does not fit outputs of shape"),
        (np.zeros(37), "no sample with a label and a weight above 0"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        measure(X, Y, weights)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_numbers_are_named(value):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Identity()], name="broken")
    outputs = np.tile(np.float32([3.0, -1.0, 0.0, 2.0]), (37, 1))
    outputs[5, 2] = outputs[9, 0] = value
    with pytest.raises(
        ValueError,
        match="broken gives NaN or infinities in 2 of 37 samples that count, first in sample 5",
    ):
        measure(outputs, Y, model=model)
    with pytest.raises(ValueError, match="broken gives NaN or infinities in 2 of 37"):
        measure(outputs, np.zeros_like(outputs), model=model, task="regression")


def test_a_class_of_logit_minus_infinity_is_no_fault():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Identity()])
    outputs = np.tile(np.float32([3.0, -np.inf, 0.0, 2.0]), (37, 1))
    found = measure(outputs, np.arange(37) % 3 // 2 * 2, model=model)
    assert np.isfinite(found.quality["log_loss"])


def test_a_file_that_gives_nan_is_named(tmp_path):
    model = files.classifier()
    model.layers[-1].bias.assign([0, np.nan, 0, 0])
    path = files.tflite(model, tmp_path / "broken.tflite")
    with pytest.raises(ValueError, match=r"broken.tflite gives NaN or infinities in 37 of 37"):
        measure(model=path)


@pytest.mark.parametrize(
    ("package", "given", "data", "extra"),
    [
        ("sklearn.metrics", files.classifier(), (X, Y), "measure"),
        ("sacrebleu.metrics", ["a b"], (["x"], ["a b"]), "language"),
        ("rouge_score.rouge_scorer", ["a b"], (["x"], ["a b"]), "language"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(monkeypatch, package, given, data, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'keras-kd\[{extra}\]'"):
        kd.measure(given, data, latency=False)


def test_labels_that_are_none():
    with pytest.raises(ValueError, match=r"no labels: \(inputs, None\)"):
        kd.measure(files.classifier(), (files.arrays()[0], None), latency=False)


def test_logits_of_a_model_that_knows_nothing_are_no_probabilities():
    import keras

    x, y = np.zeros((6, 2), "float32"), np.array([0, 1, 1, 1, 0, 1])
    bias = keras.initializers.Constant(0.8)
    layer = keras.layers.Dense(1, kernel_initializer="zeros", bias_initializer=bias)
    found = kd.measure(keras.Sequential([keras.Input((2,)), layer]), (x, y), latency=False)
    assert found.quality["accuracy"] == 4 / 6
    many = keras.layers.Dense(300, kernel_initializer="zeros")
    found = kd.measure(keras.Sequential([keras.Input((2,)), many]), (x, y), latency=False)
    assert found.quality["accuracy"] == 2 / 6


def test_labels_that_may_be_missing_answers_or_numbers():
    x, labels = files.arrays()[0][:6], np.array([-1, 0, 1, 1, 0, -1])
    model = files.classifier(classes=1)
    with pytest.raises(ValueError, match="task='binary' or task='regression'"):
        kd.measure(model, (x, labels), latency=False)
    assert kd.measure(model, (x, labels), task="binary", latency=False).samples == 4
    assert kd.measure(model, (x, labels), task="regression", latency=False).samples == 6
