"""`to_onnx` in float: every kind of student, read back; names, opsets, batches, precision."""

import json
import math

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.export import onnx_models


@pytest.mark.parametrize("name", onnx_models.ALL)
def test_the_file_says_what_the_student_says(name, tmp_path):
    student = onnx_models.made(name)
    export = kd.export.to_onnx(student, tmp_path / "student.onnx")
    inputs = onnx_models.inputs_of(student)
    expected = student.predict(inputs, verbose=0)
    expected = expected if isinstance(expected, dict) else {"logits": expected}
    found = onnx_models.run(export.path, inputs)
    assert set(found) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=2e-6)
        assert np.std(value) > 0.02  # else anything would agree
    assert export.agreement == 1.0
    assert export.worst_difference < 2e-6
    assert export.bytes == (tmp_path / "student.onnx").stat().st_size
    # Nothing that was traced, such as positions, has become an input.
    assert len(export.inputs) == len(student.inputs)


class TestNames:
    def test_of_keras(self, tmp_path):
        export = kd.export.to_onnx(onnx_models.made("several"), tmp_path / "x.onnx")
        assert export.inputs == {"kind": "int32[batch, 4]", "numbers": "float32[batch, 6]"}
        assert export.outputs == {"box": "float32[batch, 4]", "sort": "float32[batch, 5]"}
        export = kd.export.to_onnx(onnx_models.made("gru"), tmp_path / "y.onnx")
        assert export.inputs == {"tokens": "int32[batch, tokens_dim1]"}

    def test_where_keras_has_none(self, tmp_path):
        student = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="scores")])
        export = kd.export.to_onnx(student, tmp_path / "x.onnx")
        assert list(export.inputs) == ["input"]
        assert list(export.outputs) == ["scores"]

    def test_one_layer_twice_and_an_input_as_output(self, tmp_path):
        inputs, layer = keras.Input((3,), name="x"), keras.layers.Dense(3, name="d")
        student = keras.Model(inputs, [layer(inputs), layer(layer(inputs)), inputs])
        export = kd.export.to_onnx(student, tmp_path / "x.onnx")
        assert list(export.outputs) == ["d", "d_1", "x_1"]
        value = np.float32([[1, 2, 3]])
        found = onnx_models.run(export.path, value)
        for name, expected in zip(export.outputs, student(value), strict=True):
            np.testing.assert_allclose(found[name], expected, atol=1e-6)


@pytest.mark.parametrize("opset", range(13, 21))
def test_opsets(opset, tmp_path):
    student = onnx_models.made("several")
    path = tmp_path / "x.onnx"
    assert kd.export.to_onnx(student, path, opset=opset).opset == opset
    model = onnx.load(path)
    assert [(x.domain, x.version) for x in model.opset_import] == [("", opset)]
    inputs = onnx_models.inputs_of(student)
    expected = student.predict(inputs, verbose=0)["sort"]
    np.testing.assert_allclose(onnx_models.run(path, inputs)["sort"], expected, atol=1e-5)


def test_a_batch_of_fixed_size(tmp_path):
    student = onnx_models.made("cnn")
    export = kd.export.to_onnx(student, tmp_path / "x.onnx", batch_size=3)
    assert export.inputs == {"image": "float32[3, 8, 8, 2]"}
    inputs = onnx_models.inputs_of(student, rows=3)
    found = onnx_models.run(export.path, inputs)["logits"]
    np.testing.assert_allclose(found, student(inputs), atol=1e-6)
    with pytest.raises(Exception, match="invalid dimensions"):
        onnx_models.run(export.path, onnx_models.inputs_of(student, rows=4))


def test_the_exact_gelu(tmp_path):
    student = keras.Sequential([keras.Input((64,)), keras.layers.Activation("gelu")])
    export = kd.export.to_onnx(student, tmp_path / "x.onnx")
    x = np.linspace(-6, 6, 64)
    expected = [0.5 * value * (1 + math.erf(value / math.sqrt(2))) for value in x]
    found = onnx_models.run(export.path, x[None].astype("float32"))
    np.testing.assert_allclose(next(iter(found.values()))[0], expected, atol=1e-6)


def test_other_operations_that_tf2onnx_lacks(tmp_path):
    inputs = keras.Input((50,))
    outputs = [keras.ops.celu(inputs), keras.ops.log1p(keras.ops.square(inputs))]
    student = keras.Model(inputs, keras.ops.stack(outputs, axis=1))
    export = kd.export.to_onnx(student, tmp_path / "x.onnx")
    x = np.linspace(-4, 4, 50)
    expected = [np.where(x > 0, x, np.expm1(np.minimum(x, 0))), np.log1p(x**2)]
    found = onnx_models.run(export.path, x[None].astype("float32"))
    np.testing.assert_allclose(next(iter(found.values()))[0], expected, atol=1e-6)


def test_images_are_transposed_once(tmp_path):
    # A scalar added to a convolution without bias left a pair around each operator.
    layers = [keras.layers.Conv2D(4, 3, use_bias=False), keras.layers.Activation("hard_silu")]
    layers += [keras.layers.Conv2D(4, 3), keras.layers.MaxPooling2D()]
    student = keras.Sequential([keras.Input((9, 9, 2)), *layers])
    export = kd.export.to_onnx(student, tmp_path / "x.onnx")
    assert export.operators["Conv"] == 2
    assert export.operators["Transpose"] == 2  # at the input, at the output


def test_a_student_in_half_precision_is_written_in_float32(tmp_path):
    inputs = keras.Input((6,), dtype="int32", name="tokens")
    layers = [
        keras.layers.Embedding(9, 4, dtype="mixed_float16"),
        keras.layers.Bidirectional(keras.layers.SimpleRNN(3, dtype="mixed_float16")),
        keras.layers.Dense(3, dtype="mixed_float16"),
    ]
    x = inputs
    for layer in layers:
        x = layer(x)
    student = keras.Model(inputs, x)
    export = kd.export.to_onnx(student, tmp_path / "x.onnx")
    assert export.notes == ("The student computes in half precision, the file in float32.",)
    assert next(iter(export.outputs.values())) == "float32[batch, 3]"
    assert student.layers[-1].compute_dtype == "float16"
    kinds = {x.data_type for x in onnx.load(export.path).graph.initializer}
    assert onnx.TensorProto.FLOAT16 not in kinds
    tokens = np.arange(12).reshape(2, 6).astype("int32") % 9
    found = next(iter(onnx_models.run(export.path, tokens).values()))
    np.testing.assert_allclose(found, np.float32(student(tokens)), atol=5e-3)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(4, activation="relu")
        self.out = keras.layers.Dense(3)

    def call(self, inputs):
        return {"logits": self.out(self.hidden(inputs["x"]))}


def test_a_subclassed_student(tmp_path):
    student, inputs = Subclassed(), {"x": np.random.default_rng(0).normal(size=(8, 5))}
    expected = student(inputs)["logits"]
    with pytest.raises(ValueError, match="shapes of the inputs.*are not known.*data=inputs"):
        kd.export.to_onnx(student, tmp_path / "x.onnx")
    dataset = tf.data.Dataset.from_tensor_slices((inputs, np.zeros(8))).batch(4)
    for data in (inputs, dataset):
        export = kd.export.to_onnx(student, tmp_path / "x.onnx", data=data, overwrite=True)
        assert export.inputs == {"x": "float32[batch, 5]"}
        found = onnx_models.run(export.path, {"x": np.float32(inputs["x"])})
        np.testing.assert_allclose(found["logits"], expected, atol=1e-6)


def test_whole_numbers_are_made_as_the_embedding_takes_them(tmp_path):
    student = keras.Sequential([keras.layers.Embedding(3, 2), keras.layers.Flatten()])
    student.build((None, 4))  # Keras believes that the inputs are floats
    student.layers[0].set_weights([np.float32([[1, 2], [3, 4], [5, 6]])])
    export = kd.export.to_onnx(student, tmp_path / "x.onnx")
    assert export.worst_difference == 0.0


def test_metadata_and_summary(tmp_path):
    metadata = {"classes": ["cat", "dog"], "license": "Apache-2.0"}
    path = tmp_path / "x.onnx"
    export = kd.export.to_onnx(onnx_models.made("lstm"), path, metadata=metadata)
    found = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    assert json.loads(found["classes"]) == ["cat", "dog"]
    assert found["license"] == "Apache-2.0"
    text = str(export)
    assert f"{path}: ONNX, opset 18, float32, {path.stat().st_size:,} bytes" in text
    for part in ("series float32[batch, 6, 3]", "1 LSTM", "same answer 100.00%"):
        assert part in text


def test_the_student_stays_as_it_was(tmp_path):
    student = onnx_models.made("cnn")
    student.compile("sgd", "mse")
    before = student.get_weights()
    kd.export.to_onnx(student, tmp_path / "x.onnx", quantization="dynamic", tolerance=1.0)
    for a, b in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert student.optimizer.iterations == 0
