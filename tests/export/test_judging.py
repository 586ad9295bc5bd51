"""Files are judged by what their outputs are: classes, yes or no, several labels, numbers."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_kd as kd
from keras_kd.export import comparison, judging
from keras_kd.export.student import ExportError


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def student(classes=1, activation=None, seed=0):
    keras.utils.set_random_seed(seed)
    stack = [keras.Input((8,), name="x"), layers.Dense(16, activation="relu")]
    return keras.Sequential([*stack, layers.Dense(classes, activation=activation, name="y")])


def int8(tmp_path, made, x, **options):
    options = {"route": "edge_quantizer", "overwrite": True, **options}
    path = tmp_path / "s.tflite"
    return kd.export.to_tflite(made, path, "int8", representative_data=x, **options)


def with_an_outlier():
    x = normal(64, 8)
    x[17] *= 3000
    return x


def said(made, values, **options):
    return judging.judge_outputs(made, ["y"], [values], **options).outputs[0]


def of_shape(*shape, activation=None, dtype="float32"):
    """A model that gives a shape, and values of it."""
    inputs = keras.Input(shape)
    outputs = layers.Activation(activation)(inputs) if activation else layers.Rescaling(1)(inputs)
    return keras.Model(inputs, outputs), normal(6, *shape).astype(dtype)


class TestTasks:
    @pytest.mark.parametrize(
        ("shape", "activation", "task", "is_assumed"),
        [
            ((4,), "softmax", "multiclass", False),
            ((8, 8, 3), "softmax", "multiclass", False),
            ((4,), None, "multiclass", True),
            ((5, 4), None, "multiclass", True),
            ((4,), "tanh", "regression", True),
            ((4,), "relu", "regression", True),
            ((1,), None, "regression", True),
            ((1,), "sigmoid", "binary", True),
            ((4,), "sigmoid", "multilabel", True),
            ((8, 8, 1), "sigmoid", "regression", True),
            ((8, 8, 3), None, "regression", True),
        ],
    )
    def test_without_labels(self, shape, activation, task, is_assumed):
        found = said(*of_shape(*shape, activation=activation))
        assert (found.task, found.is_assumed) == (task, is_assumed)

    @pytest.mark.parametrize(
        ("shape", "labels", "task"),
        [
            ((4,), np.array([0, 1, 2, 3, 0, 1]), "multiclass"),
            ((4,), np.array([[0], [1], [2], [3], [0], [1]]), "multiclass"),
            ((4,), np.eye(4)[[0, 1, 2, 3, 0, 1]], "multiclass"),
            ((4,), normal(6, 4), "regression"),
            ((4,), np.array([[0, 1, 1, 0]] * 6), "multilabel"),
            ((1,), np.array([0, 1, 1, 0, 0, 1]), "binary"),
            ((1,), np.array([[0], [1], [1], [0], [0], [1]]), "binary"),
            ((1,), normal(6), "regression"),
            ((8, 8, 3), normal(6, 8, 8, 3), "regression"),
            ((8, 8, 3), np.arange(6 * 64).reshape(6, 8, 8) % 3, "multiclass"),
            ((8, 8, 3), np.arange(6 * 64).reshape(6, 8, 8, 1) % 3, "multiclass"),
        ],
    )
    def test_of_labels(self, shape, labels, task):
        found = said(*of_shape(*shape), labels=labels)
        assert (found.task, found.is_assumed) == (task, False)

    def test_bounds_tell(self):
        made, values = of_shape(8, 8, 3)
        bounds = judging.Bounds(min_agreement=0.9)
        assert said(made, values, bounds=bounds).task == "multiclass"
        bounds = judging.Bounds(max_error=0.1)
        assert said(*of_shape(4), bounds=bounds).task == "regression"
        bounds = judging.Bounds(min_agreement=0.9)
        assert said(*of_shape(1), bounds=bounds).task == "binary"

    def test_whole_numbers_are_classes(self):
        made, values = of_shape(4, dtype="int64")
        assert said(made, values).are_indices
        assert said(made, values, labels=values).labels.shape == (24,)

    def test_each_output_has_its_own(self):
        inputs = keras.Input((8,))
        made = keras.Model(inputs, {"a": layers.Dense(3)(inputs), "b": layers.Dense(1)(inputs)})
        values = [normal(6, 3), normal(6, 1)]
        labels = {"a": np.zeros(6, int), "b": np.array([0, 1] * 3)}
        found = judging.judge_outputs(made, ["a", "b"], values, labels)
        assert found.tasks == {"a": "multiclass", "b": "binary"}
        assert found.assumed == []
        found = judging.judge_outputs(made, ["a", "b"], values, task={"a": "regression"})
        assert found.tasks == {"a": "regression", "b": "regression"}
        assert found.assumed == ["b"]

    def test_optional_labels_that_do_not_fit_are_ignored(self):
        made, values = of_shape(4)
        found = said(made, values, labels=np.zeros((6, 7)), labels_must_fit=False)
        assert found.is_assumed
        assert found.labels is None
        with pytest.raises(ValueError, match="do not belong to outputs"):
            said(made, values, labels=np.zeros((6, 7)))


class TestFigures:
    """Against float64, written out."""

    def test_the_error_leaves_the_farthest_tenth_out(self):
        expected = normal(50, 4)
        found = expected + 0.1 * normal(50, 4, seed=1)
        expected[[3, 9]] *= 100
        wide = expected.astype(np.float64)
        far = np.square(wide - wide.mean(0)).mean(1)
        kept = np.argsort(far)[:46]  # the last of the nearest nine tenths lies between two
        truth = np.sqrt(
            np.square(found.astype(np.float64) - wide)[kept].mean() / wide[kept].var(0).mean()
        )
        value = comparison.error(judging.Output("y", "regression"), found, expected)
        assert value == pytest.approx(truth, rel=1e-6)
        assert value < 0.2

    def test_a_constant_is_off_by_a_deviation_at_least(self):
        expected = normal(64, 3)
        found = np.broadcast_to(expected.mean(0), expected.shape)
        value = comparison.error(judging.Output("y", "regression"), found, expected)
        assert value == pytest.approx(1.0, abs=0.02)

    def test_probabilities_that_say_the_same_are_not_far_off(self):
        expected = (0.999 + 1e-4 * normal(64, 1)).clip(0, 1)
        found = np.full_like(expected, 255 / 256)
        yes = judging.Output("y", "binary", are_shares=True)
        assert comparison.error(yes, found, expected) < 0.2

    def test_logits_far_from_the_threshold_neither(self):
        expected = 10 + 0.01 * normal(64, 1)
        found = np.round(expected / 0.04) * 0.04
        assert comparison.error(judging.Output("y", "binary"), found, expected) < 0.05

    @pytest.mark.parametrize(("are_shares", "threshold"), [(False, 0.0), (True, 0.5)])
    def test_yes_and_no(self, are_shares, threshold):
        expected = threshold + 0.2 * normal(40, 1)
        found = threshold + 0.2 * normal(40, 1, seed=4)
        output = judging.Output("y", "binary", are_shares=are_shares)
        same, chance = comparison.agreement(output, found, expected)
        p, q = np.mean(found > threshold), np.mean(expected > threshold)
        assert same == np.mean((found > threshold) == (expected > threshold))
        assert chance == pytest.approx(p * q + (1 - p) * (1 - q))

    def test_accuracies_are_those_of_measure(self):
        x, made = normal(60, 8), student(3, "sigmoid")
        labels = (normal(60, 3, seed=8) > 0).astype(int)
        values = np.asarray(made(x))
        output = said(made, values, labels=labels)
        truth = kd.measure(made, (x, labels), from_logits=False, latency=False).quality["accuracy"]
        assert comparison.accuracy(output, values) == pytest.approx(truth)

    def test_rows_without_a_label_do_not_count(self):
        made, values = of_shape(4)
        labels = values.argmax(-1)
        labels[2:] = -1
        labels[1] = (labels[1] + 1) % 4
        assert comparison.accuracy(said(made, values, labels=labels), values) == 0.5


class TestFiles:
    @pytest.mark.parametrize(
        ("classes", "activation"),
        [(1, None), (1, "sigmoid"), (4, None), (3, "sigmoid"), (6, "tanh")],
    )
    def test_an_outlier_that_took_the_range_is_found(self, tmp_path, classes, activation):
        made = student(classes, activation)
        with pytest.raises(ExportError, match="Sample 17 of .* goes to .*leave it"):
            int8(tmp_path, made, with_an_outlier())
        assert not list(tmp_path.iterdir())
        x = np.delete(with_an_outlier(), 17, axis=0)  # the remedy
        assert int8(tmp_path, made, x).error < 0.1

    def test_outliers_are_noted_where_the_file_is_not_refused(self, tmp_path):
        x = normal(64, 8)
        x[17] *= 60
        done = int8(tmp_path, student(3), x, task="regression", max_error=5)
        assert any("Sample 17 of `representative_data`" in note for note in done.notes)
        with pytest.raises(ValueError, match="but `data` has .* Sample 17 of"):
            int8(tmp_path, student(3), with_an_outlier(), data=normal(30, 8))
        assert int8(tmp_path, student(3), normal(64, 8)).notes == []

    def test_a_constant_answer_is_no_agreement(self, tmp_path):
        # Nine of ten rows are yes: a file that says yes throughout agrees with these.
        made = student(1, "sigmoid")
        values = made(normal(64, 8))
        made.layers[-1].bias.assign([2.0 - np.quantile(np.log(values / (1 - values)), 0.1)])
        with pytest.raises(ExportError, match="Sample 17|side of 0.5"):
            int8(tmp_path, made, with_an_outlier(), task="binary")

    def test_one_sigmoid(self, tmp_path):
        x, made = normal(64, 8), student(1, "sigmoid")
        yes = np.asarray(made(x))[:, 0] > 0.5
        labels = yes.astype(int)
        labels[:6] = 1 - labels[:6]
        for given in (labels, labels[:, None]):
            done = int8(tmp_path, made, x, data=(x, given), max_accuracy_drop=0.1)
            assert done.tasks == {"y": "binary"}
            assert done.model_accuracy == 58 / 64
            found = kd.measurement.runtimes.TFLiteFile(done.path).run(x)[0][:, 0] > 0.5
            assert done.agreement == np.mean(found == yes)
            assert done.accuracy == np.mean(found == labels)
            assert "compared as y: binary" in str(done)

    def test_a_gray_picture(self, tmp_path):
        inputs = keras.Input((8, 8, 3))
        kernels = [keras.initializers.Constant(1 / 3 + each) for each in (0, 1e-4, -1e-4)]
        gray = [layers.Conv2D(1, 1, use_bias=False, kernel_initializer=k)(inputs) for k in kernels]
        made = keras.Model(inputs, layers.Concatenate(name="gray")(gray))
        x = np.random.default_rng(0).uniform(0, 1, (32, 8, 8, 3)).astype("float32")
        done = int8(tmp_path, made, x)
        assert (done.tasks, done.supposed) == ({"gray": "regression"}, ["gray"])
        assert done.agreement is None
        assert done.error < 0.02
        assert int8(tmp_path, made, x, data=(x, x)).supposed == []

    def test_three_numbers_are_no_classes(self, tmp_path):
        x, made = normal(64, 8), student(3)
        targets = np.asarray(made(x)) + 0.1
        done = int8(tmp_path, made, x, data=(x, targets), max_error=0.1)
        assert done.tasks == {"y": "regression"}
        assert done.accuracy is done.agreement is None
        with pytest.raises(ExportError, match="max_error is 0.0001"):
            int8(tmp_path, made, x, data=(x, targets), max_error=1e-4)

    def test_notes_name_outputs_that_are_far_off(self):
        output = judging.Output("y", "multiclass")
        found = comparison.Comparison(64, (comparison.Figures(output, 0.4, 0.75, 0.1),), 1.0, 1.0)
        assert "has the model's class in 75.0% of the samples" in next(comparison.notes(found))

    def test_a_student_that_is_broken(self, tmp_path):
        made = student(3)
        made.layers[-1].bias.assign([np.nan, 0, 0])
        with pytest.raises(ValueError, match="itself gives NaN, in outputs"):
            kd.export.to_tflite(made, tmp_path / "s.tflite", data=normal(20, 8))


class TestOnnx:
    def test_an_outlier_that_took_the_range_is_found(self, tmp_path):
        for classes in (1, 4):
            with pytest.raises(ExportError, match="Sample 17 of `representative_data`"):
                kd.export.to_onnx(
                    student(classes),
                    tmp_path / "s.onnx",
                    quantization="int8",
                    representative_data=with_an_outlier(),
                )
        assert not list(tmp_path.iterdir())

    def test_yes_or_no_and_numbers(self, tmp_path):
        x, made = normal(64, 8), student(1, "sigmoid")
        labels = (np.asarray(made(x)) > 0.5).astype(int)
        done = kd.export.to_onnx(made, tmp_path / "s.onnx", data=(x, labels))
        assert done.tasks == {"y": "binary"}
        assert done.accuracy == done.model_accuracy == done.agreement == 1.0
        done = kd.export.to_onnx(
            student(3), tmp_path / "s.onnx", data=x, task="regression", overwrite=True
        )
        assert done.agreement is None
        assert done.error < 1e-5
        assert "y: regression" in str(done)
