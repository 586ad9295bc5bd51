"""Files as teachers: one rule for inputs, outputs, states and layouts in all formats."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd.runtimes.outputs import FileOutputs, sort_names
from tests.measurement import files
from tests.measurement import onnx_files as made

X = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
FORMATS = ("onnx", "tflite", "saved_model")


def two_headed(names=("b", "a")):
    inputs = keras.Input((5,), name="x")
    outputs = {name: keras.layers.Dense(3, name=f"of_{name}")(inputs) for name in names}
    return files.filled(keras.Model(inputs, outputs), seed=3)


def two_heads_in_onnx(path, model):
    """The same as an ONNX file, whose outputs are in the order of the model."""
    nodes, tensors = [], []
    for name in model.output:
        kernel, bias = model.get_layer(f"of_{name}").get_weights()
        tensors += [made.held(f"{name}_kernel", kernel), made.held(f"{name}_bias", bias)]
        nodes += [
            made.helper.make_node("MatMul", ["x", f"{name}_kernel"], [f"{name}_z"]),
            made.helper.make_node("Add", [f"{name}_z", f"{name}_bias"], [name]),
        ]
    outputs = [made.value(name, ["rows", 3]) for name in model.output]
    return made.saved(path, nodes, [made.value("x", ["rows", 5])], outputs, tensors)


@pytest.fixture(scope="module")
def model():
    return two_headed()


@pytest.fixture(scope="module")
def makers(model, tmp_path_factory):
    """A function that makes the teacher, for each format."""
    folder = tmp_path_factory.mktemp("files")
    two_heads_in_onnx(folder / "t.onnx", model)
    files.tflite(model, folder / "t.tflite")
    model.export(folder / "t", verbose=False)
    return {
        "onnx": lambda **options: kd.teachers.OnnxTeacher(folder / "t.onnx", **options),
        "tflite": lambda **options: kd.teachers.TFLiteTeacher(folder / "t.tflite", **options),
        "saved_model": lambda **options: kd.teachers.SavedModelTeacher(
            folder / "t", endpoint="serving_default", **options
        ),
    }


@pytest.mark.parametrize("kind", FORMATS)
class TestSeveralOutputs:
    def test_all_of_them_teach_by_their_names(self, makers, model, kind):
        teacher = makers[kind]()
        order = ["b", "a"] if kind == "onnx" else ["a", "b"]
        assert teacher.output_names == order
        for name, found in zip(order, teacher(X), strict=True):
            np.testing.assert_allclose(found, model(X)[name], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
    def test_a_head_learns_from_the_output_of_its_name(self, makers, model, kind, order):
        inputs = keras.Input((5,))
        student = keras.Model(inputs, [keras.layers.Dense(3, name=n)(inputs) for n in order])
        losses = [kd.losses.RegressionKD(output=n, name=f"{n}_kd") for n in order]
        distiller = kd.Distiller(makers[kind](), student, losses, alpha=0.0, beta=1.0)
        distiller.compile(keras.optimizers.SGD(0.0), None, jit_compile=False)
        said = dict(zip(order, student(X), strict=True))
        history = distiller.fit(X, verbose=0).history
        for name in order:
            expected = ((np.float64(said[name]) - np.float64(model(X)[name])) ** 2).mean()
            assert history[f"{name}_kd"][0] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("output", ["b", "index"])
    def test_one_of_them_teaches(self, makers, model, kind, output):
        index = makers[kind]().output_names.index("b")
        teacher = makers[kind](output=index if output == "index" else output)
        np.testing.assert_allclose(teacher(X), model(X)["b"], rtol=1e-5, atol=1e-6)
        assert teacher.output_names == ["b"]
        assert teacher.fingerprint() != makers[kind]().fingerprint()

    def test_the_others_are_tapped(self, makers, model, kind):
        inputs = keras.Input((5,))
        hidden = keras.layers.Dense(3, name="hidden")(inputs)
        student = keras.Model(inputs, keras.layers.Dense(3)(hidden))
        hint = kd.losses.FeatureHint("a", "hidden", projector=None, name="hint")
        losses = [kd.losses.RegressionKD(), hint]
        distiller = kd.Distiller(makers[kind](output="b"), student, losses, alpha=0.0, beta=1.0)
        distiller.compile(keras.optimizers.SGD(0.0), None, jit_compile=False)
        before = np.float64(keras.Model(inputs, hidden)(X))
        found = distiller.fit(X, verbose=0).history["hint"][0]
        assert found == pytest.approx(((before - np.float64(model(X)["a"])) ** 2).mean(), rel=1e-5)
        with pytest.raises(ValueError, match=r"no output 'c' that could be tapped. It has \['"):
            makers[kind]().resolve("c")

    @pytest.mark.parametrize("output", ["c", 2, -1, True, 0.5, ["a"]])
    def test_another_is_refused_when_the_teacher_is_made(self, makers, kind, output):
        with pytest.raises(ValueError, match=r"has the outputs \['[ab]', '[ab]'\]. `output` must"):
            makers[kind](output=output)

    def test_they_are_kept_in_a_cache(self, makers, model, kind, tmp_path):
        data = tf.data.Dataset.from_tensor_slices(X).batch(4)
        teacher = makers[kind]()
        path = kd.cache_teacher(teacher, data, tmp_path / "c", dtype="float32", verbose=0)
        assert kd.teachers.Cached(path, teacher).output_names == teacher.output_names
        first = next(iter(kd.load_cache(path, data, teacher=teacher)))
        said = keras.tree.flatten(first["keras_kd_teacher"]["outputs"])
        for name, found in zip(teacher.output_names, said, strict=True):
            np.testing.assert_allclose(found, model(X[:4])[name], rtol=1e-5, atol=1e-6)
        with pytest.raises(kd.CacheError, match="of another teacher"):
            kd.teachers.Cached(path, makers[kind](output="a"))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["note", "onset"], ["note", "onset"]),
        (["output_0", "output_1"], None),
        (["Identity", "Identity_1:0"], None),
        (["StatefulPartitionedCall:1", "StatefulPartitionedCall:0"], None),
        (["PartitionedCall:0"], None),
        (["12", "34"], None),
        (["logits", "output_1"], None),
        (["output"], None),
        (["outputs_of_mine"], ["outputs_of_mine"]),
    ],
)
def test_names_that_an_exporter_counted_are_none(names, expected):
    assert FileOutputs(names, None, "teacher").given_names == expected


def test_numbers_in_names_count_as_numbers():
    names = [f"output_{i}" for i in range(12)]
    assert sort_names(sorted(names)) == names


def test_names_survive_no_choice_of_a_list_without_them(tmp_path):
    inputs = keras.Input((5,))
    plain = files.filled(keras.Model(inputs, [keras.layers.Dense(n)(inputs) for n in (2, 3)]))
    plain.export(tmp_path / "m", verbose=False)
    teacher = kd.teachers.SavedModelTeacher(tmp_path / "m")
    assert teacher.output_names is None
    for found, expected in zip(teacher(X), plain(X), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    chosen = kd.teachers.SavedModelTeacher(tmp_path / "m", output=1)
    np.testing.assert_allclose(chosen(X), plain(X)[1], rtol=1e-5)


class TestInputs:
    def test_a_file_of_one_row_teaches_batches(self, tmp_path):
        path = files.onnx(tmp_path / "m.onnx", rows=1)
        teacher = kd.teachers.OnnxTeacher(path, output="logits")
        np.testing.assert_allclose(teacher(X), files.classifier()(X), rtol=1e-4, atol=1e-5)
        student = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)])
        distiller = kd.Distiller(teacher, student, kd.losses.RegressionKD(), alpha=0.0, beta=1.0)
        distiller.compile(keras.optimizers.Adam(0.1), None, jit_compile=False)
        history = distiller.fit(X, epochs=10, verbose=0).history["loss"]
        assert history[-1] < 0.8 * history[0]

    def test_real_numbers_are_not_cut_to_ids(self, tmp_path):
        nodes = [
            made.helper.make_node("Cast", ["ids"], ["real"], to=made.FLOAT),
            made.helper.make_node("MatMul", ["real", "w"], ["y"]),
        ]
        path = made.saved(
            tmp_path / "m.onnx",
            nodes,
            [made.value("ids", ["rows", 5], made.INT64)],
            [made.value("y", ["rows", 2])],
            [made.held("w", np.ones((5, 2), "float32"))],
        )
        teacher = kd.teachers.OnnxTeacher(path)
        ids = np.arange(30).reshape(6, 5) % 255
        for given in (ids, ids.astype("float32"), ids.astype("uint8")):
            np.testing.assert_array_equal(teacher(given), ids.sum(1, keepdims=True) * [1, 1])
        with pytest.raises(
            ValueError, match="'ids' is of type int64 .* numbers that are not whole"
        ):
            teacher((ids / 255).astype("float32"))

    def test_names_and_shapes_decide(self, tmp_path):
        nodes = [made.helper.make_node("Sub", ["one", "other"], ["y"])]
        shape = ["rows", 5]
        path = made.saved(
            tmp_path / "m.onnx",
            nodes,
            [made.value("one", shape), made.value("other", shape)],
            [made.value("y", shape)],
        )
        teacher = kd.teachers.OnnxTeacher(path)
        given = {"other": X, "one": 3 * X, "of_the_student_only": X}
        np.testing.assert_allclose(teacher(given), 2 * X, rtol=1e-6)
        with pytest.raises(ValueError, match="cannot be found by their shapes and types"):
            teacher([X, X])
        with pytest.raises(ValueError, match=r"inputs \['one', 'other'\].*\['first', 'second'\]"):
            teacher({"first": X, "second": X})
        renamed = kd.teachers.OnnxTeacher(
            path, preprocess=lambda inputs: {"one": inputs[0], "other": inputs[1]}
        )
        batch = kd.teachers.protocol.TeacherInputs([3 * X, X])
        np.testing.assert_allclose(renamed.predict_batch(batch), 2 * X, rtol=1e-6)

    @pytest.mark.parametrize("kind", FORMATS)
    def test_the_only_input_may_have_another_name(self, makers, model, kind):
        teacher = makers[kind](output="a")
        np.testing.assert_allclose(teacher({"mine": X}), model(X)["a"], rtol=1e-5, atol=1e-6)

    def test_wrong_inputs_raise_before_any_step(self, makers):
        for kind in FORMATS:
            function = tf.function(makers[kind](), autograph=False)
            with pytest.raises(ValueError, match=r"'x' of the file has shape \(None, 5\)"):
                function.get_concrete_function(tf.TensorSpec((None, 4)))


class TestConstants:
    STATE = np.random.default_rng(1).normal(size=(2, 1, 3)).astype("float32")
    SPEECH = np.random.default_rng(2).normal(size=(5, 3)).astype("float32")

    @pytest.fixture
    def teacher(self, tmp_path):
        path = made.recurrent(tmp_path / "r.onnx")
        return kd.teachers.OnnxTeacher(
            path, output="said", constants={"rate": 3, "state": self.STATE}
        )

    def test_what_the_data_does_not_have(self, teacher, tmp_path):
        expected = (self.SPEECH + self.STATE.sum(axis=0)) * 3.0
        np.testing.assert_allclose(teacher(self.SPEECH), expected, rtol=1e-6)
        student = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
        distiller = kd.Distiller(teacher, student, kd.losses.RegressionKD(), alpha=0.0, beta=1.0)
        distiller.compile(keras.optimizers.SGD(0.0), None, jit_compile=False)
        found = distiller.fit(self.SPEECH, batch_size=2, shuffle=False, verbose=0).history["loss"]
        each = ((np.float64(student(self.SPEECH)) - expected) ** 2).mean(axis=1)
        assert found[0] == pytest.approx(each.mean(), rel=1e-4)
        distiller.save(tmp_path / "d.keras")
        again = keras.models.load_model(tmp_path / "d.keras").teacher
        np.testing.assert_allclose(again(self.SPEECH), expected, rtol=1e-6)
        assert again.fingerprint() == teacher.fingerprint()

    def test_another_state_is_another_teacher(self, teacher, tmp_path):
        path = made.recurrent(tmp_path / "r.onnx")
        other = kd.teachers.OnnxTeacher(
            path, output="said", constants={"rate": 3, "state": 2 * self.STATE}
        )
        assert other.fingerprint() != teacher.fingerprint()

    def test_of_a_tflite_file_and_of_a_saved_model(self, tmp_path):
        class Shifted(tf.Module):
            @tf.function(
                input_signature=[
                    tf.TensorSpec((None, 5), name="x"),
                    tf.TensorSpec((2, None, 5), name="state"),
                    tf.TensorSpec((), tf.int32, name="times"),
                ]
            )
            def run(self, x, state, times):
                return {"y": (x + tf.reduce_sum(state, 0)) * tf.cast(times, tf.float32)}

        module = Shifted()
        signatures = {"serving_default": module.run}
        tf.saved_model.save(module, str(tmp_path / "m"), signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "m"))
        (tmp_path / "m.tflite").write_bytes(converter.convert())
        state = np.random.default_rng(1).normal(size=(2, 1, 5)).astype("float32")
        constants = {"state": state, "times": 3}
        teachers = [
            kd.teachers.SavedModelTeacher(tmp_path / "m", "serving_default", constants=constants),
            kd.teachers.TFLiteTeacher(tmp_path / "m.tflite", constants=constants),
        ]
        for teacher in teachers:
            function = tf.function(teacher, autograph=False)
            for call in (teacher, function):
                np.testing.assert_allclose(call(X), (X + state.sum(0)) * 3, rtol=1e-5)
            again = type(teacher).from_config(teacher.get_config())
            np.testing.assert_allclose(again(X), teacher(X))
            with pytest.raises(ValueError, match="and none called 'other'"):
                type(teacher).from_config({**teacher.get_config(), "constants": {"other": 1}})
        with pytest.raises(ValueError, match="those of the function 'run' have none"):
            kd.teachers.SavedModelTeacher(tmp_path / "m", "run", constants=constants)


def test_images_in_the_order_of_the_file(tmp_path):
    made.convolution(tmp_path / "c.onnx")
    images = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype("float32")
    turned = images.transpose(0, 3, 1, 2)
    plain = kd.teachers.OnnxTeacher(tmp_path / "c.onnx", output="maps")
    teacher = kd.teachers.OnnxTeacher(tmp_path / "c.onnx", output="maps", channels_first=True)
    expected = np.asarray(plain(turned)).transpose(0, 2, 3, 1)
    again = kd.teachers.OnnxTeacher.from_config(teacher.get_config())
    function = tf.function(teacher, autograph=False)
    for call in (teacher, again, function):
        np.testing.assert_allclose(call(images), expected, rtol=1e-5)
    spec = function.get_concrete_function(tf.TensorSpec((None, 5, 6, 3))).structured_outputs
    assert tuple(spec.shape) == (None, 5, 6, 4)
    with pytest.raises(ValueError, match="Pass channels_first=True"):
        plain(images)


def test_a_file_that_ends_in_probabilities_is_no_teacher_of_logits(tmp_path):
    softmax = made.helper.make_node("Softmax", ["z"], ["y"])
    path = made.ending(tmp_path / "m.onnx", softmax)
    quantized = files.tflite(
        files.classifier(activation="softmax"), tmp_path / "m.tflite", [files.arrays()[0]]
    )
    for teacher in (kd.teachers.OnnxTeacher(path), kd.teachers.TFLiteTeacher(quantized)):
        assert teacher.last_activation() == "softmax"
        size = 4 if isinstance(teacher, kd.teachers.OnnxTeacher) else 5
        student = keras.Sequential([keras.Input((size,)), keras.layers.Dense(4)])
        with pytest.raises(ValueError, match="ends in softmax"):
            kd.Distiller(teacher, student)
