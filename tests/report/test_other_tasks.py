"""Reports of several labels a row, of numbers and of texts: trained, exported, written."""

import json

import keras
import numpy as np
import pytest
from sklearn import metrics

import keras_kd as kd
from tests import extras
from tests.report import tiny

extras.require("ai_edge_litert")

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
# Of each digit: is it even, prime, above four, written with a closed loop?
ATTRIBUTES = np.array(
    [[i % 2 == 0, i in (2, 3, 5, 7), i > 4, i in (0, 6, 8, 9)] for i in range(10)], "float32"
)


def network(width, outputs):
    stack = [keras.layers.Dense(width, "relu"), keras.layers.Dense(outputs)]
    return keras.Sequential([keras.Input((64,)), *stack])


def report(tmp_path, outputs, labels_of, loss, data, **options):
    """Of two seeds, with a float file of each."""
    (x, digits), _ = tiny.digits()

    def fit(model, rows=100, epochs=3, eagerly=True):  # of a few steps, tracing takes the time
        model.compile(keras.optimizers.Adam(0.01), loss=loss, run_eagerly=eagerly)
        model.fit(x[:rows], labels_of(digits[:rows]), batch_size=50, epochs=epochs, verbose=0)

    keras.utils.set_random_seed(0)
    teacher = network(64, outputs)
    fit(teacher, rows=900, epochs=10, eagerly=False)
    found = kd.report(
        teacher,
        make_student=lambda: network(8, outputs),
        train=fit,
        seeds=2,
        exports={"float32": kd.export.to_tflite},
        data=data,
        latency=False,
        verbose=False,
        **options,
    )
    found.save_html(tmp_path / "report.html")
    found.save_json(tmp_path / "report.json")
    return found


def check(found, tmp_path, score, label):
    """What is measured, and written, is `score` of each model's outputs."""
    x, key = tiny.test_set()[0], found.metric.key
    candidates = {each.name: each for each in found.comparison.candidates}
    assert list(candidates) == ["teacher", "labels only", "distilled", "float32"]
    for name, models in (
        ("labels only", found.baselines),
        ("distilled", found.students),
        ("float32", found.students),
    ):
        expected = [score(model.predict(x, verbose=0)) for model in models]
        assert candidates[name].values("quality", key) == pytest.approx(expected, rel=1e-4)
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written["metric"] == key
    by_seed = written["difference"]["by_seed"]
    one, other = (candidates[name].values("quality", key) for name in ("distilled", "labels only"))
    sign = 1 if found.metric.higher_is_better else -1
    assert by_seed == pytest.approx(sign * (np.array(one) - other), abs=1e-9)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert label in str(found)
    assert label in page
    return candidates


def test_several_labels_a_row(tmp_path):
    x, digits = tiny.test_set()
    found = report(
        tmp_path,
        outputs=4,
        labels_of=lambda digits: ATTRIBUTES[digits],
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        distiller=lambda teacher, student: kd.Distiller(teacher, student, kd.losses.SigmoidKD()),
        data=(x, ATTRIBUTES[digits]),
        class_names=["even", "prime", "above four", "closed loop"],
    )

    def score(logits):
        return metrics.f1_score(ATTRIBUTES[digits], logits > 0, average="macro")

    candidates = check(found, tmp_path, score, "macro F1")
    assert candidates["teacher"].mean("quality", "f1_macro") > 0.9
    assert "closed loop" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_numbers(tmp_path):
    x, digits = tiny.test_set()
    found = report(
        tmp_path,
        outputs=1,
        labels_of=lambda digits: digits.astype("float32"),
        loss="mse",
        distiller=lambda teacher, student: kd.Distiller(teacher, student, kd.losses.RegressionKD()),
        data=(x, digits.astype("float32")),
        task="regression",
    )
    check(found, tmp_path, lambda y: metrics.root_mean_squared_error(digits, y[:, 0]), "RMSE")
    assert "RMSE" in found.verdict


def decode(outputs):
    """Three words for each digit, so that a wrong one is not all wrong."""
    return [f"the digit {WORDS[i]}" for i in np.argmax(outputs, axis=-1)]


def test_texts(tmp_path):
    x, digits = tiny.test_set()
    found = report(
        tmp_path,
        outputs=10,
        labels_of=lambda digits: digits,
        loss=tiny.LOSS,
        data=(x, decode(np.eye(10)[digits])),
        decode=decode,
    )

    def score(logits):  # two of three words are always right
        return np.mean(np.where(logits.argmax(-1) == digits, 1.0, 2 / 3))

    check(found, tmp_path, score, "ROUGE-L")
