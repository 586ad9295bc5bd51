"""Students with adapters of LoRA: merged before they are made quantization-aware."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from keras_kd.runtimes import TFLiteFile

ROWS = np.random.default_rng(0).normal(size=(32, 6, 8)).astype("float32")


def adapted():
    """A nested model, an attention and a convolution, with adapters that are not 0."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 8))
    inner = keras.Sequential([keras.Input((6, 8)), layers.Dense(8, name="wide")], name="body")
    attention = layers.MultiHeadAttention(2, 4, name="attention")
    x = inner(inputs)
    x = layers.Conv1D(8, 3, name="seen")(attention(x, x))
    student = keras.Model(inputs, layers.Dense(3, name="logits")(layers.Flatten()(x)))
    rng = np.random.default_rng(1)
    with_lora = [
        inner.layers[0],
        attention.query_dense,
        student.get_layer("seen"),
        student.get_layer("logits"),
    ]
    for layer in with_lora:
        layer.enable_lora(2)
        other = layer.lora_kernel_b
        other.assign(0.3 * rng.normal(size=other.shape))
    return student


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_it_is_refused_with_a_remedy_that_works(scheme, tmp_path, monkeypatch):
    student = adapted()
    with pytest.raises(ValueError, match=r"'body/wide'.*have LoRA enabled") as error:
        kd.quantization_aware(student, scheme, ROWS)
    monkeypatch.chdir(tmp_path)
    names = {"keras": keras, "student": student}
    exec(str(error.value).split("LoRA:\n")[1], names)
    merged = names["merged"]
    np.testing.assert_allclose(merged(ROWS), student(ROWS), atol=1e-4)
    aware = kd.quantization_aware(merged, scheme, ROWS)
    done = kd.export.to_tflite(aware, "s.tflite", representative_data=ROWS)
    assert done.notes == []
    assert done.agreement > 0.9


def test_lora_that_is_enabled_later_is_refused_by_the_next_step():
    student = keras.Sequential([keras.Input((8,)), layers.Dense(4), layers.Dense(3)])
    aware = kd.quantization_aware(student, "int4")
    student.layers[0].enable_lora(2)
    for use in (lambda: aware(ROWS[:, 0]), aware.rounded_student):
        with pytest.raises(ValueError, match="have LoRA enabled"):
            use()


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_other_files_hold_the_sum(quantization, tmp_path):
    student = keras.Sequential([keras.Input((8,)), layers.Dense(4), layers.Dense(3)])
    rng = np.random.default_rng(0)
    for layer in student.layers:
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(rng.normal(size=layer.lora_kernel_b.shape))
    rows = ROWS[:, 0]
    path = tmp_path / "s.tflite"
    kd.export.to_tflite(student, path, quantization, representative_data=rows)
    expected = rows.astype(np.float64)
    for layer in student.layers:
        kernels = (layer.lora_kernel_a, layer.lora_kernel_b)
        a, b = (np.asarray(x.numpy(), np.float64) for x in kernels)
        bias = layer.bias.numpy()
        expected = expected @ (own_kernel(layer) + a @ b) + bias
    atol = 1e-4 if quantization is None else 0.05 * np.abs(expected).max()
    np.testing.assert_allclose(TFLiteFile(path).run(rows)[0], expected, atol=atol)


def own_kernel(layer):
    return next(w.numpy() for w in layer.weights if w.name == "kernel").astype(np.float64)
