"""An `.onnx` file gives what the model gives; its inputs, outputs and operators."""

import sys

import numpy as np
import pytest

from keras_kd import runtimes
from tests.measurement import files


@pytest.mark.parametrize("rows", ["rows", 1, 4])
def test_it_gives_the_models_outputs(tmp_path, rows):
    x, _ = files.arrays()
    file = runtimes.OnnxFile(files.onnx(tmp_path / "c.onnx", rows=rows))
    logits, hidden = file.run(x, batch_size=8)
    np.testing.assert_allclose(logits, files.classifier()(x), rtol=1e-5, atol=1e-5)
    assert hidden.shape == (len(x), 6)
    np.testing.assert_array_equal(file.run({"x": x})[0], logits)


def test_inputs_outputs_and_operators(tmp_path):
    file = runtimes.OnnxFile(files.onnx(tmp_path / "c.onnx"))
    assert [(x.name, x.shape, x.dtype) for x in file.inputs] == [("x", (None, 5), "float32")]
    assert [x.name for x in file.outputs] == ["logits", "hidden"]
    assert [x.name for x in file.operators] == ["MatMul", "Add", "Tanh", "MatMul", "Add"]
    assert file.operators[0].inputs == ("float32", "float32")
    assert file.operators[0].outputs == ("float32",)


def test_wrong_inputs_and_files_raise(tmp_path):
    file = runtimes.OnnxFile(files.onnx(tmp_path / "c.onnx"))
    with pytest.raises(ValueError, match=r"takes the inputs \['x'\]. Received: \['y'\]"):
        file.run({"y": np.zeros((2, 5))})
    with pytest.raises(ValueError, match=r"has shape \(None, 5\)"):
        file.run(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="There is no file"):
        runtimes.OnnxFile(tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="ONNX Runtime cannot load broken.onnx"):
        runtimes.OnnxFile(broken)


def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path):
    path = files.onnx(tmp_path / "c.onnx")
    file = runtimes.OnnxFile(path)
    for package, call in (
        ("onnx", lambda: file.operators),
        ("onnxruntime", lambda: runtimes.OnnxFile(path)),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ImportError, match=r"pip install 'keras-kd\[onnx\]'"):
            call()
