"""Quantization-aware students: what they compute, learn, save, and what their file holds."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits

import keras_kd as kd
from keras_kd.export import trained_weights
from keras_kd.measurement.runtimes import TFLiteFile
from keras_kd.quantization import ranges, weights
from tests.export import students


@pytest.fixture(scope="module")
def digits():
    """`(images, labels)` for training and for testing."""
    found = load_digits()
    images = (found.images[..., None] / 16).astype("float32")
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], found.target[order].astype("int32")
    return (images[:1200], labels[:1200]), (images[1200:], labels[1200:])


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """The path of a float CNN that has learnt the digits."""
    keras.utils.set_random_seed(0)
    student = students.cnn()
    compile_for(student, 3e-3)
    student.fit(*digits[0], batch_size=32, epochs=8, verbose=0)
    path = tmp_path_factory.mktemp("trained") / "student.keras"
    student.save(path)
    return path


def compile_for(model, rate, **kwargs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"], **kwargs)


def accuracy(model, data):
    return float(np.mean(np.argmax(model.predict(data[0], verbose=0), -1) == data[1]))


def distilled(path, scheme, digits, epochs=4, **kwargs):
    """A quantization-aware student, distilled from its own float self."""
    keras.utils.set_random_seed(1)
    teacher, student = keras.models.load_model(path), keras.models.load_model(path)
    aware = kd.quantization_aware(student, scheme, digits[0][0][:200])
    steps = epochs * -(-len(digits[0][0]) // 32)
    distiller = kd.Distiller(teacher, aware)
    compile_for(distiller, keras.optimizers.schedules.CosineDecay(1e-3, steps), **kwargs)
    distiller.fit(*digits[0], batch_size=32, epochs=epochs, verbose=0)
    kd.quantization.recalibrate(aware, tf.data.Dataset.from_tensor_slices(digits[0][0]).batch(32))
    return aware


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, True])
def test_the_int8_file_computes_what_was_trained(trained, digits, tmp_path, jit):
    aware = distilled(trained, "int8", digits, epochs=2, jit_compile=jit)
    done = kd.export.to_tflite(
        aware, tmp_path / "s.tflite", representative_data=digits[0][0][:200], data=digits[1]
    )
    assert done.float_operators == []
    assert done.agreement >= 0.995
    assert done.accuracy >= accuracy(aware, digits[1]) - 0.005
    assert done.notes == []
    assert trained_weights.missing(done.path, aware.integers_by_channel()) == []
    kernel = by_hand(aware.student.get_layer("logits").kernel.numpy(), 8)
    assert any(np.array_equal(kernel, each) for each in trained_weights.of_file(done.path))


def by_hand(kernel, bits):
    """A dense kernel's integers, in float64 NumPy."""
    largest = 2 ** (bits - 1) - 1
    scale = np.abs(kernel.astype(np.float64)).max(axis=0) / largest
    return np.rint(kernel / scale).astype(np.int8)


def test_a_student_without_names_is_saved_loaded_and_exported(digits, tmp_path):
    images = digits[0][0][:64]
    stack = [layers.Flatten(), layers.Dense(16, activation="relu"), layers.Dense(10)]
    student = keras.Sequential([keras.Input((8, 8, 1)), *stack])
    aware = kd.quantization_aware(student, "int8", images)
    aware.save(tmp_path / "aware.keras")
    for model in (aware, keras.models.load_model(tmp_path / "aware.keras")):
        done = kd.export.to_tflite(
            model, tmp_path / "s.tflite", representative_data=images, overwrite=True
        )
        assert done.notes == []
        assert done.inputs[0].name == "input_0"
        assert done.agreement >= 0.95


@pytest.mark.slow
def test_int4_training_wins_back_what_rounding_loses(trained, digits, tmp_path):
    student = keras.models.load_model(trained)
    whole = accuracy(student, digits[1])
    afterwards = kd.export.to_tflite(student, tmp_path / "ptq.tflite", "int4", data=digits[1])
    aware = distilled(trained, "int4", digits)
    done = kd.export.to_tflite(aware, tmp_path / "qat.tflite", data=digits[1])
    assert afterwards.accuracy < whole - 0.02
    assert done.accuracy >= afterwards.accuracy + 0.02
    assert done.accuracy >= whole - 0.01
    # Weights alone are rounded: the file computes the very same.
    assert done.worst_difference < 1e-4
    assert trained_weights.missing(done.path, aware.integers_by_channel()) == []


def test_integers_that_are_not_in_the_file_are_missed(trained, tmp_path):
    aware = kd.quantization_aware(keras.models.load_model(trained), "int4")
    done = kd.export.to_tflite(aware, tmp_path / "s.tflite")
    integers = dict(aware.integers_by_channel())
    name = next(name for name in integers if "logits" in name)
    integers[name] = integers[name].copy()
    integers[name][0, 0] += 1
    assert trained_weights.missing(done.path, integers) == [name]


def test_ranges_follow_the_first_steps_and_are_then_frozen(trained, digits):
    student = keras.models.load_model(trained)
    aware = kd.quantization_aware(student, "int8", digits[0][0][:100], observe_steps=2)
    before = aware.bounds()
    aware(digits[0][0][:32], training=False)
    assert aware.bounds() == before
    aware(3 * digits[0][0][:32], training=True)
    moved = aware.bounds()
    assert moved != before
    aware(3 * digits[0][0][:32], training=True)
    frozen = aware.bounds()
    assert frozen != moved
    aware(9 * digits[0][0][:32], training=True)
    assert aware.bounds() == frozen
    assert int(aware.observed) == 3


def test_rounding_is_done_where_the_file_has_tensors(trained, digits):
    aware = kd.quantization_aware(keras.models.load_model(trained), "int8", digits[0][0][:100])
    where = {
        (each["site"]["layer"], each["site"]["kind"]) for each in aware.get_config()["roundings"]
    }
    # Convolution, BatchNormalization and ReLU are one operator: its end alone is rounded.
    blocks = ["first", "separable", "depthwise", "last"]
    assert {path for path, _ in where if path.endswith("_relu")} == {f"{x}_relu" for x in blocks}
    assert ("separable", "between") in where
    assert not {path for path, _ in where} & {*blocks[2:], "first", *(f"{x}_norm" for x in blocks)}


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
        np.testing.assert_allclose(found, fake(values, low, high), atol=1e-6)
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
    assert trained_weights.missing(done.path, {}, integers) == [name]


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
    compile_for(student, keras.optimizers.schedules.CosineDecay(3e-3, 15 * 38))
    student.fit(images[..., 0], labels, batch_size=32, epochs=15, verbose=0)
    teacher.set_weights(student.get_weights())
    aware = kd.quantization_aware(student, "int8", images[:200, ..., 0])
    distiller = kd.Distiller(teacher, aware)
    compile_for(distiller, keras.optimizers.schedules.CosineDecay(5e-4, 2 * 38))
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


def test_frozen_ranges_stay(trained, digits):
    aware = kd.quantization_aware(keras.models.load_model(trained), "int8", digits[0][0][:100])
    aware.freeze()
    before = aware.bounds()
    aware(3 * digits[0][0][:32], training=True)
    assert aware.bounds() == before


def test_pooling_has_the_range_of_what_it_pools():
    keras.utils.set_random_seed(0)
    stack = [layers.Conv2D(4, 3, name="seen"), layers.MaxPooling2D(name="pooled"), layers.Flatten()]
    student = keras.Sequential([keras.Input((8, 8, 1)), *stack, layers.Dense(3, name="logits")])
    x = np.random.default_rng(0).normal(size=(32, 8, 8, 1)).astype("float32")
    aware = kd.quantization_aware(student, "int8", x)
    owners = {each["site"]["layer"]: each["owner"] for each in aware.get_config()["roundings"]}
    assert owners["pooled"] == owners["seen"] != owners["logits"]
    before = aware.bounds()[owners["seen"]]
    aware(2 * x, training=True)  # both see these; the range moves once
    low, high = aware.bounds()[owners["seen"]]
    seen = student.get_layer("seen")(aware._rounded_inputs(2 * x, lambda _, value: value))
    assert low < before[0]
    assert high == pytest.approx(before[1] + 0.02 * (float(np.max(seen)) - before[1]), rel=0.02)


def test_a_forward_pass_rounds_weights_and_activations(digits):
    keras.utils.set_random_seed(0)
    student = keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3)])
    x = digits[0][0][:64]
    aware = kd.quantization_aware(student, "int8", x)
    kernel = student.layers[-1].kernel.numpy().astype(np.float64)
    scale = np.abs(kernel).max(axis=0) / 127
    rounded = np.rint(kernel / scale) * scale
    flat = fake(x.reshape(64, -1).astype(np.float64), x.min(), x.max())
    outputs = flat @ rounded
    low, high = aware.bounds()["StatefulPartitionedCall:0"]
    expected = fake(outputs, low, high)
    step = (high - low) / 255
    assert np.abs(aware(x).numpy() - expected).max() <= 1.01 * step  # a sum may round either way
    assert np.abs(aware(x).numpy() - expected).mean() < 0.05 * step


def fake(x, low, high):
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255
    zero = np.rint(-128 - low / scale)
    return scale * (np.clip(np.rint(x / scale) + zero, -128, 127) - zero)


def test_gradients_pass_straight_through():
    keras.utils.set_random_seed(0)
    student = keras.Sequential([keras.Input((4,)), layers.Dense(3, use_bias=False)])
    aware = kd.quantization_aware(student, "int4")
    x = np.random.default_rng(1).normal(size=(5, 4)).astype("float32")
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(aware(x) * x[:, :3])
    kernel = student.layers[-1].kernel
    found = tape.gradient(total, kernel.value)
    np.testing.assert_allclose(found, x.T @ x[:, :3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
def test_rounded_weights_are_on_their_grid(bits):
    values = np.random.default_rng(0).normal(size=(5, 4, 3)).astype("float32")
    values[..., 1] = 0
    found = weights.rounded(tf.constant(values), (0, 1), bits).numpy().astype(np.float64)
    largest = 2 ** (bits - 1) - 1
    scale = np.maximum(np.abs(values.astype(np.float64)).max(axis=(0, 1)), 1e-9) / largest
    np.testing.assert_allclose(found, np.rint(values / scale) * scale, rtol=1e-6, atol=1e-9)
    assert len(np.unique(found[..., 0])) <= 2 * largest + 1


def test_a_range_rounds_as_ai_edge_quantizer_does(tmp_path):
    x = np.random.default_rng(3).normal(size=(64, 8)).astype("float32")
    student = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    done = kd.export.to_tflite(student, tmp_path / "s.tflite", "int8", representative_data=x)
    scale, zero = ranges.parameters(float(x.min()), float(x.max()))
    assert (done.inputs[0].scale, done.inputs[0].zero_point) == (pytest.approx(scale), zero)
    assert ranges.bounds_of(scale, zero) == pytest.approx((x.min(), x.max()), abs=scale)


def test_saved_loaded_and_resumed(trained, digits, tmp_path):
    keras.utils.set_random_seed(0)
    aware = kd.quantization_aware(keras.models.load_model(trained), "int8", digits[0][0][:100])
    compile_for(aware, 1e-3)
    aware.fit(*digits[0], batch_size=64, steps_per_epoch=4, verbose=0)
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    assert loaded.bounds() == aware.bounds()
    assert int(loaded.observed) == 4
    x = digits[1][0][:50]
    np.testing.assert_array_equal(loaded(x).numpy(), aware(x).numpy())
    for name, integers in aware.integers().items():
        np.testing.assert_array_equal(loaded.integers()[name], integers)


def test_inner_layers_can_be_tapped(trained, digits):
    teacher = keras.models.load_model(trained)
    aware = kd.quantization_aware(keras.models.load_model(trained), "int8", digits[0][0][:100])
    hint = kd.losses.FeatureHint("separable_relu", "separable_relu")
    distiller = kd.Distiller(teacher, aware, [kd.losses.SoftTargets(), hint])
    compile_for(distiller, 1e-3)
    history = distiller.fit(*digits[0], batch_size=100, epochs=1, verbose=0).history
    assert history["feature_hint"][0] > 0


def test_dropout_and_batch_normalization_go_on_in_the_scope(trained, digits):
    aware = kd.quantization_aware(keras.models.load_model(trained), "int4")
    statistics = [v for v in aware.non_trainable_variables if "moving_mean" in v.path]
    before = [v.numpy() for v in statistics]
    x = digits[0][0][:64]
    first, second = aware(x, training=True).numpy(), aware(x, training=True).numpy()
    assert np.abs(first - second).max() > 0  # another mask of dropout
    assert all(np.abs(v.numpy() - b).max() > 0 for v, b in zip(statistics, before, strict=True))


def test_recalibration_is_the_mean_over_batches(digits):
    stack = [keras.Input((8, 8, 1)), layers.Flatten(), layers.BatchNormalization(momentum=0.999)]
    model = keras.Sequential(stack)
    data = tf.data.Dataset.from_tensor_slices(digits[0][0][:256]).batch(64)
    assert kd.quantization.recalibrate(model, data) == 4
    batches = digits[0][0][:256].reshape(4, 64, 64).astype(np.float64)
    mean, variance = model.layers[-1].moving_mean, model.layers[-1].moving_variance
    # A momentum of 0.999 leaves three of float32's seven digits.
    np.testing.assert_allclose(mean.numpy(), batches.mean(1).mean(0), atol=2e-3)
    np.testing.assert_allclose(variance.numpy(), batches.var(1).mean(0), atol=2e-3)


class Custom(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")

    def call(self, inputs):
        return inputs @ self.kernel


def test_bad_input(trained, digits):
    student = keras.models.load_model(trained)
    with pytest.raises(ValueError, match="Received: scheme='int3'"):
        kd.quantization_aware(student, "int3")
    with pytest.raises(ValueError, match="`representative_data` is missing"):
        kd.quantization_aware(student, "int8")
    aware = kd.quantization_aware(student, "int4")
    with pytest.raises(ValueError, match="quantization-aware already"):
        kd.quantization_aware(aware, "int4")
    with pytest.raises(ValueError, match="observe_steps"):
        kd.quantization_aware(student, "int4", observe_steps=-1)
    custom = keras.Sequential([keras.Input((4,)), Custom(name="mine")])
    with pytest.raises(ValueError, match=r"leave=\['mine'\]"):
        kd.quantization_aware(custom, "int4")
    assert kd.quantization_aware(custom, "int4", leave=["mine"]).integers() == {}


def test_a_file_of_another_scheme_is_refused(trained, tmp_path):
    aware = kd.quantization_aware(keras.models.load_model(trained), "int4")
    with pytest.raises(ValueError, match="was trained for 'int4'"):
        kd.export.to_tflite(aware, tmp_path / "s.tflite", "int8")
    assert TFLiteFile(kd.export.to_tflite(aware, tmp_path / "s.tflite").path)
