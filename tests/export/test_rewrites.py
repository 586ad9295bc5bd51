"""Layers in steps: the same values, of operators that a file can hold as integers."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from keras_kd.export import rewrites
from keras_kd.export.student import ExportError
from tests.export import students

SHAPE = (2, 6, 16)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def in_steps(layer, *args, **kwargs):
    """The layer's output in steps, and which steps were visited."""
    visited = []

    def visit(part, value):
        visited.append(part)
        return value

    steps = rewrites.steps_of(layer, layer.call)
    found = steps(visit, *map(keras.ops.convert_to_tensor, args), **kwargs)
    return keras.ops.convert_to_numpy(found), visited


def test_layer_normalization():
    layer = layers.LayerNormalization(epsilon=1e-3)
    layer.build(SHAPE)
    layer.gamma.assign(normal(16))
    layer.beta.assign(normal(16))
    x = 3 * normal(*SHAPE) + 1
    found, visited = in_steps(layer, x)
    wide = x.astype(np.float64)
    scaled = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(found, scaled * layer.gamma.numpy() + layer.beta.numpy(), atol=1e-5)
    assert visited == list(range(8))


@pytest.mark.parametrize("groups", [False, True])
def test_attention(groups):
    kinds = (
        (layers.GroupQueryAttention, (8, 4, 2)) if groups else (layers.MultiHeadAttention, (4, 4))
    )
    layer = kinds[0](*kinds[1])
    x = keras.ops.convert_to_tensor(normal(*SHAPE))
    expected = keras.ops.convert_to_numpy(layer(x, x))
    found, _ = in_steps(layer, x, x)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    result, scores = rewrites.steps_of(layer, layer.call)(
        lambda part, value: value, x, x, return_attention_scores=True
    )
    np.testing.assert_allclose(result, expected, atol=1e-5)
    np.testing.assert_allclose(np.sum(scores, axis=-1), 1, atol=1e-5)


def test_a_masked_softmax():
    layer, x = layers.Softmax(), normal(4, 9)
    mask = np.random.default_rng(1).random((4, 9)) < 0.6
    mask[:, 0] = True
    found, visited = in_steps(layer, x, mask=mask)
    powers = np.exp(x.astype(np.float64)) * mask
    np.testing.assert_allclose(found, powers / powers.sum(-1, keepdims=True), atol=9 * np.exp(-10))
    assert visited == [0]
    plain, visited = in_steps(layer, x)
    np.testing.assert_allclose(plain.sum(-1), 1, atol=1e-6)
    assert visited == []


def test_unit_vectors_in_integers(tmp_path):
    keras.utils.set_random_seed(0)
    unit = layers.UnitNormalization(name="unit")
    student = keras.Sequential([keras.Input((16,)), layers.Dense(8), unit])
    x = normal(64, 16)
    done = kd.export.to_tflite(
        student, tmp_path / "s.tflite", "int8", representative_data=x, route="edge_quantizer"
    )
    assert done.float_operators == []
    assert done.error < 0.1
    hidden = np.asarray(student.layers[0](x), np.float64)
    with rewrites.in_steps(student):
        found = np.asarray(unit(hidden.astype("float32")))
        assert not np.any(unit(np.zeros((2, 8), "float32")))
    truth = hidden / np.sqrt(np.square(hidden).sum(-1, keepdims=True))
    np.testing.assert_allclose(found, truth, atol=1e-6)


def causal():
    """Attention that looks back only, and sharply."""
    keras.utils.set_random_seed(0)
    ids = keras.Input((12,), dtype="int32", name="ids")
    x = layers.Embedding(50, 16, embeddings_initializer="random_normal", name="table")(ids)
    attended = layers.MultiHeadAttention(2, 8, name="attention")(x, x, use_causal_mask=True)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(layers.Add()([x, attended])))
    student = keras.Model(ids, layers.Dense(10, name="logits")(x), name="causal")
    student.get_layer("table").embeddings.assign(normal(50, 16))
    for variable in student.get_layer("attention").trainable_variables:
        if "query" in variable.path or "key" in variable.path:
            variable.assign(8 * variable)
    return student


# Of the mask's -1e9 in the file 8 bits kept agreement at 0.48, and 16 bits at 0.38.
@pytest.mark.parametrize(("quantization", "bound"), [("int8", 0.85), ("int16x8", 0.98)])
def test_masked_attention_keeps_its_scores(quantization, bound, tmp_path):
    x = np.random.default_rng(0).integers(1, 50, (64, 12)).astype("int32")
    done = kd.export.to_tflite(
        causal(), tmp_path / "s.tflite", quantization, representative_data=x, min_agreement=0.0
    )
    assert done.float_operators == []
    assert done.agreement >= bound


def test_means_of_layer_normalization_are_products(tmp_path):
    rows = students.rows("transformer")
    student = students.made("transformer")
    done = kd.export.to_tflite(
        student, tmp_path / "s.tflite", "int8", representative_data=rows, min_agreement=0.0
    )
    assert done.operators["MEAN"] == 1  # the pooling
    assert "NEG" not in done.operators
    plain = kd.export.to_tflite(student, tmp_path / "f.tflite", None)
    assert plain.operators["MEAN"] == 5


def test_layers_are_as_before_afterwards():
    student = students.made("transformer")
    inside = student.get_layer(index=3)
    with rewrites.in_steps(student):
        changed = [layer.name for layer in student.layers if "call" in vars(layer)]
    assert len(changed) == 3
    assert not any("call" in vars(layer) for layer in student.layers)
    assert "call" not in vars(inside)


def test_operators_in_float_raise_with_layer_and_remedy(tmp_path):
    keras.utils.set_random_seed(0)
    ids = keras.Input((12,), dtype="int32", name="ids")
    x = layers.GlobalAveragePooling1D(name="pool")(layers.Embedding(50, 8, mask_zero=True)(ids))
    student = keras.Model(ids, layers.Dense(3, name="logits")(x), name="masked")
    x = np.random.default_rng(0).integers(0, 50, (64, 12)).astype("int32")
    with pytest.raises(ExportError, match=r"\['CAST'\].* first at '.*pool.*quantization='dynamic'"):
        kd.export.to_tflite(student, tmp_path / "s.tflite", "int8", representative_data=x)
    assert "CAST" in kd.export.to_tflite(student, tmp_path / "s.tflite", "dynamic").operators
