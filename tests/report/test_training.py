"""The trainings of `kd.report`: alike in all but the teacher."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd.reporting import request
from keras_kd.runtimes import TFLiteFile
from tests import extras
from tests.report import tiny


@pytest.fixture
def small():
    """Rows that suffice to call everything."""
    (x, y), _ = tiny.digits()
    return x[:100], y[:100]


def report(rows, **changes):
    arguments = {
        "make_student": tiny.student,
        "train": tiny.fit_briefly,
        "seeds": 1,
        "data": rows,
        "latency": False,
        "verbose": False,
    }
    return kd.report(**{"teacher": tiny.teacher(), **arguments, **changes})


def test_paired_students_start_from_equal_weights(small):
    seen = []

    def train(model):
        student = model.student if isinstance(model, kd.Distiller) else model
        seen.append((type(model), student, student.get_weights(), float(keras.random.uniform(()))))
        tiny.fit_briefly(model)

    generator = np.random.default_rng(0)

    def make_student():
        # Random numbers that no seed of Keras rules.
        model = tiny.student()
        model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
        return model

    found = report(small, train=train, make_student=make_student, seeds=2)
    types, students, weights, _ = zip(*seen, strict=True)
    assert types == (keras.Sequential, kd.Distiller) * 2
    for one, other in ((0, 1), (2, 3)):
        for a, b in zip(weights[one], weights[other], strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.allclose(weights[0][0], weights[2][0])
    assert found.baselines == [students[0], students[2]]
    assert found.students == [students[1], students[3]]
    assert "equally long" not in found.verdict


def test_seeds_are_set_before_each_training(small):
    drawn = []

    def train(model):
        drawn.append(float(np.random.uniform()))
        tiny.fit_briefly(model)

    def make_student():
        np.random.uniform(size=3)
        return tiny.student()

    report(small, train=train, make_student=make_student, seeds=(5, 6))
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]


def test_teacher_is_unchanged(small):
    before = [np.copy(weight) for weight in tiny.teacher().get_weights()]
    flags = [layer.trainable for layer in tiny.teacher().layers]
    report(small)
    for one, other in zip(before, tiny.teacher().get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert flags == [layer.trainable for layer in tiny.teacher().layers]


def test_custom_distiller(small):
    def distiller(teacher, student):
        return kd.Distiller(teacher, student, kd.losses.LogitsMSE(), alpha=0.0, beta=1.0)

    made = []

    def train(model):
        made.append(model)
        tiny.fit_briefly(model)

    report(small, distiller=distiller, train=train)
    assert made[1].alpha == 0.0


def test_unequal_training_budgets_are_reported(small):
    def train(model):
        tiny.fit_briefly(model, epochs=2 if isinstance(model, kd.Distiller) else 1)

    found = report(small, train=train, seeds=(3,))
    assert (
        "The students were not trained equally long (seed 3: 1 epoch (2 steps) with labels only, "
        "2 epochs (4 steps) with the teacher)."
    ) in found.verdict


def test_students_are_saved_in_directory(small, tmp_path):
    found = report(small, directory=tmp_path / "models", seeds=(4, 7))
    names = {path.name for path in (tmp_path / "models").iterdir()}
    assert names == {
        f"{what}-{seed}.keras" for what in ("distilled", "labels-only") for seed in (4, 7)
    }
    loaded = keras.saving.load_model(tmp_path / "models" / "distilled-7.keras")
    x = small[0][:5]
    np.testing.assert_allclose(loaded(x), found.students[1](x), rtol=1e-6)


def test_stale_export_files_are_replaced(small, tmp_path):
    extras.require("ai_edge_litert")
    options = {"directory": tmp_path, "seeds": (1,)}
    for _ in range(2):  # the example's function, which replaces no file
        found = report(small, exports={"float": kd.export.to_tflite}, **options)
    x = small[0][:5]
    (file,) = tmp_path.glob("float-*.tflite")
    expected = found.students[0].predict(x, verbose=0)
    np.testing.assert_allclose(TFLiteFile(file).run(x)[0], expected, atol=1e-5)
    with pytest.raises(ValueError, match="wrote no file"):
        report(small, exports={"float": lambda student, path: None}, **options)


def test_probability_teacher_and_logit_student(small):
    softmax = keras.Sequential([tiny.teacher(), keras.layers.Softmax()])
    found = report(
        small,
        distiller=lambda teacher, student: kd.Distiller(tiny.teacher(), student),
        teacher_from_logits=False,
        teacher=softmax,
    )
    plain = report(small)
    sides = [each.comparison.teacher.measurements[0].quality for each in (found, plain)]
    assert sides[0] == pytest.approx(sides[1], rel=1e-4)


def test_lambda_teacher(small):
    found = report(small, teacher=lambda x: tiny.teacher()(x))
    measured = found.comparison.teacher.measurements[0]
    assert measured.quality["accuracy"] > 0.9
    assert "parameters" not in measured.size  # they are not 0
    assert any(note.startswith("size: left out") for note in measured.notes)


def test_multi_output_student_single_output_teacher(small):
    def student():
        inputs = keras.Input((64,))
        logits = keras.layers.Dense(10, name="logits")(inputs)
        return keras.Model(inputs, {"logits": logits, "twice": 2 * logits})

    options = {"output": "logits", "latency": False, "verbose": False}
    found = kd.report(tiny.teacher(), student(), student(), data=small, **options)
    assert found.comparison.teacher.measurements[0].quality["accuracy"] > 0.9
    assert found.comparison.student.measurements[0].teacher["agreement"] < 1


def test_invalid_slices_raise_before_training(small):
    def train(model):
        pytest.fail("trained before the slices were looked at")

    with pytest.raises(ValueError, match="has 7 values, but the test data have 100 samples"):
        report(small, train=train, slices=np.zeros(7))
    with pytest.raises(ValueError, match="has 50 values, but the test data have 100 samples"):
        report(small, train=train, slices=np.arange(50) % 2)


def test_invalid_data_and_files_raise_before_training(small, tmp_path):
    def train(model):
        pytest.fail("trained before the arguments were looked at")

    shuffled = tf.data.Dataset.from_tensor_slices(small).shuffle(100).batch(25)
    with pytest.raises(ValueError, match="gives other samples when it is read again"):
        report(shuffled, train=train)
    once = tf.data.Dataset.from_tensor_slices(small).shuffle(100, reshuffle_each_iteration=False)
    with pytest.raises(pytest.fail.Exception):
        report(once.batch(25), train=train)
    for labels in (np.where(small[1] == 3, np.nan, small[1]), tf.ragged.range(small[1])):
        data = tf.data.Dataset.from_tensor_slices((small[0], labels)).batch(25)
        request.require_same_order(data)
    for name, message in (("a.txt", "a .tflite, .onnx or .keras file"), ("a.tflite", "a.tflite")):
        (tmp_path / name).write_text("no model")
        with pytest.raises(ValueError, match=rf"exports\['int8'\]: .*{message}"):
            report(small, train=train, seeds=1, exports={"int8": tmp_path / name})
    for wrong in ({"title": 5}, {"latency": "no"}, {"seeds": True}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
            report(small, train=train, **wrong)


def test_progress(small, capsys):
    report(small, seeds=(8, 9), verbose=2)
    lines = capsys.readouterr().out.splitlines()
    expected = [
        "measuring teacher",
        "seed 8: training with labels only",
        "seed 8: training with the teacher",
        "seed 9: training with labels only",
        "seed 9: training with the teacher",
        "measuring labels only (1 of 2)",
        "measuring labels only (2 of 2)",
        "measuring distilled (1 of 2)",
        "measuring distilled (2 of 2)",
    ]
    steps = [line for line in lines if line.startswith("report ")]
    assert [line.split(" - ")[0] for line in steps] == [
        f"report {i}/9: {words}" for i, words in enumerate(expected, 1)
    ]
    assert lines.count("report: seed 9: trained for 1 epoch (2 steps)") == 2
    (left,) = [line for line in lines if "left" in line]
    assert left.startswith("report: 1 of 2 seeds done - about ")


def no_training(model):
    del model


def no_file(student, path):
    del student, path


SAME = tiny.student()


def other_shapes(widths=None):
    widths = iter([4, 8] * 10) if widths is None else widths
    return lambda: tiny.network(next(widths))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": None}, "`train`. Expected a function; `make_student` and `train` go together"),
        ({"make_student": tiny.student()}, "`make_student`. Expected a function"),
        ({"make_student": lambda: 3}, "must return a keras.Model. Received: 3"),
        ({"make_student": lambda: SAME}, "same model twice"),
        ({"make_student": other_shapes()}, "different architectures"),
        (
            {"make_student": lambda: keras.Sequential([keras.layers.Dense(10)], name="bare")},
            "returned 'bare', which has no weights yet",
        ),
        ({"train": no_training}, "left all weights of 'width_8' as they were"),
        ({"distiller": lambda teacher, student: None}, "`distiller` must return what trains"),
        ({"distiller": 3}, "`distiller`. Expected a function of"),
        ({"seeds": 0}, "`seeds`. Expected different integers"),
        ({"seeds": (1, 1)}, "`seeds`. Expected different integers"),
        ({"student": tiny.student()}, "Pass either student= and baseline=, or make_student="),
        ({"exports": {"int8": ["a", "b"]}}, "there is no file 'a'"),
        ({"exports": {"teacher": no_training}}, "none of .*Received: exports='teacher'"),
        ({"exports": {"int8": 3}}, r"exports\['int8'\]`. Expected a file"),
        ({"exports": [1]}, "`exports`. Expected a dict"),
        ({"exports": {"w 1": no_file, "w+1": no_file}}, "names whose letters"),
        ({"exports": {"int8": lambda student, path: None}}, "wrote no file"),
        ({"slices": np.zeros((2, 2))}, "one value for each sample"),
        ({"data": None}, "`data` is missing"),
        ({"data": np.zeros(3)}, "`data` must be a tf.data.Dataset"),
        ({"metric": "color"}, "`metric`. Expected one of"),
        ({"class_names": ["a"]}, "1 names; the model has 10 classes"),
    ],
)
def test_bad_input(small, changes, message):
    with pytest.raises(ValueError, match=message):
        report(small, **changes)


def test_unknown_options(small):
    with pytest.raises(TypeError, match=r"unexpected arguments \['lateny'\]"):
        report(small, lateny=False)


def test_invalid_options_raise_before_training(small):
    def train(model):
        pytest.fail("trained before the data were looked at")

    with pytest.raises(ValueError, match="1 names; the model has 10 classes"):
        report(small, train=train, class_names=["a"])
    with pytest.raises(ValueError, match="`metric`"):
        report(small, train=train, metric="color")
    with pytest.raises(ValueError, match="softmax|probabilities"):
        report(small, train=train, from_logits=False)
