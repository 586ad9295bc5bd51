"""What `to_onnx` refuses, by its messages; no file is ever there in part."""

import errno
import os
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.export import onnx_models


def dense(name="student"):
    layers = [keras.Input((4,), name="x"), keras.layers.Dense(3, name="logits")]
    return keras.Sequential(layers, name=name)


def rows(count=20, width=4):
    return np.random.default_rng(0).normal(size=(count, width)).astype("float32")


def refused(tmp_path, message, student=None, kind=ValueError, path=None, **options):
    with pytest.raises(kind, match=message):
        kd.export.to_onnx(
            dense() if student is None else student, path or tmp_path / "x.onnx", **options
        )
    assert not list(tmp_path.glob("*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 12}, "from 13 to 20. Received: opset=12"),
        ({"opset": 21}, "from 13 to 20"),
        ({"quantization": "int4"}, "None, 'dynamic' or 'int8'. Received: quantization='int4'"),
        ({"batch_size": 0}, "`batch_size`.*at least 1"),
        ({"tolerance": -1}, "`tolerance`.*at least 0"),
        ({"metadata": ["a"]}, "`metadata` must be a dict"),
        ({"metadata": {"a": object()}}, "`metadata` must have values that JSON has"),
        ({"quantization": "dynamic", "for_tensorrt": True}, "TensorRT does not read.*'int8'"),
        ({"quantization": "int8"}, "needs `representative_data`: some hundred inputs"),
        ({"path": "student.tflite"}, "ending in .onnx. Received: path='student.tflite'"),
        ({"path": 3}, "ending in .onnx"),
    ],
)
def test_bad_arguments(options, message, tmp_path):
    refused(tmp_path, message, **options)


def dataset(values=None):
    return tf.data.Dataset.from_tensor_slices(rows() if values is None else values)


def with_nan():
    values = rows()
    values[3, 1] = np.nan
    return values


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (rows()[:0], "has 0 samples"),
        (rows(9), "has 9 samples; fewer than 10.*Pass some hundred"),
        (np.zeros((20, 4)), "is 0.0 everywhere"),
        (with_nan(), "holds NaN or infinity"),
        (rows(width=5), r"must have the shape \(None, 4\).*\(20, 5\)"),
        (rows()[0], r"must have the shape .*\(4,\)"),
        (rows().astype(str), "'x' is float32. Received <U"),
        ([rows(), rows()], r"gives 2 inputs a batch.*takes 1.*\(inputs, labels\)"),
        ({"a": rows()}, r"gives the inputs \['a'\] in a dict.*takes \['x'\]"),
        (lambda: rows(), r"must have the shape .*\(4,\)"),
        (dataset().batch(4).repeat(), r"endless.*Pass a part of it: dataset.take\(8\)"),
        (dataset(rows()[:0]).batch(4), "is empty"),
        (dataset(), "must have the shape .*must be batched"),
        (tf.data.Dataset.range(20), "must have the shape .*must be batched"),
        (tf.ragged.constant([[1.0], [2.0, 3.0]]), "ragged or sparse"),
    ],
)
def test_bad_representative_data(data, message, tmp_path):
    refused(tmp_path, message, quantization="int8", representative_data=data)


def test_data_of_another_scale_than_the_representative(tmp_path):
    options = {"quantization": "int8", "representative_data": 255 * np.abs(rows())}
    refused(tmp_path, "'x' has a standard deviation of 144.*as in training", data=rows(), **options)


def test_tokens_beyond_the_embedding(tmp_path):
    student = onnx_models.made("transformer")
    tokens = np.arange(60).reshape(10, 6)
    refused(tmp_path, "from 0 to 59, beyond the embedding.*rows 0 to 19", student, data=tokens)


def test_whole_numbers_of_unknown_range(tmp_path):
    inputs = keras.Input((2,), dtype="int32")
    student = keras.Model(inputs, keras.ops.one_hot(inputs, 7))
    refused(tmp_path, "takes integers, and no Embedding.*data=inputs", student)
    kd.export.to_onnx(student, tmp_path / "x.onnx", data=np.int32([[0, 6], [3, 2]]))


class TestStudents:
    def test_no_model(self, tmp_path):
        refused(tmp_path, "must be a keras.Model. Received: student='x'", "x")

    def test_a_distiller(self, tmp_path):
        distiller = kd.Distiller(dense("teacher"), dense())
        refused(tmp_path, "is a Distiller. Pass the model that it trains", distiller)

    def test_a_quantization_aware_student(self, tmp_path):
        aware = kd.quantization_aware(dense(), "int4")
        refused(tmp_path, r"Only kd.export.to_tflite.*student.rounded_student\(\)", aware)

    def test_one_without_weights(self, tmp_path):
        student = keras.Sequential([keras.layers.Dense(2)])
        refused(tmp_path, "no weights yet", student)

    @pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`:UserWarning")
    def test_one_quantized_by_keras(self, tmp_path):
        student = dense()
        student.quantize("int8")
        refused(tmp_path, r"model.quantize has changed layers.*\['logits'\].*as it was", student)

    def test_one_with_text(self, tmp_path):
        inputs = keras.Input((1,), dtype="string", name="text")
        lookup = keras.layers.StringLookup(vocabulary=["a", "b"])
        student = keras.Model(inputs, lookup(inputs))
        refused(tmp_path, r"'string_lookup.*' .* is a StringLookup.*layer\(inputs\)", student)

    def test_one_that_is_broken(self, tmp_path):
        student = dense()
        student.set_weights([np.full((4, 3), np.nan), np.zeros(3)])
        refused(tmp_path, "'student' itself gives NaN", student)

    def test_one_with_an_operation_that_onnx_lacks(self, tmp_path):
        inputs = keras.Input((3,))
        student = keras.Model(inputs, keras.layers.Discretization([0.0, 1.0], name="bins")(inputs))
        message = "cannot write in ONNX: Bucketize .at .*bins.*to_tflite"
        refused(tmp_path, message, student, kind=kd.export.ExportError)

    def test_open_sizes_that_a_layer_must_know(self, tmp_path):
        def made(*sizes):
            enlarge = keras.layers.UpSampling2D(interpolation="bilinear")
            return keras.Sequential([keras.Input((*sizes, 3), name="image"), enlarge])

        message = r"cannot trace.*'image': \(None, None, None, 3\).*keras.Input\(\(height, width"
        refused(tmp_path, message, made(None, None), kind=kd.export.ExportError)
        student, whole = made(None, None), made(4, 4)  # the remedy
        whole.set_weights(student.get_weights())
        kd.export.to_onnx(whole, tmp_path / "x.onnx")

    def test_half_precision_that_cannot_be_made_again(self, tmp_path):
        class Own(keras.Model):
            def __init__(self, layer):
                super().__init__(dtype="mixed_float16")
                self.layer = layer

            def call(self, inputs):
                return self.layer(inputs)

        student = Own(keras.layers.Dense(2, dtype="mixed_float16"))
        student(rows())
        refused(tmp_path, "half precision.*get_config. Make it in float32", student, data=rows())


class Fickle(keras.layers.Layer):
    """Computes something else when it is traced."""

    def __init__(self, value, **kwargs):
        super().__init__(**kwargs)
        self.value = value

    def call(self, inputs):
        return inputs if tf.executing_eagerly() else inputs * self.value


@pytest.mark.parametrize(
    ("value", "message"),
    [(1.01, "off by 0.0.*largest value.*tolerance=0.001"), (np.nan, "holds NaN or infinite")],
)
def test_a_file_that_is_not_the_student(value, message, tmp_path):
    student = keras.Sequential([keras.Input((3,)), Fickle(value)])
    refused(tmp_path, message, student, kind=kd.export.ExportError)
    if value == 1.01:
        assert kd.export.to_onnx(student, tmp_path / "x.onnx", tolerance=0.02).agreement == 1.0


class TestFiles:
    def test_an_existing_one_is_kept(self, tmp_path):
        path = tmp_path / "x.onnx"
        path.write_bytes(b"mine")
        with pytest.raises(FileExistsError, match="exists. Pass overwrite=True"):
            kd.export.to_onnx(dense(), path)
        assert path.read_bytes() == b"mine"
        kd.export.to_onnx(dense(), path, overwrite=True)
        assert path.stat().st_size > 100
        (tmp_path / "folder.onnx").mkdir()
        with pytest.raises(FileExistsError, match="if it is a file"):
            kd.export.to_onnx(dense(), tmp_path / "folder.onnx", overwrite=True)

    def test_a_full_disk_leaves_what_was_there(self, tmp_path, monkeypatch):
        path = tmp_path / "x.onnx"
        path.write_bytes(b"mine")

        def full(_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="could not be written, nothing of it.*No space left"):
            kd.export.to_onnx(dense(), path, overwrite=True)
        assert [x.name for x in tmp_path.iterdir()] == ["x.onnx"]
        assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "tf2onnx"])
def test_a_missing_package_is_named_with_its_extra(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"to_onnx needs {package}: pip install 'keras-kd\[onnx\]'"
    refused(tmp_path, message, kind=ImportError)
