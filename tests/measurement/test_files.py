"""Files are measured as models are: by what their runtime says."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd import runtimes
from tests.measurement import files

X, Y = files.arrays()


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    model = files.classifier()
    model.save(folder / "plain.keras")
    return {
        "float": files.tflite(model, folder / "float.tflite"),
        "int8": files.tflite(model, folder / "int8.tflite", [X]),
        "onnx": files.onnx(folder / "plain.onnx"),
        "keras": folder / "plain.keras",
    }


@pytest.mark.parametrize("kind", ["float", "onnx", "keras"])
def test_the_same_model_is_as_good_in_any_form(paths, kind):
    expected = kd.measure(files.classifier(), (X, Y), latency=False)
    output = "logits" if kind == "onnx" else None
    found = kd.measure(paths[kind], (X, Y), output=output, latency=False)
    assert found.quality == pytest.approx(expected.quality, rel=1e-4)
    assert found.name == paths[kind].name
    assert found.kind == ("tflite" if kind == "float" else kind)
    assert found.size["parameters"] == expected.size["parameters"]


def test_an_int8_file_is_measured_by_its_own_outputs(paths):
    (outputs,) = runtimes.TFLiteFile(paths["int8"]).run(X)
    found = kd.measure(paths["int8"], (X, Y), teacher=files.classifier(), latency=False)
    assert found.quality["accuracy"] == np.mean(outputs.argmax(axis=1) == Y)
    logits = np.asarray(files.classifier()(X))
    agreement = np.mean(outputs.argmax(axis=1) == logits.argmax(axis=1))
    assert found.teacher["agreement"] == agreement
    assert 0 < found.teacher["kl"] < 0.1
    assert found.size["macs"] == 5 * 6 + 6 * 4


def test_an_int8_file_that_ends_in_softmax(tmp_path):
    model = keras.Sequential([keras.Input((5,)), files.classifier(), keras.layers.Softmax()])
    path = files.tflite(model, tmp_path / "s.tflite", [X])
    found = kd.measure(path, (X, Y), from_logits=False, latency=False)
    plain = kd.measure(model, (X, Y), from_logits=False, latency=False)
    with pytest.raises(ValueError, match="s.tflite are probabilities. Pass from_logits=False"):
        kd.measure(path, (X, Y), latency=False)
    assert found.quality["log_loss"] == pytest.approx(plain.quality["log_loss"], rel=0.1)


def two_of_all():
    first, second = keras.Input((5,), name="first"), keras.Input((5,), name="a_second")
    both = keras.layers.Concatenate()([first, second])
    outputs = {"level": keras.layers.Dense(1)(both), "kind": keras.layers.Dense(4)(both)}
    return files.filled(keras.Model([first, second], outputs))


def test_several_outputs_and_labels_by_name(tmp_path):
    model = two_of_all()
    path = files.tflite(model, tmp_path / "two.tflite")
    inputs = {"first": X, "a_second": X[::-1]}
    level = np.linspace(0, 1, len(X))
    labels = {"kind": Y, "level": level}
    data = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(8)
    said = {name: np.asarray(x) for name, x in model(inputs).items()}
    for given in (model, path):
        found = kd.measure(given, data, output="kind", teacher=model, latency=False)
        assert found.quality["accuracy"] == np.mean(said["kind"].argmax(axis=1) == Y)
        assert found.teacher["agreement"] == 1
        found = kd.measure(given, data, output=1, latency=False)
        assert found.task == "regression"
        error = abs(said["level"][:, 0] - level).mean()
        assert found.quality["mae"] == pytest.approx(error, rel=1e-4)
        with pytest.raises(ValueError, match=r"outputs \['kind', 'level'\]. Choose one of them"):
            kd.measure(given, data, latency=False)
        with pytest.raises(ValueError, match="Received: output='other'"):
            kd.measure(given, data, output="other", latency=False)
    with pytest.raises(ValueError, match="none for output 'kind'"):
        kd.measure(model, (inputs, {"level": level}), output="kind", latency=False)


def test_inputs_without_names_are_never_guessed(tmp_path):
    path = files.tflite(two_of_all(), tmp_path / "two.tflite")
    data = ([X, X], Y)
    with pytest.raises(ValueError, match="cannot be found by their shapes and types"):
        kd.measure(path, data, output="kind", latency=False)
    with pytest.raises(ValueError, match="The file takes 2 inputs; the batch has 1"):
        kd.measure(path, (X, Y), output="kind", latency=False)


def test_inputs_without_names_are_matched_by_shape(tmp_path):
    long, short = keras.Input((5,), name="z"), keras.Input((3,), name="a")
    both = keras.layers.Concatenate()([long, short])
    model = files.filled(keras.Model([long, short], keras.layers.Dense(4)(both)))
    path = files.tflite(model, tmp_path / "m.tflite")
    data = ([X, X[:, :3]], Y)
    expected = kd.measure(model, data, latency=False)
    found = kd.measure(path, data, latency=False)
    assert found.quality == pytest.approx(expected.quality, rel=1e-4)


def test_a_file_of_a_fixed_number_of_rows(tmp_path):
    model = files.filled(
        keras.Sequential(
            [keras.Input((6, 5), batch_size=1), keras.layers.GRU(5), keras.layers.Dense(4)]
        )
    )
    path = files.tflite(model, tmp_path / "gru.tflite")
    x = np.random.default_rng(0).normal(size=(37, 6, 5)).astype("float32")
    found = kd.measure(path, (x, Y), runs=3, warmup=0)
    outputs = np.concatenate([model(x[i : i + 1]) for i in range(37)])
    assert found.quality["accuracy"] == np.mean(outputs.argmax(axis=1) == Y)
    assert found.size["macs"] == 6 * 3 * 5 * (5 + 5) + 5 * 4
    assert found.latency["batch_size"] == 1


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [("float", "litert-xnnpack"), ("int8", "litert-xnnpack"), ("onnx", "onnxruntime")],
)
def test_latency_of_files(paths, kind, runtime):
    output = "logits" if kind == "onnx" else None
    found = kd.measure(paths[kind], (X, Y), output=output, threads=2, runs=7, warmup=1).latency
    facts = {"runtime": runtime, "threads": 2, "batch_size": 1, "warmup": 1, "runs": 7}
    assert facts.items() <= found.items()
    assert 0 < found["median_us"] <= found["p95_us"] < 1e7


def test_latency_of_a_keras_model():
    found = kd.measure(files.classifier(), (X, Y), runs=5, warmup=1)
    assert found.latency["runtime"] == "keras"
    assert found.latency["threads"] >= 1
    assert 0 < found.latency["median_us"] <= found.latency["p95_us"] < 1e7
    assert any("TensorFlow's own" in note for note in found.notes)
