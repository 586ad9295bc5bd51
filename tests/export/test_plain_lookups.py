"""Look-ups are one GATHER, arguments of maxima one ARG_MAX; others raise with their layer."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_kd as kd
from keras_kd.export.student import ExportError
from tests.export import onnx_models

pytestmark = pytest.mark.in_turn(4)

# Keras' wrap around indices below 0; microcontrollers have no SELECT.
WRAP = {"LESS", "SELECT", "SELECT_V2"}


def tokens(rows=32, low=0):
    return np.random.default_rng(0).integers(low, 20, (rows, 6)).astype("int32")


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def over(embed, dtype="int32"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype=dtype, name="ids")
    x = layers.GlobalAveragePooling1D()(embed(inputs))
    return keras.Model(inputs, layers.Dense(5, name="logits")(x))


class Both(layers.Layer):
    """Embeddings of tokens and positions, in a layer of the user's."""

    def __init__(self):
        super().__init__(name="both")
        self.tokens, self.positions = layers.Embedding(20, 8), layers.Embedding(6, 8)

    def call(self, inputs):
        return self.tokens(inputs) + self.positions(ops.arange(6))


def nested():
    inner = keras.Sequential([keras.Input((6,), dtype="int32"), layers.Embedding(20, 8)])
    return over(inner)


TABLES = {
    "plain": lambda: over(layers.Embedding(20, 8)),
    "in a layer": lambda: over(Both()),
    "in a model": nested,
    "reversible": lambda: over(layers.ReversibleEmbedding(20, 8)),
    "of int64": lambda: over(layers.Embedding(20, 8), "int64"),
    "of a part": lambda: over(lambda x: layers.Embedding(20, 8)(x[:, 1:4] + 0)),
}


@pytest.mark.parametrize("name", TABLES)
def test_rows_of_a_table_are_gathered(name, tmp_path):
    student, x = TABLES[name](), tokens()
    if name == "of int64":
        x = x.astype("int64")
    done = kd.export.to_tflite(student, tmp_path / "f.tflite", data=x)
    assert done.operators["GATHER"] >= 1
    assert not WRAP & set(done.operators)
    assert done.error < 1e-5
    done = kd.export.to_tflite(
        student, tmp_path / "i.tflite", "int8", representative_data=x, route="edge_quantizer"
    )
    assert not WRAP & set(done.operators)
    done = kd.export.to_onnx(student, tmp_path / "x.onnx", data=x)
    assert not {"Less", "Where"} & set(done.operators)


def test_what_is_computed_and_may_be_below_0_counts_from_the_end(tmp_path):
    student, x = over(lambda ids: layers.Embedding(20, 8)(ids - 3)), tokens()
    done = kd.export.to_tflite(student, tmp_path / "f.tflite", data=x)
    assert set(done.operators) & WRAP
    assert done.error < 1e-5


def test_negative_indices_raise_before_any_work(tmp_path):
    student = over(Both())
    for purpose in (kd.export.to_tflite, kd.export.to_onnx):
        path = tmp_path / ("s.tflite" if purpose is kd.export.to_tflite else "s.onnx")
        with pytest.raises(ValueError, match="'both/.*' looks up row -2 .*rows' own numbers"):
            purpose(student, path, data=tokens(low=-2))
        purpose(student, path, data=tokens(low=-2) % 20)  # the remedy
    inputs = keras.Input((6,), dtype="int32")
    plain = keras.Model(inputs, layers.Rescaling(0.1)(inputs))  # where there is no table
    assert kd.export.to_tflite(plain, tmp_path / "p.tflite", data=tokens(low=-2)).error < 1e-5


@pytest.fixture(scope="module")
def scores():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3), name="image")
    return inputs, layers.Conv2D(4, 3, padding="same", name="scores")(inputs)


CHOICES = {
    "last axis": lambda x: ops.argmax(x, -1),
    "kept": lambda x: ops.argmax(x, axis=-1, keepdims=True),
    "least": lambda x: ops.argmin(x, 3),
    "of a lambda": layers.Lambda(lambda x: ops.argmax(x, -1)),
}


@pytest.mark.parametrize("name", CHOICES)
def test_the_largest_of_classes(name, scores, tmp_path):
    inputs, values = scores
    student, x = keras.Model(inputs, CHOICES[name](values)), normal(32, 6, 6, 3)
    truth = np.asarray(keras.Model(inputs, values)(x), np.float64)
    truth = truth.argmin(-1) if name == "least" else truth.argmax(-1)
    done = kd.export.to_tflite(student, tmp_path / "f.tflite", data=(x, truth))
    assert set(done.operators) - {"CONV_2D", "RESHAPE"} in ({"ARG_MAX"}, {"ARG_MIN"})
    assert set(done.tasks.values()) == {"multiclass"}
    assert (done.agreement, done.accuracy) == (1.0, 1.0)
    found = kd.measurement.runtimes.TFLiteFile(done.path).run(x)[0]
    np.testing.assert_array_equal(found.reshape(truth.shape), truth)
    done = kd.export.to_onnx(student, tmp_path / "x.onnx", data=x)
    found = next(iter(onnx_models.run(done.path, x).values()))
    np.testing.assert_array_equal(found.reshape(truth.shape), truth)


@pytest.mark.slow
def test_masks_of_an_integer_file(scores, tmp_path):
    inputs, values = scores
    student, x = keras.Model(inputs, ops.argmax(values, -1)), normal(32, 6, 6, 3)
    done = kd.export.to_tflite(student, tmp_path / "s.tflite", "int8", representative_data=x)
    assert done.operators["ARG_MAX"] == 1
    assert done.float_operators == []
    assert done.agreement > 0.95


def test_functions_of_keras_are_as_before():
    from keras_kd.export import rewrites

    before = ops.argmax, ops.argmin
    student = over(layers.Embedding(20, 8))
    with rewrites.with_plain_lookups(student):
        assert ops.argmax is not before[0]
        assert int(ops.argmax(ops.convert_to_tensor([1.0, 3.0, 2.0]))) == 1
        assert int(ops.argmax(np.array([1.0, 3.0, 2.0]))) == 1
        whole = ops.argmax(ops.convert_to_tensor([[1.0, 3.0, 2.0]]), keepdims=True)
        assert whole.shape == (1, 1)
    assert (ops.argmax, ops.argmin) == before
    assert not any("call" in vars(layer) for layer in student.layers)


LOOKUPS = {
    "Hashing": lambda: layers.Hashing(5, name="look"),
    "IntegerLookup": lambda: layers.IntegerLookup(vocabulary=[1, 2, 3], name="look"),
    "StringLookup": lambda: layers.StringLookup(vocabulary=["a", "b"], name="look"),
    "TextVectorization": lambda: layers.TextVectorization(
        vocabulary=["a", "b"], output_sequence_length=6, name="look"
    ),
}


def looking_up(kind):
    dtype = "string" if kind in ("StringLookup", "TextVectorization") else "int32"
    inputs = keras.Input((1,) if kind == "TextVectorization" else (6,), dtype=dtype, name="words")
    x = layers.Embedding(6, 4)(LOOKUPS[kind]()(inputs))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def words(kind):
    if kind == "StringLookup":
        return np.array([["a", "b", "a", "a", "b", "a"]] * 12)
    return np.array([["a b a"]] * 12) if kind == "TextVectorization" else tokens(12) % 4


@pytest.mark.parametrize("kind", LOOKUPS)
def test_tables_of_words_raise_with_their_layer(kind, tmp_path):
    student = looking_up(kind)
    for purpose, suffix in ((kd.export.to_tflite, "tflite"), (kd.export.to_onnx, "onnx")):
        path = tmp_path / f"s.{suffix}"
        message = rf"layer 'look' .* is a {kind}, .*keras.Model\(layer.output, student.output\)"
        with pytest.raises(ValueError, match=message):
            purpose(student, path)
        layer = student.get_layer("look")  # the remedy
        rest = keras.Model(layer.output, student.output)
        fed = np.asarray(layer(keras.ops.convert_to_tensor(words(kind))), rest.inputs[0].dtype)
        assert purpose(rest, path, data=fed).error < 1e-5
        truth = np.asarray(student(keras.ops.convert_to_tensor(words(kind))))
        np.testing.assert_allclose(np.asarray(rest(fed)), truth, atol=1e-6)


def test_operators_that_litert_lacks_raise_with_layer_and_remedy(tmp_path):
    inputs = keras.Input((6,), dtype="int32", name="ids")
    several = layers.CategoryEncoding(20, output_mode="multi_hot", name="words")(inputs)
    student = keras.Model(inputs, layers.Dense(3)(several))
    with pytest.raises(ExportError, match=r"no operators for DenseBincount \(at '.*words.*'\)"):
        kd.export.to_tflite(student, tmp_path / "s.tflite", data=tokens())
    head = keras.Sequential([keras.Input((20,)), student.layers[-1]])  # the remedy
    fed = np.asarray(student.get_layer("words")(tokens()))
    assert kd.export.to_tflite(head, tmp_path / "s.tflite", data=fed).error < 1e-5


def test_what_onnx_lacks_and_litert_has(tmp_path):
    inputs = keras.Input((3,))
    student = keras.Model(inputs, layers.Discretization([0.0, 1.0], name="bins")(inputs))
    with pytest.raises(ExportError, match="Bucketize .*use kd.export.to_tflite, which has it"):
        kd.export.to_onnx(student, tmp_path / "s.onnx", data=normal(12, 3))
    assert kd.export.to_tflite(student, tmp_path / "s.tflite", data=normal(12, 3)).agreement == 1


class TestWholeInputs:
    def camera(self, dtype):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((8, 8, 3), dtype=dtype, name="image")
        x = layers.Conv2D(4, 3)(layers.Rescaling(1 / 255, name="scaled")(inputs))
        return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))

    def pictures(self):
        return np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3)).astype("uint8")

    @pytest.mark.parametrize("quantization", ["int8", "int16x8"])
    def test_raise_before_any_conversion(self, quantization, tmp_path, monkeypatch):
        def convert(*args):
            raise AssertionError("converted")

        monkeypatch.setattr("keras_kd.export.tflite.routes.convert", convert)
        message = "type uint8 that layer 'scaled' .*keras.Input.*'float32'.*input_dtype='uint8'"
        inputs = keras.Input((8, 8, 3), dtype="uint8")
        nested = keras.Model(inputs, layers.Softmax()(self.camera("uint8")(inputs)))
        for student in (self.camera("uint8"), nested):
            with pytest.raises(ValueError, match=message):
                kd.export.to_tflite(
                    student,
                    tmp_path / "s.tflite",
                    quantization,
                    representative_data=self.pictures(),
                )

    @pytest.mark.slow
    def test_the_remedy(self, tmp_path):
        student, pictures = self.camera("uint8"), self.pictures()
        other = self.camera("float32")
        other.set_weights(student.get_weights())
        done = kd.export.to_tflite(
            other,
            tmp_path / "s.tflite",
            "int8",
            representative_data=pictures.astype("float32"),
            input_dtype="uint8",
        )
        assert done.inputs[0].dtype == "uint8"
        assert (done.inputs[0].scale, done.inputs[0].zero_point) == (pytest.approx(1.0), 0)
        found = kd.measurement.runtimes.TFLiteFile(done.path).run(pictures)[0]
        truth = np.asarray(student(pictures))
        assert np.abs(found - truth).max() < 0.1 * np.abs(truth).max()

    def test_tokens_are_no_pictures(self, tmp_path):
        student = over(lambda ids: layers.Embedding(20, 8)(ids[:, ::2]))
        done = kd.export.to_tflite(
            student, tmp_path / "s.tflite", "int8", representative_data=tokens()
        )
        assert done.float_operators == []

    def test_a_float_file_takes_them_as_they_are(self, tmp_path):
        done = kd.export.to_tflite(
            self.camera("uint8"), tmp_path / "s.tflite", "dynamic", data=self.pictures()
        )
        assert done.inputs[0].dtype == "uint8"


def test_a_failure_that_is_the_same_is_not_tried_again(tmp_path, monkeypatch):
    from keras_kd.export.tflite import routes

    convert, calls = routes.convert, []

    def counted(job, route):
        calls.append(route)
        return convert(job, "edge_quantizer")  # the quicker of the two, which leaves the same

    monkeypatch.setattr(routes, "convert", counted)
    student = keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.PReLU()])
    with pytest.raises(ExportError, match="in float32"):
        kd.export.to_tflite(
            student, tmp_path / "s.tflite", "int8", representative_data=normal(32, 8)
        )
    assert calls == ["edge_quantizer", "converter"]
