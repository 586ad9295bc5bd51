"""Attention, embeddings and normalization in quantization-aware students."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_kd as kd
from keras_kd.export.tflite import verify
from tests.export import students
from tests.quantization import common


@pytest.fixture(scope="module")
def aware_transformer():
    """Of random weights, which all differ: scales and offsets of LayerNormalization too."""
    student, rng = students.made("transformer"), np.random.default_rng(0)
    for variable in student.trainable_variables:
        variable.assign_add(0.1 * rng.normal(size=variable.shape))
    return kd.quantization_aware(student, "int8", students.rows("transformer"))


def test_attention_is_rounded_inside(aware_transformer):
    attention = next(
        layer.name
        for layer in aware_transformer.student.layers
        if isinstance(layer, layers.MultiHeadAttention)
    )
    found = {
        tuple(each["site"][key] for key in ("layer", "kind", "part")): each
        for each in aware_transformer.get_config()["roundings"]
    }
    inside = {
        (path.removeprefix(f"{attention}/"), kind)
        for path, kind, _ in found
        if path.startswith(f"{attention}/")
    }
    assert inside >= {("softmax", "entering"), ("softmax", "output"), ("output_dense", "entering")}
    query = found[f"{attention}/query_dense", "between", -1]
    assert query["factor"] == pytest.approx(8**-0.5, rel=1e-5)  # the file has it in the kernel
    assert found[f"{attention}/softmax", "output", 0]["is_fixed"]


def test_what_an_activation_function_is_given_is_rounded(aware_transformer):
    wide = next(
        layer.name
        for layer in aware_transformer.student.layers
        if isinstance(layer, layers.Dense) and layer.activation is keras.activations.gelu
    )
    parts = [
        (each["site"]["kind"], each["site"]["part"])
        for each in aware_transformer.get_config()["roundings"]
        if each["site"]["layer"] == wide
    ]
    assert parts == [("between", -1), ("output", 0)]


def test_embeddings_and_scales_of_layers_are_rounded_as_activations_are(aware_transformer):
    aware = aware_transformer
    operands = {
        each.variable.path: each for each in aware.rounded_weights if hasattr(each, "index")
    }
    names = [path.split("/")[-1] for path in operands]
    assert sorted(names) == ["beta", "beta", "embeddings", "gamma", "gamma", "positions"]
    for each in operands.values():
        values = each.variable.numpy().astype(np.float64)
        low, high = min(values.min(), 0.0), max(values.max(), 0.0)
        found = keras.ops.convert_to_numpy(each.on_grid())
        np.testing.assert_allclose(found, common.fake(values, low, high), atol=1e-6)
        scale = (high - low) / 255
        expected = np.rint(values / scale) + np.rint(-128 - low / scale)
        assert np.abs(each.integers() - expected).max() <= 1  # one that lies between two
        assert np.mean(each.integers() == expected) > 0.99


def test_rows_of_a_table_are_rounded_as_the_table_is_when_it_has_grown(tmp_path):
    keras.utils.set_random_seed(0)
    ids = keras.Input((6,), dtype="int32", name="ids")
    x = layers.Flatten()(layers.Embedding(20, 8, name="table")(ids))
    student = keras.Model(ids, layers.Dense(3, name="logits")(x))
    rows = np.random.default_rng(0).integers(20, size=(64, 6)).astype("int32")
    aware = kd.quantization_aware(student, "int8", rows)
    table = student.get_layer("table").embeddings
    table.assign(3 * table)
    student.get_layer("logits").kernel.assign(student.get_layer("logits").kernel / 3)
    done = kd.export.to_tflite(aware, tmp_path / "s.tflite", representative_data=rows)
    outputs = np.abs(aware(rows).numpy()).max()
    assert done.worst_difference < 0.02 * outputs  # a step is 0.008
    assert done.agreement >= 0.98


def test_an_operand_gets_the_gradient_of_what_is_not_rounded(aware_transformer):
    operand = next(x for x in aware_transformer.rounded_weights if hasattr(x, "index"))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(operand.on_grid() * 3.0)
    found = tape.gradient(total, operand.variable.value)
    np.testing.assert_array_equal(tf.convert_to_tensor(found), np.full(operand.variable.shape, 3.0))


def test_the_file_of_a_transformer_has_its_integers(aware_transformer, tmp_path):
    x = students.rows("transformer")
    done = kd.export.to_tflite(
        aware_transformer, tmp_path / "s.tflite", representative_data=x, min_agreement=0.9
    )
    assert done.float_operators == []
    assert done.notes == []  # which would list what the file holds with other integers
    integers = dict(aware_transformer.integers_of_operands())
    name = next(iter(integers))
    integers[name] = -integers[name]
    assert verify.missing_weights(done.path, {}, integers) == [name]


@keras.saving.register_keras_serializable("keras_kd_tests")
class Attending(layers.Layer):
    """Attention to what a plain operation makes, with the mask of what it was made from."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 4)
        self.supports_masking = True

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, inputs, mask=None):
        lifted = keras.ops.relu(inputs)
        lifted._keras_mask = mask
        return self.attention(lifted, lifted)


def test_masks_outlive_the_rounding_of_what_carries_them():
    keras.utils.set_random_seed(0)
    ids = keras.Input((6,), dtype="int32", name="ids")
    table = layers.Embedding(20, 8, mask_zero=True, name="table")
    student = keras.Model(ids, Attending(name="attending")(table(ids)))
    padding = np.arange(20)[:, None] == 0
    # Inside of the table's range, which its rounding depends on.
    table.embeddings.assign(np.where(padding, 0.01, table.embeddings))
    rows = np.random.default_rng(0).integers(1, 20, (32, 6)).astype("int32")
    rows[:, 3:] = 0
    aware = kd.quantization_aware(student, "int8", rows)
    found = [each["site"] for each in aware.get_config()["roundings"]]
    assert ("attending/attention", "entering") in {(x["layer"], x["kind"]) for x in found}
    before = aware(rows).numpy()
    table.embeddings.assign(np.where(padding, -0.02, table.embeddings))
    np.testing.assert_array_equal(aware(rows).numpy()[:, :3], before[:, :3])
    rows[:, 3:] = 1
    assert np.abs(aware(rows).numpy()[:, :3] - before[:, :3]).max() > 0


def test_a_saved_transformer_rounds_as_before(aware_transformer, tmp_path):
    aware_transformer.save(tmp_path / "aware.keras")
    custom = {"Positions": students.Positions}
    loaded = keras.models.load_model(tmp_path / "aware.keras", custom_objects=custom)
    x = students.rows("transformer")
    np.testing.assert_array_equal(loaded(x).numpy(), aware_transformer(x).numpy())
    assert list(loaded.integers()) == list(aware_transformer.integers())


@pytest.mark.slow
def test_the_int8_file_of_a_trained_transformer_computes_what_was_trained(digits, tmp_path):
    keras.utils.set_random_seed(0)
    (images, labels), tested = digits
    student, teacher = students.reader_of_rows(), students.reader_of_rows()
    common.compile_for(student, keras.optimizers.schedules.CosineDecay(3e-3, 15 * 38))
    student.fit(images[..., 0], labels, batch_size=32, epochs=15, verbose=0)
    teacher.set_weights(student.get_weights())
    aware = kd.quantization_aware(student, "int8", images[:200, ..., 0])
    distiller = kd.Distiller(teacher, aware)
    common.compile_for(distiller, keras.optimizers.schedules.CosineDecay(5e-4, 2 * 38))
    distiller.fit(images[..., 0], labels, batch_size=32, epochs=2, verbose=0)
    done = kd.export.to_tflite(
        aware,
        tmp_path / "s.tflite",
        representative_data=images[:200, ..., 0],
        data=(tested[0][..., 0], tested[1]),
    )
    assert done.model_accuracy > 0.9
    assert done.agreement >= 0.99
    assert done.notes == []
