"""Exports say which part of the work they do, or nothing."""

import re

import keras
import numpy as np
import pytest

import keras_kd as kd
from keras_kd.export.tflite import api
from tests.contract import fits

ROWS = np.random.default_rng(0).normal(size=(64, fits.FEATURES)).astype("float32")


def lines_of(capsys):
    """What was printed, without the times."""
    printed, errors = capsys.readouterr()
    assert not errors
    return [re.sub(r" - \d+s so far$", "", line) for line in printed.splitlines()]


def parts(name, *labels):
    return [f"{name} {i}/{len(labels)}: {label}" for i, label in enumerate(labels, 1)]


@pytest.mark.parametrize(
    ("quantization", "labels"),
    [
        (None, ["converting"]),
        ("int8", ["converting", "calibrating on 64 samples", "quantizing"]),
        ("int4", ["converting", "nothing to calibrate", "quantizing"]),
    ],
)
def test_to_tflite(quantization, labels, tmp_path, capsys):
    student, path = fits.network(1), tmp_path / "student.tflite"
    options = {"representative_data": ROWS, "min_agreement": 0.0, "overwrite": True}
    if quantization == "int8":
        options["route"] = "edge_quantizer"
    seen = kd.export.to_tflite(student, path, quantization, **options)
    first, *lines = lines_of(capsys)
    assert first == "to_tflite: running the student on 64 samples"
    assert lines == parts("to_tflite", *labels, "comparing on 64 samples")
    content = path.read_bytes()
    silent = kd.export.to_tflite(student, path, quantization, verbose=0, **options)
    assert capsys.readouterr() == ("", "")
    assert path.read_bytes() == content
    assert silent.worst_difference == seen.worst_difference


def test_another_route_adds_its_parts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(api, "_AGREES_WELL", 2.0)
    options = {"data": ROWS, "min_agreement": 0.0, "verbose": 2}
    kd.export.to_tflite(fits.network(1), tmp_path / "a.tflite", "dynamic", **options)
    numbers = [line.split(":")[0] for line in lines_of(capsys)[1:]]
    assert numbers == [f"to_tflite {i}" for i in ("1/2", "2/2", "3/6", "4/6", "5/6", "6/6")]


@pytest.mark.parametrize(
    ("quantization", "labels"),
    [(None, []), ("dynamic", ["quantizing"]), ("int8", ["calibrating and quantizing"])],
)
def test_to_onnx(quantization, labels, tmp_path, capsys):
    student, path = fits.network(1), tmp_path / "student.onnx"
    options = {"data": ROWS, "overwrite": True, "tolerance": 9.0, "quantization": quantization}
    options["representative_data"] = ROWS if quantization == "int8" else None
    kd.export.to_onnx(student, path, **options)
    expected = ["running the student", "converting", *labels, "comparing"]
    assert lines_of(capsys) == parts("to_onnx", *expected)
    kd.export.to_onnx(student, path, verbose=0, **options)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("wrong", ["loud", -1, 3, None, 0.5])
@pytest.mark.parametrize("export", [kd.export.to_tflite, kd.export.to_onnx])
def test_invalid_verbose_raises_before_work(export, wrong, tmp_path, monkeypatch):
    path = tmp_path / ("a.onnx" if export is kd.export.to_onnx else "a.tflite")
    student = fits.network(1)

    def never(*args, **kwargs):
        raise AssertionError("the student was run")

    monkeypatch.setattr(keras.Sequential, "call", never)
    with pytest.raises(ValueError, match=r"`verbose`.* Expected 0 \(silent\).*verbose="):
        export(student, path, data=ROWS, verbose=wrong)
    assert not path.exists()
