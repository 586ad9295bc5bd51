"""A student's inputs are inspected once per export, and everything behind takes what was read."""

import ast
import collections
import inspect
import pathlib

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from keras_kd import models
from keras_kd.export import student as export_student
from keras_kd.quantization import tfmot

ROWS = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
ROOMS = ("export", "quantization")
# What reads the inputs or outputs of a model.
READERS = ("input_specs", "input_names", "output_specs", "output_names", "output_shapes")


def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), name="features")
    x = layers.Dense(8, activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


@pytest.fixture
def counted(monkeypatch):
    """How often each function of the rooms, and of `models`, reads a model's inputs."""
    calls = collections.Counter()

    def counting(name, function):
        def call(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    for module, name in ((export_student, "read_inputs"), (models, "input_specs")):
        monkeypatch.setattr(module, name, counting(name, getattr(module, name)))
    return calls


@pytest.fixture
def aware():
    return kd.quantization_aware(network(), "int8", ROWS)


EXPORTS = {
    "to_tflite": lambda student, path: kd.export.to_tflite(student, f"{path}.tflite", data=ROWS),
    "to_tflite int8": lambda student, path: kd.export.to_tflite(
        student, f"{path}.tflite", "int8", representative_data=ROWS, route="edge_quantizer"
    ),
    "to_onnx": lambda student, path: kd.export.to_onnx(student, f"{path}.onnx", data=ROWS),
    "to_onnx int8": lambda student, path: kd.export.to_onnx(
        student, f"{path}.onnx", quantization="int8", representative_data=ROWS, tolerance=9.0
    ),
    "quantization_aware int8": lambda student, path: kd.quantization_aware(student, "int8", ROWS),
    "quantization_aware int4": lambda student, path: kd.quantization_aware(student, "int4", ROWS),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_inputs_are_read_once(name, counted, tmp_path):
    student = network()
    EXPORTS[name](student, tmp_path / "student")
    assert counted == {"read_inputs": 1, "input_specs": 1}


def test_inputs_of_an_aware_student_are_read_once(aware, counted, tmp_path):
    kd.export.to_tflite(aware, tmp_path / "student.tflite", representative_data=ROWS)
    assert counted == {"read_inputs": 1, "input_specs": 1}


def test_a_second_read_is_counted(counted, tmp_path, monkeypatch):
    def read_again(exportable, purpose):
        export_student.read_inputs(exportable.model)

    monkeypatch.setattr("keras_kd.export.supported.check_lookups", read_again)
    EXPORTS["to_tflite"](network(), tmp_path / "student")
    assert counted == {"read_inputs": 2, "input_specs": 2}


def files_of_rooms():
    folder = pathlib.Path(inspect.getfile(kd)).parent
    for room in ROOMS:
        yield from (folder / room).rglob("*.py")


# What the files may read: all but the first read other models than that of an export.
ALLOWED = {
    # The one place.
    ("export", "student.py"): set(READERS),
    # The names of what the model returned when it was run.
    ("onnx", "convert.py"): {"output_names"},
    # A public function of its own, for any model.
    ("quantization", "batch_norm.py"): {"input_specs"},
    # Properties of the student around its model.
    ("quantization", "model.py"): {"inputs"},
    # Models of tf_keras.
    ("tfmot", "student.py"): {"inputs"},
    ("tfmot", "convert.py"): {"inputs"},
}


def reads(tree):
    """Names of what a file reads from models: `models.input_specs`, `student.inputs`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        owner = getattr(node.value, "id", None) or getattr(node.value, "attr", None)
        is_function = owner == "models" and node.attr in READERS
        is_attribute = node.attr == "inputs" and owner in ("model", "student")
        if is_function or is_attribute:
            yield node.attr


def test_no_other_file_inspects_a_student():
    found = {
        path.parts[-2:]: set(reads(ast.parse(path.read_text(encoding="utf-8"))))
        for path in files_of_rooms()
    }
    assert {file: names for file, names in found.items() if names} == ALLOWED


def test_a_file_that_inspects_a_student_is_found():
    tree = ast.parse("models.input_names(student)\nstudent.inputs[0]\nexportable.model.inputs")
    assert sorted(reads(tree)) == ["input_names", "inputs", "inputs"]


def test_the_export_room_does_not_know_the_quantization_room():
    for path in files_of_rooms():
        if "quantization" not in path.parts:
            assert "keras_kd.quantization import" not in path.read_text(encoding="utf-8"), path


def test_distill_is_another_name_of_distill():
    assert tfmot.distil is tfmot.distill
    assert {"distill"} <= set(tfmot.__all__)
