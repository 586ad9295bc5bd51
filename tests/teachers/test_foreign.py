"""Teachers of other runtimes say what their own runtime says, and teach."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import matrix
from tests.cache import caches


def learns(teacher, epochs=30):
    history, _ = caches.trained(teacher, caches.dataset(), epochs=epochs)
    assert history["soft_targets"][-1] < 0.7 * history["soft_targets"][0]


def as_said(teacher, x, expected, tolerance=1e-5):
    np.testing.assert_allclose(teacher(x), expected, rtol=tolerance, atol=tolerance)
    in_graph = tf.function(lambda x: teacher(x), autograph=False)
    np.testing.assert_allclose(in_graph(x), expected, rtol=tolerance, atol=tolerance)


class TestSavedModel:
    @pytest.fixture
    def folder(self, tmp_path):
        caches.model(1).export(tmp_path / "model", verbose=False)
        return tmp_path / "model"

    def test_it_says_what_the_model_says(self, folder):
        x, _ = caches.arrays()
        as_said(kd.teachers.SavedModelTeacher(folder), x, caches.model(1)(x))

    @pytest.mark.parametrize("mode", matrix.modes("graph", "xla"))
    def test_it_teaches_as_the_model_does(self, folder, mode):
        one, _ = caches.trained(caches.model(1), caches.dataset(), mode=mode)
        teacher = kd.teachers.SavedModelTeacher(folder)
        other, _ = caches.trained(teacher, caches.dataset(), mode=mode)
        for name, values in one.items():
            np.testing.assert_allclose(other[name], values, rtol=1e-5)

    def test_its_function_with_named_outputs(self, folder):
        teacher = kd.teachers.SavedModelTeacher(folder, endpoint="serving_default")
        x, _ = caches.arrays()
        np.testing.assert_allclose(teacher(x), caches.model(1)(x), rtol=1e-5, atol=1e-6)

    def test_it_is_saved_with_the_distiller(self, folder, tmp_path):
        distiller = kd.Distiller(kd.teachers.SavedModelTeacher(folder), caches.model(2))
        distiller.compile("sgd", caches.from_logits())
        distiller.save(tmp_path / "d.keras")
        x, _ = caches.arrays()
        again = keras.models.load_model(tmp_path / "d.keras").teacher
        np.testing.assert_allclose(again(x), caches.model(1)(x), rtol=1e-5, atol=1e-6)

    def test_bad_arguments(self, folder, tmp_path):
        with pytest.raises(ValueError, match="must be the folder of a TensorFlow SavedModel"):
            kd.teachers.SavedModelTeacher(tmp_path / "nothing")
        with pytest.raises(ValueError, match="endpoint"):
            kd.teachers.SavedModelTeacher(folder, endpoint="other")
        with pytest.raises(ValueError, match="no output 'h' that could be tapped"):
            kd.Distiller(
                kd.teachers.SavedModelTeacher(folder),
                caches.model(2),
                kd.losses.FeatureHint("h", "h"),
            )


def onnx_file(path):
    """The model of `caches.model(1)` by hand; its hidden layer is an output too."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = caches.model(1).get_weights()
    names = ("kernel_h", "bias_h", "kernel", "bias")
    nodes = [
        helper.make_node("MatMul", ["x", "kernel_h"], ["a"]),
        helper.make_node("Add", ["a", "bias_h"], ["b"]),
        helper.make_node("Tanh", ["b"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "kernel"], ["c"]),
        helper.make_node("Add", ["c", "bias"], ["logits"]),
    ]
    value = lambda name, width: helper.make_tensor_value_info(  # noqa: E731
        name, TensorProto.FLOAT, ["rows", width]
    )
    graph = helper.make_graph(
        nodes,
        "teacher",
        [value("x", caches.FEATURES)],
        [value("logits", caches.CLASSES), value("hidden", 6)],
        [numpy_helper.from_array(w, n) for w, n in zip(weights, names, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


class TestOnnx:
    @pytest.fixture
    def file(self, tmp_path):
        return onnx_file(tmp_path / "teacher.onnx")

    def test_it_says_what_its_runtime_says(self, file):
        import onnxruntime

        x, _ = caches.arrays()
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        expected = session.run(["logits"], {"x": x})[0]
        np.testing.assert_allclose(expected, caches.model(1)(x), rtol=1e-5, atol=1e-5)
        as_said(kd.teachers.OnnxTeacher(file, output="logits"), x, expected)

    def test_it_teaches_and_its_outputs_are_tapped(self, file):
        losses = [kd.losses.SoftTargets(), kd.losses.FeatureHint("hidden", "h")]
        teacher = kd.teachers.OnnxTeacher(file, output="logits")
        found, _ = caches.trained(teacher, caches.dataset(), losses)
        living = [kd.losses.SoftTargets(), kd.losses.FeatureHint("h", "h")]
        expected, _ = caches.trained(caches.model(1), caches.dataset(), living)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4)

    def test_it_is_cached_and_known_again(self, file, tmp_path):
        teacher = kd.teachers.OnnxTeacher(file, output="logits")
        path = caches.written(tmp_path / "c", teacher=teacher)
        x, outputs, _ = caches.read(kd.load_cache(path, caches.dataset(), teacher=teacher))
        np.testing.assert_allclose(outputs, caches.model(1)(x), rtol=1e-5, atol=1e-5)
        file.write_bytes(file.read_bytes() + b"\0")
        with pytest.raises(kd.CacheError, match="of another teacher"):
            kd.load_cache(path, caches.dataset(), teacher=teacher)

    def test_bad_arguments(self, file, tmp_path):
        with pytest.raises(ValueError, match="`path` must be an .onnx file"):
            kd.teachers.OnnxTeacher(tmp_path / "missing.onnx")
        with pytest.raises(ValueError, match=r"outputs \['logits', 'hidden'\].*output='other'"):
            kd.teachers.OnnxTeacher(file, output="other")
        teacher = kd.teachers.OnnxTeacher(file, output="logits")
        with pytest.raises(ValueError, match="no output 'h' that could be tapped"):
            kd.Distiller(teacher, caches.model(2), kd.losses.FeatureHint("h", "h"))
        with pytest.raises(
            ValueError, match=r"takes the inputs \['x'\]; the batch has \['a', 'b'\]"
        ):
            teacher(dict.fromkeys("ab", np.zeros((2, 5), "float32")))


def tflite_file(path, quantized=False):
    converter = tf.lite.TFLiteConverter.from_keras_model(caches.model(1))
    if quantized:
        x, _ = caches.arrays()
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in x)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own
        path.write_bytes(converter.convert())
    return path


class TestTFLite:
    def test_it_says_what_the_model_says(self, tmp_path):
        x, _ = caches.arrays()
        teacher = kd.teachers.TFLiteTeacher(tflite_file(tmp_path / "t.tflite"))
        as_said(teacher, x, caches.model(1)(x))
        learns(teacher)

    def test_integers_are_quantized_by_the_files_scales(self, tmp_path):
        from ai_edge_litert.interpreter import Interpreter

        x, _ = caches.arrays()
        file = tflite_file(tmp_path / "t.tflite", quantized=True)
        interpreter = Interpreter(model_path=str(file))
        given, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        interpreter.allocate_tensors()
        expected = []
        for row in x:
            scale, zero = given["quantization"]
            q = np.clip(np.round(row / scale) + zero, -128, 127).astype("int8")
            interpreter.set_tensor(given["index"], q[None])
            interpreter.invoke()
            scale, zero = out["quantization"]
            expected.append((np.float32(interpreter.get_tensor(out["index"])[0]) - zero) * scale)
        teacher = kd.teachers.TFLiteTeacher(file)
        np.testing.assert_allclose(teacher(x), expected, rtol=1e-6)
        assert np.mean(np.argmax(expected, 1) == np.argmax(caches.model(1)(x), 1)) > 0.9

    def test_bad_arguments(self, tmp_path):
        with pytest.raises(ValueError, match="`path` must be a .tflite file"):
            kd.teachers.TFLiteTeacher(tmp_path / "missing.tflite")
        teacher = kd.teachers.TFLiteTeacher(tflite_file(tmp_path / "t.tflite"))
        with pytest.raises(Exception, match="takes 1 inputs; the batch has 2"):
            teacher([np.zeros((2, 5), "float32")] * 2)


class TestTorch:
    @pytest.fixture
    def module(self):
        import torch

        weights = caches.model(1).get_weights()
        linear = [torch.nn.Linear(caches.FEATURES, 6), torch.nn.Linear(6, caches.CLASSES)]
        built = torch.nn.Sequential(linear[0], torch.nn.Tanh(), torch.nn.Dropout(0.5), linear[1])
        with torch.no_grad():
            for layer, (kernel, bias) in zip(linear, (weights[:2], weights[2:]), strict=True):
                layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
                layer.bias.copy_(torch.from_numpy(bias))
        return built

    def test_it_says_what_the_module_says_in_evaluation(self, module):
        import torch

        module.train()
        module[3].eval()
        x, _ = caches.arrays()
        teacher = kd.teachers.TorchTeacher(module)
        as_said(teacher, x, caches.model(1)(x))
        assert [each.training for each in module] == [True, True, True, False]
        assert all(p.grad is None and p.requires_grad for p in module.parameters())
        module.eval()
        np.testing.assert_allclose(
            teacher(x), module(torch.from_numpy(x)).detach().numpy(), rtol=1e-5, atol=1e-6
        )

    def test_it_teaches_and_its_modules_are_tapped(self, module):
        before = [p.detach().numpy().copy() for p in module.parameters()]
        losses = [kd.losses.SoftTargets(), kd.losses.FeatureHint("1", "h")]
        found, _ = caches.trained(kd.teachers.TorchTeacher(module), caches.dataset(), losses)
        living = [kd.losses.SoftTargets(), kd.losses.FeatureHint("h", "h")]
        expected, _ = caches.trained(caches.model(1), caches.dataset(), living)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-4)
        for parameter, value in zip(module.parameters(), before, strict=True):
            np.testing.assert_array_equal(parameter.detach(), value)

    def test_images_are_turned_to_its_order_and_feature_maps_back(self):
        import torch

        convolution = torch.nn.Conv2d(3, 4, 3, padding=1)
        module = torch.nn.Sequential(convolution, torch.nn.Flatten())
        images = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype("float32")
        teacher = kd.teachers.TorchTeacher(module, channels_first=True)
        outputs, taps = teacher.predict(images, ["0"])
        exact = convolution(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).detach().numpy()
        np.testing.assert_allclose(outputs, exact.reshape(2, -1), rtol=1e-5)
        np.testing.assert_allclose(taps["0"], exact.transpose(0, 2, 3, 1), rtol=1e-5)

    def test_a_model_of_hugging_face(self):
        import torch
        from transformers import BertConfig, BertForSequenceClassification

        sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = BertConfig(
            vocab_size=20,
            intermediate_size=16,
            max_position_embeddings=16,
            num_labels=caches.CLASSES,
            **sizes,
        )
        torch.manual_seed(0)
        module = BertForSequenceClassification(config)
        with torch.no_grad():
            module.classifier.weight.mul_(100.0)  # its random logits are all but equal
        teacher = kd.teachers.TorchTeacher(module)
        rng = np.random.default_rng(0)
        ids = rng.integers(1, 20, size=(24, 10))
        mask = (np.arange(10) < rng.integers(3, 10, size=(24, 1))).astype("int64")
        given = {"input_ids": ids, "attention_mask": mask}
        module.eval()
        tensors = {name: torch.from_numpy(value) for name, value in given.items()}
        expected = module(**tensors).logits.detach().numpy()
        np.testing.assert_allclose(teacher(given), expected, rtol=1e-5, atol=1e-6)

        keras.utils.set_random_seed(0)
        inputs = {name: keras.Input((10,), dtype="int64", name=name) for name in given}
        hidden = keras.layers.Embedding(20, 8, name="hidden")(inputs["input_ids"])
        pooled = keras.layers.GlobalAveragePooling1D()(hidden)
        student = keras.Model(inputs, keras.layers.Dense(caches.CLASSES)(pooled))
        losses = [
            kd.losses.SoftTargets(2.0),
            kd.losses.HiddenStates("bert.encoder.layer.1", "hidden", mask_input="attention_mask"),
        ]
        distiller = kd.Distiller(teacher, student, losses, alpha=0.0, beta=1.0)
        distiller.compile(keras.optimizers.Adam(0.02), None)
        history = distiller.fit(given, epochs=15, verbose=0).history
        for name in ("soft_targets", "hidden_states"):
            assert history[name][-1] < 0.8 * history[name][0]

    def test_bad_arguments(self, module):
        import torch

        with pytest.raises(ValueError, match="`module` must be a torch.nn.Module"):
            kd.teachers.TorchTeacher(caches.model(1))
        teacher = kd.teachers.TorchTeacher(module)
        with pytest.raises(ValueError, match="no inner module 'h'. Close to it"):
            kd.Distiller(teacher, caches.model(2), kd.losses.FeatureHint("h", "h"))
        distiller = kd.Distiller(teacher, caches.model(2))
        distiller.compile("sgd", caches.from_logits())
        with pytest.raises(ValueError, match="its teacher is a PyTorch module"):
            distiller.save("never.keras")

        class Two(torch.nn.Module):
            def forward(self, x):
                return {"a": x, "b": x}

        with pytest.raises(ValueError, match=r"has the outputs \['a', 'b'\]. Choose one"):
            kd.teachers.TorchTeacher(Two()).predict(np.zeros((2, 3), "float32"))
        chosen = kd.teachers.TorchTeacher(Two(), output="b")
        assert chosen.predict(np.ones((2, 3), "float32"))[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("make", "package", "extra"),
    [
        (lambda: kd.teachers.OnnxTeacher("x"), "onnxruntime", "onnx"),
        (lambda: kd.teachers.TFLiteTeacher("x"), "ai_edge_litert.interpreter", "litert"),
        (lambda: kd.teachers.TorchTeacher(None), "torch", "torch"),
    ],
)
def test_a_missing_runtime_is_named_with_its_extra(monkeypatch, make, package, extra):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'keras-kd\[{extra}\]'"):
        make()
