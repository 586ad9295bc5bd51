"""The parameters of an `.onnx` file are counted wherever it keeps them."""

import numpy as np
import onnx
import pytest
from onnx import helper

from keras_kd import runtimes
from keras_kd.measurement import sizes
from tests.measurement import onnx_files as made

X, Y = made.value("x", ["rows", 3]), made.value("y", ["rows", 3])
MATRIX = np.random.default_rng(0).normal(size=(3, 3)).astype("float32")


def count(path):
    return sizes.measure_file(runtimes.OnnxFile(path), None)[0]["parameters"]


def product(*more, name="w"):
    return [*more, helper.make_node("MatMul", ["x", name], ["y"])]


def test_initializers(tmp_path):
    path = made.saved(tmp_path / "m.onnx", product(), [X], [Y], [made.held("w", MATRIX)])
    assert count(path) == 9


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ({"value": made.held("", MATRIX[0])}, 3),
        ({"value_floats": [1.0, 2.0, 3.0]}, 3),
        ({"value_float": 2.0}, 1),
    ],
    ids=["tensor", "floats", "float"],
)
def test_constants(tmp_path, attribute, expected):
    nodes = [made.constant("w", **attribute), helper.make_node("Mul", ["x", "w"], ["y"])]
    assert count(made.saved(tmp_path / "m.onnx", nodes, [X], [Y])) == expected


def test_whole_numbers_of_shapes_are_none(tmp_path):
    nodes = [
        made.constant("shape", value_ints=[-1, 3]),
        made.constant("axis", value=made.held("", np.int32([1]))),
        helper.make_node("Cast", ["axis"], ["axis64"], to=made.INT64),
        helper.make_node("ReduceSum", ["x", "axis64"], ["sum"]),
        helper.make_node("Add", ["x", "sum"], ["z"]),
        helper.make_node("Reshape", ["z", "shape"], ["y"]),
    ]
    assert count(made.saved(tmp_path / "m.onnx", nodes, [X], [Y])) == 0


def branch(name, width):
    kernel = np.ones((3, width), "float32")
    back = np.ones((width, 3), "float32")
    nodes = [
        made.constant(f"{name}_k", value=made.held("", kernel)),
        helper.make_node("MatMul", ["x", f"{name}_k"], [f"{name}_h"]),
        helper.make_node("MatMul", [f"{name}_h", f"{name}_b"], [f"{name}_y"]),
    ]
    outputs = [made.value(f"{name}_y", ["rows", 3])]
    return helper.make_graph(nodes, name, [], outputs, [made.held(f"{name}_b", back)])


def test_branches(tmp_path):
    nodes = [
        made.constant("yes", value=made.held("", np.array(True))),
        helper.make_node(
            "If", ["yes"], ["y"], then_branch=branch("a", 4), else_branch=branch("b", 5)
        ),
    ]
    assert count(made.saved(tmp_path / "m.onnx", nodes, [X], [Y])) == 2 * 3 * (4 + 5)


def test_bodies_of_loops(tmp_path):
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["again"], ["still"]),
            helper.make_node("MatMul", ["state", "w"], ["next"]),
        ],
        "body",
        [
            made.value("i", [], made.INT64),
            made.value("again", [], made.BOOL),
            made.value("state", None),
        ],
        [made.value("still", [], made.BOOL), made.value("next", None)],
        [made.held("w", MATRIX)],
    )
    nodes = [
        made.constant("times", value_int=3),
        helper.make_node("Loop", ["times", "", "x"], ["y"], body=body),
    ]
    assert count(made.saved(tmp_path / "m.onnx", nodes, [X], [Y])) == 9


def test_functions_are_counted_once(tmp_path):
    nodes = [
        made.constant("w", value=made.held("", MATRIX)),
        helper.make_node("MatMul", ["given", "w"], ["found"]),
    ]
    function = helper.make_function(
        "own", "Twice", ["given"], ["found"], nodes, [helper.make_opsetid("", 17)]
    )
    calls = [
        helper.make_node("Twice", ["x"], ["z"], domain="own"),
        helper.make_node("Twice", ["z"], ["y"], domain="own"),
    ]
    assert count(made.saved(tmp_path / "m.onnx", calls, [X], [Y], functions=[function])) == 9


def test_sparse_tensors_count_with_their_zeros(tmp_path):
    sparse = helper.make_sparse_tensor(
        made.held("w", np.float32([1.0, 2.0])), made.held("at", np.int64([0, 4])), [3, 3]
    )
    path = made.saved(tmp_path / "m.onnx", product(), [X], [Y], sparse=[sparse])
    assert count(path) == 9


def test_integers_that_are_weights_but_no_scales(tmp_path):
    initializers = [
        made.held("q", np.ones((3, 3), "int8")),
        made.held("bias", np.ones(3, "int32")),
        made.held("scale", np.float32(0.5)),
        made.held("zero", np.int8(0)),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"]),
        helper.make_node("DequantizeLinear", ["bias", "scale"], ["b"]),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Add", ["z", "b"], ["y"]),
    ]
    assert count(made.saved(tmp_path / "m.onnx", nodes, [X], [Y], initializers)) == 9 + 3


def test_data_in_another_file(tmp_path):
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    path = made.saved(tmp_path / "m.onnx", product(), [X], [Y], [made.held("w", MATRIX)], **options)
    size = sizes.measure_file(runtimes.OnnxFile(path), None)[0]
    assert size["parameters"] == 9
    assert size["bytes"] == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    assert onnx.load(path, load_external_data=False).graph.initializer[0].external_data
