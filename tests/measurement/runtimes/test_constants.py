"""Inputs that the data does not have: scalars stay scalars, states become as long as the batch."""

import numpy as np
import pytest

from keras_kd import runtimes
from tests.measurement import onnx_files as made

X = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
STATE = np.random.default_rng(1).normal(size=(2, 1, 3)).astype("float32")
SAID = (X + STATE.sum(axis=0)) * 3.0


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize(
    ("batch", "state"),
    [
        ("batch", (2, "batch", 3)),
        ("batch", (2, None, 3)),
        (None, (2, None, 3)),
        ("unk__1", (2, "unk__2", 3)),  # as tf2onnx counts
        (1, (2, 1, 3)),
    ],
)
def test_a_state_with_rows_in_the_middle(tmp_path, batch, state, batch_size):
    path = made.recurrent(tmp_path / "r.onnx", batch, state)
    file = runtimes.OnnxFile(path, constants={"rate": 3, "state": STATE}, outputs=["said"])
    assert [info.name for info in file.inputs] == ["x"]
    (said,) = file.run(X, batch_size=batch_size)
    np.testing.assert_allclose(said, SAID, rtol=1e-6)


def test_a_number_fills_what_the_file_says_of_a_shape(tmp_path):
    path = made.recurrent(tmp_path / "r.onnx", scalar=False)
    file = runtimes.OnnxFile(path, constants={"rate": 3, "state": 0.5}, outputs=["said"])
    np.testing.assert_allclose(file.run(X)[0], (X + 1.0) * 3.0, rtol=1e-6)


def test_a_size_with_a_name_of_its_own_is_not_the_rows(tmp_path):
    nodes = [
        made.helper.make_node("MatMul", ["x", "table"], ["y"]),
        made.helper.make_node("Add", ["y", "shift"], ["z"]),
    ]
    inputs = [
        made.value("x", ["batch", 3]),
        made.value("table", [3, "width"]),
        made.value("shift", [1, "width"]),
    ]
    path = made.saved(tmp_path / "m.onnx", nodes, inputs, [made.value("z", ["batch", "width"])])
    constants = {"table": np.ones((3, 1)), "shift": np.ones((1, 1))}
    (found,) = runtimes.OnnxFile(path, constants=constants).run(X)
    np.testing.assert_allclose(found, X.sum(axis=1, keepdims=True) + 1.0, rtol=1e-6)


def test_a_size_that_the_data_has_is_the_datas(tmp_path):
    nodes = [made.helper.make_node("Add", ["x", "shift"], ["y"])]
    inputs = [made.value("x", ["batch", "steps"]), made.value("shift", ["steps"])]
    path = made.saved(tmp_path / "m.onnx", nodes, inputs, [made.value("y", ["batch", "steps"])])
    file = runtimes.OnnxFile(path, constants={"shift": 2.0})
    np.testing.assert_allclose(file.run(X)[0], X + 2.0, rtol=1e-6)
    arrays = file.with_constants(file.encoded(X))
    assert arrays["shift"].shape == (3,)


def test_wrong_constants_raise(tmp_path):
    path = made.recurrent(tmp_path / "r.onnx")
    good = {"rate": 3, "state": STATE}
    for constants, message in (
        ([1], "a dict from names of inputs to values"),
        ({"Rate": 3}, r"inputs \['x', 'state', 'rate'\], and none called 'Rate'"),
        ({**good, "x": 0}, "one of them at least must come from the data"),
        ({**good, "rate": 0.5}, "'rate' is of type int64 .* not whole"),
        ({**good, "rate": [1, 2]}, r"'rate' of the file has shape \(\)"),
        ({**good, "state": np.zeros((2, 1, 4))}, r"shape \(2, None, 3\).* shape \(2, 1, 4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            runtimes.OnnxFile(path, constants=constants)
    with pytest.raises(ValueError, match=r"takes 3 inputs; the batch has 1"):
        runtimes.OnnxFile(path).run(X)


def test_an_output_without_a_row_per_sample_raises(tmp_path):
    path = made.recurrent(tmp_path / "r.onnx")
    file = runtimes.OnnxFile(path, constants={"rate": 3, "state": STATE})
    with pytest.raises(ValueError, match=r"'next' of r.onnx has shape \(2, 1, 3\).*Leave it out"):
        file.run(X)
    with pytest.raises(ValueError, match=r"'next' of r.onnx has shape"):
        file.run(X[:2])  # whose rows are as many as its first dimension, by chance
    with pytest.raises(ValueError, match=r"`outputs`. Expected names of some of the file's"):
        runtimes.OnnxFile(path, outputs=["other"])
