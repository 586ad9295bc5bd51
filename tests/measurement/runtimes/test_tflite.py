"""A `.tflite` file gives what LiteRT gives; its inputs, outputs and operators."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd import runtimes
from tests.measurement import files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tflite")


@pytest.fixture(scope="module")
def plain(folder):
    return files.tflite(files.classifier(), folder / "plain.tflite")


@pytest.fixture(scope="module")
def int8(folder):
    return files.tflite(files.classifier(), folder / "int8.tflite", [files.arrays()[0]])


def two_towers():
    """Two inputs whose order in the file is not that of the model, and two outputs."""
    image, vector = keras.Input((6, 6, 2), name="image"), keras.Input((3,), name="a_vector")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    both = keras.layers.Concatenate()([pooled, vector])
    outputs = {"small": keras.layers.Dense(2)(pooled), "large": keras.layers.Dense(5)(both)}
    return files.filled(keras.Model([image, vector], outputs))


@pytest.fixture(scope="module")
def towers(folder):
    return files.tflite(two_towers(), folder / "towers.tflite")


@pytest.mark.parametrize("batch_size", [1, 8, 37, 100])
def test_a_float_file_gives_the_models_outputs(plain, batch_size):
    x, _ = files.arrays()
    (found,) = runtimes.TFLiteFile(plain).run(x, batch_size=batch_size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, files.classifier()(x), rtol=1e-5, atol=1e-5)


def test_integers_are_quantized_by_the_files_scales(int8):
    from ai_edge_litert.interpreter import Interpreter

    x, _ = files.arrays()
    interpreter = Interpreter(model_path=str(int8))
    interpreter.allocate_tensors()
    given, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    expected = []
    for row in x.astype("float64"):
        scale, zero = given["quantization"]
        q = np.clip(np.round(row / scale) + zero, -128, 127).astype("int8")
        interpreter.set_tensor(given["index"], q[None])
        interpreter.invoke()
        expected.append(interpreter.get_tensor(out["index"])[0])
    file, expected = runtimes.TFLiteFile(int8), np.stack(expected)
    (raw,) = file.run(x, quantized=True)
    assert raw.dtype == np.int8
    np.testing.assert_array_equal(raw, expected)
    scale, zero = out["quantization"]
    (real,) = file.run(x)
    np.testing.assert_allclose(real, (expected.astype("float64") - zero) * scale, rtol=1e-6)
    integers = file.inputs[0].encoded(x)
    np.testing.assert_array_equal(file.run(integers)[0], real)
    assert (file.inputs[0].scale, file.inputs[0].zero_point) == pytest.approx(given["quantization"])


def test_inputs_and_outputs_go_by_name(towers):
    rng = np.random.default_rng(0)
    given = {
        "image": rng.normal(size=(9, 6, 6, 2)).astype("float32"),
        "a_vector": rng.normal(size=(9, 3)).astype("float32"),
    }
    file = runtimes.TFLiteFile(towers)
    assert [(x.name, x.shape) for x in file.inputs] == [
        ("a_vector", (None, 3)),
        ("image", (None, 6, 6, 2)),
    ]
    assert [x.name for x in file.outputs] == ["large", "small"]
    assert file.signatures == {
        "serving_default": {"inputs": ["a_vector", "image"], "outputs": ["large", "small"]}
    }
    expected = two_towers()([given["image"], given["a_vector"]])
    for inputs in (given, [given["a_vector"], given["image"]]):
        for found, name in zip(file.run(inputs), ("large", "small"), strict=True):
            np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-5)


def test_a_fixed_number_of_rows_is_filled_up(folder):
    model = files.filled(
        keras.Sequential(
            [
                keras.Input((4, 3), batch_size=2),
                keras.layers.LSTM(5),
                keras.layers.Dense(files.CLASSES),
            ]
        )
    )
    file = runtimes.TFLiteFile(files.tflite(model, folder / "lstm.tflite"))
    assert file.inputs[0].shape == (2, 4, 3)
    x = np.random.default_rng(0).normal(size=(7, 4, 3)).astype("float32")
    expected = np.concatenate([model(x[i : i + 2]) for i in (0, 2, 4)] + [model(x[[6, 6]])[:1]])
    np.testing.assert_allclose(file.run(x)[0], expected, rtol=1e-4, atol=1e-5)
    assert "WHILE" in [x.name for x in file.operators if x.graph == 0]
    assert "FULLY_CONNECTED" in [x.name for x in file.operators if x.graph > 0]


def test_sizes_that_only_the_data_tells(folder):
    stack = [keras.layers.Conv2D(4, 3, strides=2), keras.layers.Conv2D(3, 3)]
    pooled = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    model = files.filled(keras.Sequential([keras.Input((None, None, 2)), *stack, *pooled]))
    file = runtimes.TFLiteFile(files.tflite(model, folder / "any.tflite"))
    assert file.inputs[0].shape == (None, None, None, 2)
    for size in (9, 12):
        x = np.random.default_rng(0).normal(size=(3, size, size, 2)).astype("float32")
        np.testing.assert_allclose(file.run(x)[0], model(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="LiteRT cannot run any.tflite"):
        file.run(x[:, :1, :1])


def test_operators_have_types(plain, int8):
    names = ["FULLY_CONNECTED", "TANH", "FULLY_CONNECTED"]
    for path, kind in ((plain, "float32"), (int8, "int8")):
        found = runtimes.TFLiteFile(path).operators
        assert [x.name for x in found] == names
        assert {x.outputs for x in found} == {(kind,)}
        assert {x.inputs[0] for x in found} == {kind}
    assert runtimes.TFLiteFile(int8).operators[0].inputs == ("int8", "int8", "int32")
    assert runtimes.TFLiteFile(plain).operators[0].label.startswith("classifier_1/h_1/")


def test_ids_are_integers_and_must_be_whole(folder):
    model = files.filled(
        keras.Sequential(
            [
                keras.Input((4,), dtype="int32", name="ids"),
                keras.layers.Embedding(9, 3),
                keras.layers.Flatten(),
                keras.layers.Dense(2),
            ]
        )
    )
    file = runtimes.TFLiteFile(files.tflite(model, folder / "ids.tflite"))
    ids = np.random.default_rng(0).integers(9, size=(6, 4))
    for given in (ids, ids.astype("float32"), ids.astype("int32")):
        np.testing.assert_allclose(file.run(given)[0], model(ids), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="numbers that are not whole"):
        file.run(ids + 0.5)


def converted(module, path, **options):
    """A file of `module.run`, a TensorFlow function."""
    function = module.run.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    for name, value in options.items():
        setattr(converter, name, value)
    path.write_bytes(converter.convert())
    return path


class OneRow(tf.Module):
    """Promises any number of rows."""

    @tf.function(input_signature=[tf.TensorSpec((None, 2, 5))])
    def run(self, x):
        return 2.0 * tf.reshape(x, (1, 10))


def test_a_file_that_takes_fewer_rows_than_it_promises(folder):
    file = runtimes.TFLiteFile(converted(OneRow(), folder / "one.tflite"))
    x = np.random.default_rng(0).normal(size=(3, 2, 5)).astype("float32")
    for _ in range(2):
        np.testing.assert_array_equal(file.run(x)[0], 2 * x.reshape(3, 10))


class Sum(tf.Module):
    """Remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.total = tf.Variable(tf.zeros((1, 3)))

    @tf.function(input_signature=[tf.TensorSpec((1, 3))])
    def run(self, x):
        self.total.assign_add(x)
        return self.total.read_value()


def test_no_row_sees_those_before_it(folder):
    path = converted(Sum(), folder / "sum.tflite", experimental_enable_resource_variables=True)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    np.testing.assert_array_equal(runtimes.TFLiteFile(path).run(x)[0], x)


def test_wrong_inputs_raise(plain, int8, towers):
    x, _ = files.arrays()
    file = runtimes.TFLiteFile(plain)
    with pytest.raises(ValueError, match=r"has shape \(None, 5\). Received an array of shape"):
        file.run(x[:, :3])
    with pytest.raises(ValueError, match="takes 1 inputs; the batch has 2"):
        file.run([x, x])
    with pytest.raises(ValueError, match=r"takes the inputs .* Received: \['x'\]"):
        file.run({"x": x})
    with pytest.raises(ValueError, match=r"one batch size, above 0. Received: \[0\]"):
        file.run(x[:0])
    with pytest.raises(ValueError, match=r"one batch size, above 0. Received: \[1, 2\]"):
        runtimes.TFLiteFile(towers).run([np.zeros((1, 3)), np.zeros((2, 6, 6, 2))])
    with pytest.raises(ValueError, match="holds NaN, which int8 cannot"):
        runtimes.TFLiteFile(int8).run(np.full((1, 5), np.nan))
    with pytest.raises(ValueError, match="`batch_size`. Expected a whole number of at least 1"):
        file.run(x, batch_size=0)


def test_wrong_files_raise(plain, tmp_path):
    with pytest.raises(ValueError, match="There is no file"):
        runtimes.TFLiteFile(tmp_path / "none.tflite")
    other = tmp_path / "other.keras"
    other.write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="other.keras is no TensorFlow Lite model"):
        runtimes.TFLiteFile(other)
    wrong = tmp_path / "wrong.tflite"
    wrong.write_bytes(plain.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cannot read wrong.tflite: .*Is it damaged"):
        runtimes.TFLiteFile(wrong)
    with pytest.raises(ValueError, match="`threads`. Expected a whole number"):
        runtimes.TFLiteFile(plain, threads=0)
    with pytest.raises(ValueError, match=r"signatures \['serving_default'\]. Choose one"):
        runtimes.TFLiteFile(plain, signature="other")


def test_flex_operators_are_named(folder):
    def select(converter):
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS,
            tf.lite.OpsSet.SELECT_TF_OPS,
        ]

    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Lambda(tf.math.erf)(inputs)))
    path = files.tflite(model, folder / "flex.tflite", configure=select)
    with pytest.raises(ValueError, match=r"cannot run flex.tflite.*CUSTOM:FlexErf"):
        runtimes.TFLiteFile(path)


def test_a_missing_runtime_is_named_with_its_extra(monkeypatch, plain):
    import sys

    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-kd\[litert\]'"):
        runtimes.TFLiteFile(plain)
