"""Quantization-aware students: what they learn, save, and what their file holds."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_kd as kd
from keras_kd.export.tflite import verify
from keras_kd.runtimes import TFLiteFile
from tests.quantization import common


def distilled(path, scheme, digits, epochs=4, **kwargs):
    """A quantization-aware student, distilled from its own float self."""
    keras.utils.set_random_seed(1)
    teacher, student = keras.models.load_model(path), keras.models.load_model(path)
    aware = kd.quantization_aware(student, scheme, digits[0][0][:200])
    steps = epochs * -(-len(digits[0][0]) // 32)
    distiller = kd.Distiller(teacher, aware)
    common.compile_for(distiller, keras.optimizers.schedules.CosineDecay(1e-3, steps), **kwargs)
    distiller.fit(*digits[0], batch_size=32, epochs=epochs, verbose=0)
    kd.quantization.recalibrate(aware, tf.data.Dataset.from_tensor_slices(digits[0][0]).batch(32))
    return aware


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, True])
def test_int8_file_matches_trained_student(trained, digits, tmp_path, jit):
    aware = distilled(trained, "int8", digits, epochs=2, jit_compile=jit)
    done = kd.export.to_tflite(
        aware, tmp_path / "s.tflite", representative_data=digits[0][0][:200], data=digits[1]
    )
    assert done.float_operators == []
    assert done.agreement >= 0.995
    assert done.accuracy >= common.accuracy(aware, digits[1]) - 0.005
    assert done.notes == []
    assert verify.missing_weights(done.path, aware.integers_by_channel()) == []
    kernel = by_hand(aware.student.get_layer("logits").kernel.numpy(), 8)
    assert any(np.array_equal(kernel, each) for each in verify.channel_integers(done.path))


def by_hand(kernel, bits):
    """A dense kernel's integers, in float64 NumPy."""
    largest = 2 ** (bits - 1) - 1
    scale = np.abs(kernel.astype(np.float64)).max(axis=0) / largest
    return np.rint(kernel / scale).astype(np.int8)


def test_unnamed_student_saves_loads_and_exports(digits, tmp_path):
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
def test_int4_qat_recovers_ptq_loss(trained, digits, tmp_path):
    student = keras.models.load_model(trained)
    whole = common.accuracy(student, digits[1])
    afterwards = kd.export.to_tflite(student, tmp_path / "ptq.tflite", "int4", data=digits[1])
    aware = distilled(trained, "int4", digits)
    done = kd.export.to_tflite(aware, tmp_path / "qat.tflite", data=digits[1])
    assert afterwards.accuracy < whole - 0.02
    assert done.accuracy >= afterwards.accuracy + 0.02
    assert done.accuracy >= whole - 0.01
    # Weights alone are rounded: the file computes the very same.
    assert done.worst_difference < 1e-4
    assert verify.missing_weights(done.path, aware.integers_by_channel()) == []


@pytest.fixture(scope="module")
def int4(trained, tmp_path_factory):
    """An int4 student as it is made, and its export."""
    aware = kd.quantization_aware(keras.models.load_model(trained), "int4")
    return aware, kd.export.to_tflite(aware, tmp_path_factory.mktemp("int4") / "s.tflite")


def test_missing_integers_are_detected(int4):
    aware, done = int4
    integers = dict(aware.integers_by_channel())
    name = next(name for name in integers if "logits" in name)
    integers[name] = integers[name].copy()
    integers[name][0, 0] += 1
    assert verify.missing_weights(done.path, integers) == [name]


def test_saved_loaded_and_resumed(trained, digits, tmp_path):
    keras.utils.set_random_seed(0)
    aware = kd.quantization_aware(keras.models.load_model(trained), "int8", digits[0][0][:100])
    common.compile_for(aware, 1e-3)
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
    common.compile_for(distiller, 1e-3)
    rows = [each[:200] for each in digits[0]]
    history = distiller.fit(*rows, batch_size=100, epochs=1, verbose=0).history
    assert history["feature_hint"][0] > 0


def test_dropout_and_batch_norm_still_train(trained, digits):
    aware = kd.quantization_aware(keras.models.load_model(trained), "int4")
    statistics = [v for v in aware.non_trainable_variables if "moving_mean" in v.path]
    before = [v.numpy() for v in statistics]
    x = digits[0][0][:64]
    first, second = aware(x, training=True).numpy(), aware(x, training=True).numpy()
    assert np.abs(first - second).max() > 0  # another mask of dropout
    assert all(np.abs(v.numpy() - b).max() > 0 for v, b in zip(statistics, before, strict=True))


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
    with pytest.raises(ValueError, match=r"has no layer 'min'. Close to it: \['mine'\]"):
        kd.quantization_aware(custom, "int4", leave=["min"])
    with pytest.raises(ValueError, match="`leave`. Expected a list of paths"):
        kd.quantization_aware(custom, "int4", leave="mine")


def test_export_with_another_scheme_raises(int4, tmp_path):
    aware, done = int4
    with pytest.raises(ValueError, match="was trained for 'int4'"):
        kd.export.to_tflite(aware, tmp_path / "s.tflite", "int8")
    assert not list(tmp_path.iterdir())
    assert TFLiteFile(done.path)


@keras.saving.register_keras_serializable("keras_kd_tests")
class Table(layers.Layer):
    """Rows of a table, by numbers that the layer takes for indices."""

    def build(self, shape):
        self.table = self.add_weight(shape=(50, 8), name="table")

    def call(self, inputs):
        return keras.ops.take(self.table, keras.ops.cast(inputs, "int32"), axis=0)


def test_float_indices_are_not_scaled():
    """To tell places apart by larger inputs is not possible where these are indices."""
    keras.utils.set_random_seed(0)
    student = keras.Sequential(
        [keras.Input((6,)), Table(), layers.Flatten(), layers.Dense(3, name="last")]
    )
    ids = np.random.default_rng(0).integers(50, size=(32, 6)).astype("float32")
    with pytest.raises(ValueError, match=r"Layer 'table' \(Table\).*\['CAST'\] in float32"):
        kd.quantization_aware(student, "int8", ids)


def test_float_indices_of_embedding_raise():
    """Keras' inputs are float32 by default, those of an Embedding too."""
    stack = [keras.Input((6,)), layers.Embedding(50, 8), layers.Flatten(), layers.Dense(3)]
    student = keras.Sequential(stack)
    ids = np.random.default_rng(0).integers(50, size=(32, 6)).astype("float32")
    with pytest.raises(ValueError, match="'input_0' of type float32, which an Embedding reads"):
        kd.quantization_aware(student, "int8", ids)
