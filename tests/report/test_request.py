"""A call of `report` or `measure` is bound once: what is read, and how often."""

import collections
import dataclasses

import pytest

import keras_kd as kd
from keras_kd.measurement import reading, subjects
from keras_kd.measurement import request as measurement_request
from keras_kd.reporting import api, request
from tests.report import tiny


def counted(monkeypatch, owner, name, key=None):
    """How often a method is called, by a key."""
    calls, original = collections.Counter(), getattr(owner, name)

    def call(*args, **kwargs):
        calls[name if key is None else key(*args)] += 1
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)
    return calls


@pytest.fixture
def small():
    (x, y), _ = tiny.digits()
    return x[:60], y[:60]


def test_a_report_binds_once_and_runs_each_model_once(small, monkeypatch):
    bound = counted(monkeypatch, api, "bind")
    read = counted(monkeypatch, reading.EvaluationData, "read")
    passes = counted(monkeypatch, subjects.KerasSubject, "predict", lambda self, x: self.name)
    kd.report(
        tiny.teacher(),
        [tiny.student(), tiny.student()],
        [tiny.student(), tiny.student()],
        data=small,
        latency=False,
        verbose=0,
    )
    assert bound == {"bind": 1}
    assert read == {"read": 1}
    # The outputs of the teacher's pass are what the others are compared with.
    assert passes == {"width_64": 1, "width_8": 4}


def test_a_measurement_converts_its_sample_once_for_size_and_latency(small, monkeypatch):
    converted = counted(monkeypatch, subjects.KerasSubject, "convert")
    read = counted(monkeypatch, reading.EvaluationData, "read")
    kd.measure(tiny.student(), small, batch_size=30, runs=2, warmup=0, verbose=0)
    assert read == {"read": 1}
    assert converted == {"convert": 2 + 1}  # two batches, and the sample


@pytest.mark.parametrize("frozen", [request.Request, measurement_request.Request])
def test_a_request_cannot_be_changed(frozen):
    made = object.__new__(frozen)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.options = None


def test_options_have_the_names_of_the_arguments_of_measure():
    import inspect

    arguments = set(inspect.signature(kd.measure).parameters)
    fields = {field.name for field in dataclasses.fields(measurement_request.Options)}
    assert fields == arguments - {"model_or_file", "data", "teacher"}
