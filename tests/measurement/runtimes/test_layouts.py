"""Channels first or last, types, providers: what a file is and what it is given."""

import numpy as np
import pytest
from onnx import helper

from keras_kd import runtimes
from tests.measurement import onnx_files as made

IMAGES = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype("float32")


def convolved(images, kernel):
    """A convolution with zeros around, by its definition."""
    padded = np.pad(np.float64(images), ((0, 0), (1, 1), (1, 1), (0, 0)))
    _, height, width, _ = images.shape
    return sum(
        padded[:, i : i + height, j : j + width] @ np.float64(kernel[:, :, i, j]).T
        for i in range(3)
        for j in range(3)
    )


@pytest.mark.parametrize("size", [("rows", 3, "height", "width"), (1, 3, 5, 6)])
def test_images_in_keras_order(tmp_path, size):
    kernel = made.convolution(tmp_path / "c.onnx", size)
    file = runtimes.OnnxFile(tmp_path / "c.onnx", channels_first=True)
    maps, pooled = file.run(IMAGES)
    expected = convolved(IMAGES, kernel)
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(pooled, expected.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)
    assert file.inputs[0].shape[1:] == (*(None if isinstance(x, str) else x for x in size[2:]), 3)


def test_images_in_the_other_layout_raise_with_the_remedy(tmp_path):
    made.convolution(tmp_path / "c.onnx")
    with pytest.raises(ValueError, match=r"channels_first=True, or preprocess=lambda x: tf.trans"):
        runtimes.OnnxFile(tmp_path / "c.onnx").run(IMAGES)
    file = runtimes.OnnxFile(tmp_path / "c.onnx", channels_first=True)
    with pytest.raises(ValueError, match=r"preprocess=lambda x: tf.transpose\(x, \[0, 2, 3, 1\]\)"):
        file.run(IMAGES.transpose(0, 3, 1, 2))


def test_numbers_that_a_type_cannot_hold_raise():
    info = runtimes.TensorInfo("ids", (None, 2), "int8")
    np.testing.assert_array_equal(info.encoded(np.float32([[1, -128]])), np.int8([[1, -128]]))
    for values, message in (
        ([[0.5, 1.0]], "not whole"),
        ([[1, 300]], "holds -128 to 127. Received numbers from 1 to 300"),
        ([[np.inf, 0.0]], "holds -128 to 127"),
        ([[np.nan, 0.0]], "not whole"),
    ):
        with pytest.raises(ValueError, match=message):
            info.encoded(np.asarray(values))
    with pytest.raises(ValueError, match="bool, which holds 0 to 1"):
        runtimes.TensorInfo("mask", (None, 2), "bool").encoded(np.int64([[0, 2]]))


def test_providers_and_threads(tmp_path):
    made.convolution(tmp_path / "c.onnx")
    runtimes.OnnxFile(tmp_path / "c.onnx", threads=0, providers=["CPUExecutionProvider"])
    runtimes.OnnxFile(tmp_path / "c.onnx", providers=[["CPUExecutionProvider", {}]])
    for providers in (["NoExecutionProvider"], []):
        with pytest.raises(ValueError, match="`providers`. Expected some of"):
            runtimes.OnnxFile(tmp_path / "c.onnx", providers=providers)
    with pytest.raises(ValueError, match="`threads`. Expected a whole number of at least 0"):
        runtimes.OnnxFile(tmp_path / "c.onnx", threads=-1)


def test_a_file_that_takes_fewer_rows_than_it_promises(tmp_path):
    shape = made.held("shape", np.int64([1, 6]))
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    path = made.saved(
        tmp_path / "m.onnx",
        nodes,
        [made.value("x", ["rows", 2, 3])],
        [made.value("y", ["rows", 6])],
        [shape],
    )
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype("float32")
    file = runtimes.OnnxFile(path)
    for _ in range(2):
        np.testing.assert_array_equal(file.run(x)[0], x.reshape(4, 6))


def spelled_out(bottom="e"):
    return [
        helper.make_node("Exp", ["z"], ["e"]),
        helper.make_node("ReduceSum", [bottom], ["s"], keepdims=1),
        helper.make_node("Div", ["e", "s"], ["y"]),
    ]


def choice(*kinds):
    graphs = [
        helper.make_graph(
            [helper.make_node(kind, ["z"], [f"of_{i}"])], f"g{i}", [], [made.value(f"of_{i}", None)]
        )
        for i, kind in enumerate(kinds)
    ]
    yes = made.constant("yes", value=made.held("", np.array(True)))
    return [
        yes,
        helper.make_node("If", ["yes"], ["y"], then_branch=graphs[0], else_branch=graphs[1]),
    ]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([helper.make_node("Softmax", ["z"], ["y"])], "softmax"),
        ([helper.make_node("Sigmoid", ["z"], ["y"])], "sigmoid"),
        (
            [
                helper.make_node("Sigmoid", ["z"], ["p"]),
                helper.make_node("Cast", ["p"], ["c"], to=made.FLOAT),
                helper.make_node("Identity", ["c"], ["y"]),
            ],
            "sigmoid",
        ),
        (spelled_out(), "softmax"),
        (spelled_out(bottom="z"), None),
        (choice("Sigmoid", "Sigmoid"), "sigmoid"),
        (choice("Sigmoid", "Relu"), None),
        ([helper.make_node("Relu", ["z"], ["y"])], None),
        (
            [
                helper.make_node("Sigmoid", ["z"], ["gate"]),
                helper.make_node("Mul", ["z", "gate"], ["y"]),
            ],
            None,
        ),
    ],
    ids=["softmax", "sigmoid", "cast", "spelled", "no_softmax", "if", "either", "relu", "swish"],
)
def test_what_a_file_ends_in(tmp_path, monkeypatch, nodes, expected):
    file = runtimes.OnnxFile(made.ending(tmp_path / "m.onnx", *nodes))
    assert file.last_activation("y") == expected
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    assert runtimes.OnnxFile(tmp_path / "m.onnx").last_activation("y") is None
