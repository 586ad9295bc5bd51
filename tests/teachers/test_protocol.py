"""The protocol of teachers: earlier method names are refused, a description is read once."""

import dataclasses
import re

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd.teachers.protocol import RENAMED_METHODS
from tests.cache import caches

BODIES = {
    "meet": lambda self, student: None,
    "learn": lambda self, student: None,
    "answer": lambda self, batch: batch.inputs,
}


@pytest.mark.parametrize("base", [kd.teachers.Teacher, kd.teachers.HostTeacher, kd.teachers.EMA])
@pytest.mark.parametrize("old", BODIES)
def test_earlier_method_names_raise_where_the_class_is_defined(base, old):
    with pytest.raises(TypeError, match=rf"Mine defines `{old}`.*called `(\w+)` now") as error:
        type("Mine", (base,), {old: BODIES[old]})
    new = re.search(r"Rename it: def (\w+)\(", str(error.value)).group(1)
    assert new == RENAMED_METHODS[old]
    mine = type("Mine", (base,), {new: BODIES[old]})  # the remedy
    assert callable(getattr(mine, new))


def test_earlier_method_names_of_a_mixin_raise():
    class Mixin:
        def learn(self, student):
            """Never called."""

    with pytest.raises(TypeError, match="def update"):
        type("Mine", (Mixin, kd.teachers.Teacher), {})


def test_a_renamed_method_is_called():
    student, seen = caches.model(2), []

    class Mine(kd.teachers.Teacher):
        def bind(self, student):
            seen.append(student)

        def predict_batch(self, batch):
            return np.zeros((len(batch.inputs), caches.CLASSES), "float32")

    kd.Distiller(Mine(), student)
    assert seen == [student]


def test_a_description_is_what_the_teacher_is(tmp_path):
    path = caches.written(tmp_path / "c", top_k=2)
    cached = kd.teachers.Cached(path).describe()
    assert (cached.needs_attached, cached.is_sparse, cached.input_specs) == (True, True, {})
    assert cached.limits() == [
        "its outputs come with the batches",
        "it keeps the largest logits only",
    ]
    model = kd.teachers.KerasTeacher(caches.model(1)).describe(["h"])
    assert model.limits() == []
    assert (model.kind, model.layers, model.student_layers) == ("KerasTeacher", ("h",), ())
    assert not model.runs_on_host
    deepest = kd.teachers.DeepestExit().describe(["h"])
    assert deepest.student_layers == ("h",)
    assert deepest.limits("needs_student") == ["it reads the student's outputs or the labels"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.kind = "another"


def test_a_member_that_does_not_run_is_refused_with_the_reason(tmp_path):
    path = caches.written(tmp_path / "c")
    match = r"Cached cannot be a member of an ensemble: its outputs come with the batches.*cache_te"
    with pytest.raises(ValueError, match=match):
        kd.teachers.Ensemble([caches.model(1), kd.teachers.Cached(path)])
    # The remedy: a cache of the ensemble.
    whole = kd.teachers.Ensemble([caches.model(1), caches.model(2)])
    path = caches.written(tmp_path / "whole", teacher=whole)
    kd.Distiller(kd.teachers.Cached(path), keras.models.clone_model(caches.model(2)))
