"""`to_onnx` with integers: values, what is in the file, what cannot be quantized, TensorRT."""

import sys
import types

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import extras
from tests.export import onnx_models, students


@pytest.fixture(scope="module")
def digits():
    """A CNN trained on scikit-learn's digits, and the digits it was not trained on."""
    images, labels = extras.require("sklearn.datasets").load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order]
    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(24, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.Conv2D(48, 3, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, name="logits"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.Adam(0.005), loss)
    student.fit(images[:1200], labels[:1200], batch_size=64, epochs=5, verbose=0)
    return student, images, labels


def accuracy(logits, labels):
    return float(np.mean(np.argmax(logits, -1) == labels))


def constants(path):
    """The constants of a file by what reads them: {operator: [arrays]}."""
    graph = onnx.load(path).graph
    values = {x.name: onnx.numpy_helper.to_array(x) for x in graph.initializer}
    found = {}
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in values:
                found.setdefault((node.op_type, position), []).append(values[name])
    return found


@pytest.fixture(scope="module")
def export(digits, tmp_path_factory):
    """The student in int8."""
    student, images, labels = digits
    data = tf.data.Dataset.from_tensor_slices((images[:200], labels[:200])).batch(32)
    path = tmp_path_factory.mktemp("int8") / "student.onnx"
    return kd.export.to_onnx(
        student,
        path,
        quantization="int8",
        representative_data=data,
        data=images[1200:],
        metadata={"classes": list("0123456789")},
    )


class TestStatic:
    def test_the_accuracy_stays(self, digits, export):
        student, images, labels = digits
        exact = accuracy(student.predict(images[1200:], verbose=0), labels[1200:])
        logits = onnx_models.run(export.path, images[1200:])["logits"]
        assert exact > 0.9
        assert accuracy(logits, labels[1200:]) > exact - 0.01
        assert export.agreement > 0.98
        assert "classes" in {x.key for x in onnx.load(export.path).metadata_props}

    def test_every_weight_is_an_integer_of_7_bits(self, digits, export):
        # The 8th lets ONNX Runtime's sums overflow on processors without VNNI.
        kernels = [x for x in constants(export.path)["DequantizeLinear", 0] if x.ndim > 1]
        assert {x.dtype for x in kernels} == {np.dtype("int8")}
        assert sorted(x.size for x in kernels) == sorted(
            x.size for x in digits[0].get_weights() if x.ndim > 1
        )
        assert max(np.abs(x.astype(int)).max() for x in kernels) <= 64
        assert all(len(np.unique(x)) > 20 for x in kernels)
        assert ("Conv", 1) not in constants(export.path)

    def test_size_is_about_a_quarter(self, digits, export, tmp_path):
        whole = kd.export.to_onnx(digits[0], tmp_path / "x.onnx")
        assert export.bytes < 0.55 * whole.bytes  # 19,000 weights: the graph weighs too

    def test_error_above_tolerance_raises(self, digits, export, tmp_path):
        student, images, _ = digits
        with pytest.raises(kd.export.ExportError, match=r"off by 0.0.*tolerance=0.0 allows less"):
            kd.export.to_onnx(
                student,
                tmp_path / "x.onnx",
                quantization="int8",
                representative_data=images[:50],
                tolerance=0.0,
            )
        assert not list(tmp_path.iterdir())


class TestDynamic:
    def test_a_cnn_and_a_fixed_batch(self, digits, tmp_path):
        student, images, labels = digits
        export = kd.export.to_onnx(
            student, tmp_path / "x.onnx", quantization="dynamic", batch_size=7, data=images[:100]
        )
        assert export.operators["ConvInteger"] == 2
        assert export.operators["MatMulInteger"] == 1
        logits = [
            onnx_models.run(export.path, images[i : i + 7])["logits"] for i in range(0, 700, 7)
        ]
        exact = accuracy(student.predict(images[:700], verbose=0), labels[:700])
        assert accuracy(np.concatenate(logits), labels[:700]) > exact - 0.01

    @pytest.mark.parametrize("name", ["lstm", "transformer", "several"])
    def test_other_students(self, name, tmp_path):
        student = onnx_models.made(name)
        export = kd.export.to_onnx(student, tmp_path / "x.onnx", quantization="dynamic")
        inputs = onnx_models.inputs_of(student, rows=64)
        expected = keras.tree.flatten(student.predict(inputs, verbose=0))
        for found, value in zip(
            onnx_models.run(export.path, inputs).values(), expected, strict=True
        ):
            assert np.std(found - value) < 0.1 * np.std(value)


@pytest.mark.parametrize(
    ("name", "quantization", "reader"),
    [("lstm", "int8", "LSTM"), ("simple", "dynamic", "Loop")],
)
def test_layers_that_would_stay_in_float_raise(name, quantization, reader, tmp_path):
    student = onnx_models.made("lstm")
    if name == "simple":
        layers = [keras.layers.SimpleRNN(4), keras.layers.Dense(2)]
        student = keras.Sequential([keras.Input((6, 3)), *layers])
    data = np.random.default_rng(0).normal(size=(20, 6, 3))
    with pytest.raises(
        kd.export.ExportError, match=rf"would stay in float.*\({reader}\).*to_tflite"
    ):
        kd.export.to_onnx(
            student, tmp_path / "x.onnx", quantization=quantization, representative_data=data
        )
    assert not list(tmp_path.iterdir())


def test_the_remedy_of_a_dynamic_file_that_is_off(tmp_path):
    # With one scale for the kernel, a channel of large weights takes the bits of the others.
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 4), name="image")
    x = keras.layers.DepthwiseConv2D(3, name="deep", activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    student = keras.Model(inputs, keras.layers.Dense(5, name="logits")(x))
    deep, logits = student.get_layer("deep"), student.get_layer("logits")
    channel = np.array([1e3, 1, 1, 1], "float32")
    deep.kernel.assign(np.array(deep.kernel) * channel[:, None])
    logits.kernel.assign(np.array(logits.kernel) * (channel < 2)[:, None])
    data = np.random.default_rng(0).normal(size=(64, 8, 8, 4)).astype("float32") / channel
    with pytest.raises(kd.export.ExportError, match="'int8'.*each channel.*to_tflite.*'dynamic'"):
        kd.export.to_onnx(student, tmp_path / "x.onnx", quantization="dynamic", data=data)
    options = {"quantization": "int8", "representative_data": data}
    assert kd.export.to_onnx(student, tmp_path / "x.onnx", **options).agreement > 0.8
    done = kd.export.to_tflite(student, tmp_path / "x.tflite", "dynamic", data=data)
    assert done.agreement > 0.8


class TestTensorRT:
    def parser(self, errors):
        """A module with what is used of TensorRT, and what it was given."""
        given = []

        class OnnxParser:
            num_errors = len(errors)

            def __init__(self, network, logger):
                assert (network, logger) == ("network", "logger")

            def parse(self, content):
                given.append(content)
                return not errors

            def get_error(self, i):
                return types.SimpleNamespace(
                    node_operator=lambda: "Conv", node_name=lambda: "c1", desc=lambda: errors[i]
                )

        class Logger:
            INTERNAL_ERROR = 0

            def __new__(cls, level):
                return "logger"

        module = types.ModuleType("tensorrt_rtx")
        module.__version__, module.Logger, module.OnnxParser = "1.7", Logger, OnnxParser
        network = types.SimpleNamespace(create_network=lambda flags: "network")
        module.Builder = lambda logger: network
        return module, given

    def exported(self, digits, path, **options):
        student, images, _ = digits
        return kd.export.to_onnx(
            student,
            path,
            quantization="int8",
            representative_data=images[:100],
            data=images[1200:],
            for_tensorrt=True,
            **options,
        )

    def test_what_its_parser_takes(self, digits, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
        export = self.exported(digits, tmp_path / "x.onnx")
        found = constants(export.path)
        # Weights in float that are quantized in the graph, biases that are not, nothing asymmetric.
        assert {x.ndim for x in found["QuantizeLinear", 0]} == {2, 4}
        assert all(np.all(x == 0) and x.dtype == np.int8 for x in found["QuantizeLinear", 2])
        assert {x.dtype for x in found["Conv", 2]} == {np.dtype("float32")}
        assert export.operators["QuantizeLinear"] == export.operators["DequantizeLinear"]
        exact = digits[0].predict(digits[1][1200:], verbose=0)
        logits = onnx_models.run(export.path, digits[1][1200:], optimized=False)["logits"]
        assert accuracy(logits, np.argmax(exact, -1)) > 0.98

    def test_notes_say_that_nothing_was_executed(self, digits, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
        path = tmp_path / "a student.onnx"
        export = kd.export.to_onnx(onnx_models.made("several"), path, for_tensorrt=True)
        said, command, parsed = export.notes
        assert "not executed here" in said
        engine = str(path).replace(".onnx", ".engine")
        assert command == (
            f"trtexec '--onnx={path}' '--saveEngine={engine}' --stronglyTyped "
            "--minShapes=kind:1x4,numbers:1x6 --optShapes=kind:8x4,numbers:8x6 "
            "--maxShapes=kind:32x4,numbers:32x6"
        )
        assert command in str(export)
        assert parsed.startswith("Not parsed by TensorRT")

    def test_its_parser_is_asked_where_it_is_installed(self, tmp_path, monkeypatch):
        student, path = onnx_models.made("lstm"), tmp_path / "x.onnx"
        module, given = self.parser([])
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
        export = kd.export.to_onnx(student, path, for_tensorrt=True, batch_size=2)
        assert export.notes[-1] == "Parsed by TensorRT-RTX 1.7."
        assert "Shapes" not in export.notes[1]
        assert given == [path.read_bytes()]
        module, _ = self.parser(["no such thing"])
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
        with pytest.raises(
            kd.export.ExportError, match=r"1\.7 cannot parse the file: Conv c1: no such thing"
        ):
            kd.export.to_onnx(student, tmp_path / "y.onnx", for_tensorrt=True)
        assert not (tmp_path / "y.onnx").exists()

    def test_the_real_parser(self, digits, tmp_path):
        pytest.importorskip("tensorrt_rtx", reason="no GPU of TensorRT: pip install tensorrt-rtx")
        export = self.exported(digits, tmp_path / "x.onnx")
        assert export.notes[-1].startswith("Parsed by TensorRT-RTX")


def test_of_a_model_that_does_not_know_its_inputs(tmp_path):
    student, x = (
        students.Subclassed(),
        np.random.default_rng(0).normal(size=(40, 6)).astype("float32"),
    )
    student(x)
    done = kd.export.to_onnx(
        student, tmp_path / "x.onnx", quantization="int8", representative_data=x
    )
    assert done.agreement >= 0.9


def test_few_rows_are_enough_to_compare_with(tmp_path):
    student, x = (
        students.Subclassed(),
        np.random.default_rng(0).normal(size=(4, 6)).astype("float32"),
    )
    student(x)
    assert kd.export.to_onnx(student, tmp_path / "x.onnx", representative_data=x).agreement == 1.0
