"""The examples that take students to devices run, on little data, and say what they found."""

import importlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import example_runs, extras
from tests.example_runs import printed

pytestmark = [pytest.mark.slow, pytest.mark.in_turn(4)]


@pytest.fixture(autouse=True)
def runtimes():
    extras.require_in_a_process("ai_edge_litert", "ai_edge_quantizer", "scipy", "sklearn")


def test_to_device(tmp_path):
    small = ["--dataset", "digits", "--train-samples", 100, "--epochs", 4, "--width", 8]
    exports = ["--exports", "float32", "int8"]
    text = printed("to_device.py", *small, "--seeds", 2, *exports, "--output", tmp_path)
    rows = {line.split()[0] for line in text.splitlines() if line.strip()}
    assert {"teacher", "distilled", "float32", "int8"} <= rows
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "int8" in page
    assert str(tmp_path) not in page
    sizes = [(tmp_path / f"{name}-1.tflite").stat().st_size for name in ("int8", "float32")]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("student", ["mobilenet", "minimalistic"])
def test_a_mobilenet_shrinks_to_three_tenths(student, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(example_runs.EXAMPLES)
    to_device = importlib.import_module("to_device")
    keras.utils.set_random_seed(0)
    student = to_device.STUDENTS[student]((28, 28, 1), width=None)
    x = np.random.default_rng(0).random((32, 28, 28, 1)).astype("float32")
    # BatchNormalization sees the rows.
    kd.quantization.recalibrate(student, tf.data.Dataset.from_tensors(x))
    path = tmp_path / "int8.tflite"
    # By the route whose file is kept where both are tried, which takes a minute more.
    options = {"route": "edge_quantizer", "min_agreement": 0.0}
    done = kd.export.to_tflite(student, path, "int8", representative_data=x, **options)
    assert done.float_operators == []
    # In float32 each parameter of the file takes four bytes, without what is around them.
    size = kd.measure(path, (x, np.zeros(len(x), "int32")), latency=False, verbose=0).size
    assert size["parameters"] > 0.95 * sum(np.size(each) for each in student.trainable_weights)
    assert done.bytes <= 0.30 * 4 * size["parameters"]


def test_quantization_aware(tmp_path):
    small = ["--dataset", "digits", "--train-samples", 100, "--epochs", 3, "--student", "cnn"]
    one = ["--seeds", 1, "--schemes", "int8"]
    text = printed("quantization_aware.py", *small, *one, "--output", tmp_path)
    assert len(re.findall(r"^int8 +(?:PTQ|longer, PTQ|QAT)", text, re.MULTILINE)) == 4
    against = re.findall(r"^int8: aware and distilled against (.+?) [+-]\d", text, re.MULTILINE)
    assert against == ["PTQ", "longer, PTQ"]
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_text_to_device(tmp_path):
    small = ["--train-samples", 300, "--epochs", 1, "--seeds", 1, "--exports", "dynamic"]
    text = printed("text_to_device.py", *small, "--output", tmp_path)
    assert "docstrings to train on" in text
    assert (tmp_path / "dynamic-0.tflite").exists()
