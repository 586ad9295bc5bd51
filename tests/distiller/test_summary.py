"""`summary` names the teacher and the losses, and counts what is trained."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.distiller import linear

FEATURES = 8


def network(width, name):
    layers = [
        keras.layers.Dense(width, name=f"{name}_deep"),
        keras.layers.BatchNormalization(name=f"{name}_norm"),
        keras.layers.Dense(5, name=f"{name}_logits"),
    ]
    return keras.Sequential([keras.Input((FEATURES,)), *layers], name=name)


def parameters(width):
    """`(trained, moving statistics)` of a network, by hand."""
    dense = FEATURES * width + width + width * 5 + 5
    return dense + 2 * width, 2 * width


def hinted(teacher=None):
    """A distiller with a projector of 4 x 32 + 32 weights."""
    teacher = network(32, "big") if teacher is None else teacher
    losses = [kd.losses.SoftTargets(2.0), kd.losses.FeatureHint("big_deep", "small_deep")]
    return kd.Distiller(teacher, network(4, "small"), losses)


def text_of(model, **options):
    printed = []
    model.summary(print_fn=printed.append, **options)
    (text,) = printed  # as Keras: all in one call
    return text


def number(text, title):
    return int(re.search(rf" {title}: ([\d,]+) \(", text)[1].replace(",", ""))


def row(text, name):
    (line,) = [line for line in text.splitlines() if re.search(rf"│ +(└ )?{name} ", line)]
    return line


def plain(text):
    """Without the breaks of lines."""
    return " ".join(text.split())


def test_the_teacher_is_there_and_the_totals_are_true():
    distiller = hinted()
    text = text_of(distiller)
    teacher, (trained, fixed) = sum(parameters(32)), parameters(4)
    assert f" {teacher} " in row(text, "big")
    assert f" {trained + fixed} " in row(text, "small")
    assert " 161 " in row(text, "feature_hint")
    assert number(text, "Trainable params") == trained + 160
    assert number(text, "Non-trainable params") == fixed + 5  # alpha, beta; of losses 2 and 1
    lines = plain(text)
    assert f"Teacher: big (Sequential), {teacher} params, frozen: it is not trained" in lines
    assert f"Trained: {trained} of small, 160 of feature_hint" in lines
    assert f"Not trained: {fixed} of small, 2 of soft_targets, 1 of feature_hint" in lines


def test_after_a_fit_the_optimizer_counts_too():
    distiller = hinted()
    distiller.compile("adam", linear.from_logits())
    distiller.fit(np.zeros((4, FEATURES)), np.zeros(4), verbose=0)
    text = text_of(distiller)
    assert number(text, "Optimizer params") == 2 * (parameters(4)[0] + 160) + 2
    assert "Teacher: big" in text


def test_every_argument_of_keras_counts(monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    distiller = hinted()
    wide = text_of(distiller, expand_nested=True, show_trainable=True, line_length=120)
    for name in ("big", "big_deep", "big_norm", "big_logits"):
        assert " N " in row(wide, name)
    assert distiller.teacher.trainable  # as it was
    for name in ("small", "small_deep", "feature_hint"):
        assert " Y " in row(wide, name)
    assert "(None, 32)" in row(wide, "big_deep")
    assert "(None, 5)" in row(wide, "big")
    assert "big_deep" not in text_of(distiller)
    for length in (60, 100):
        assert max(map(len, text_of(distiller, line_length=length).splitlines())) == length
    narrow = row(text_of(distiller, line_length=100, positions=[0.3, 0.6, 1.0]), "big")
    assert narrow.index("│", 1) < row(text_of(distiller, line_length=100), "big").index("│", 1)
    some = text_of(distiller, layer_range=["big", "big"])
    assert "│ big (" in some
    assert "│ small (" not in some


def test_without_print_fn_it_is_printed(capsys):
    distiller = hinted()
    assert distiller.summary() is None
    printed = capsys.readouterr().out
    assert "big" in printed
    assert "Teacher: big (Sequential)" in printed


def test_it_changes_nothing():
    keras.backend.clear_session()
    distiller = hinted()
    before = [(v.path, np.array(v)) for v in distiller.variables]
    layers = [each.name for each in distiller.layers]
    name = keras.layers.Dense(1).name
    text_of(distiller, expand_nested=True)
    for (path, value), variable in zip(before, distiller.variables, strict=True):
        assert variable.path == path
        np.testing.assert_array_equal(variable, value)
    assert [each.name for each in distiller.layers] == layers
    assert keras.layers.Dense(1).name == f"{name}_1"


def of_function():
    teacher = network(6, "inner")

    def precomputed(x):
        return teacher(x)

    return precomputed


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (of_function, r"precomputed \(function\), no params that Keras knows of, frozen"),
        (
            lambda: kd.teachers.Ensemble([network(6, "one"), network(7, "two")], name="both"),
            rf"both \(Ensemble\), {sum(parameters(6)) + sum(parameters(7))} params, frozen",
        ),
        (lambda: kd.teachers.KerasTeacher(network(6, "one")), r"one \(KerasTeacher\), .*, frozen"),
        (lambda: kd.teachers.VirtualTeacher(0.9), r"\(VirtualTeacher\), no params"),
    ],
)
def test_teachers_of_other_kinds(make, expected):
    text = text_of(kd.Distiller(make(), network(4, "small")), expand_nested=True)
    assert re.search(rf"Teacher: \w*{expected}|Teacher: \w+ {expected}", plain(text))
    if "both" in expected:
        assert f" {sum(parameters(7))} " in row(text, "two")


def test_a_teacher_that_follows_the_student():
    student = network(4, "small")
    text = plain(text_of(kd.Distiller(kd.teachers.EMA(student), student)))
    assert "not trained, it follows the student's weights" in text


def test_a_cached_teacher_is_named(tmp_path):
    x = np.zeros((4, FEATURES), "float32")
    data = tf.data.Dataset.from_tensor_slices((x, x)).batch(2)
    path = kd.cache_teacher(network(6, "one"), data, tmp_path / "cache", verbose=0)
    text = text_of(kd.Distiller(kd.teachers.Cached(path), network(4, "small")))
    assert "Teacher: cached_teacher (Cached), no params that Keras knows of" in plain(text)


def test_students_whose_shapes_are_not_known():
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.dense = keras.layers.Dense(5)

        def call(self, x):
            return self.dense(x)

    text = text_of(kd.Distiller(Own(), Own()), expand_nested=True)
    assert text.count("0 (unbuilt)") >= 2


def test_peers():
    mutual = kd.MutualDistiller([network(4, "a"), network(6, "b")], teaching="one_way")
    trained, fixed = map(sum, zip(parameters(4), parameters(6), strict=True))
    text = text_of(mutual)
    assert number(text, "Trainable params") == trained
    assert number(text, "Non-trainable params") == fixed + 4
    assert f" {sum(parameters(6))} " in row(text, "b")
    assert "b learns from the labels, a (1)" in text
    assert re.search("a learns from the labels$", text, re.MULTILINE)
    mutual.compile("adam", linear.from_logits())
    mutual.fit(np.zeros((4, FEATURES)), np.zeros(4), verbose=0)
    assert number(text_of(mutual), "Optimizer params") == 2 * trained + 4
    assert "b_deep" in text_of(mutual, expand_nested=True)
