"""Forms of data, one pass over them, models that stay as they were, and clear errors."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.diagnosis import made_up
from tests.distiller import counters, linear
from tests.distiller.test_teacher_untouched import assert_same_state, state

X, Y = linear.data(700)
W = np.random.default_rng(5).uniform(0, 2, 700).astype("float32")


def run(data, *args, models=None, **kwargs):
    teacher, student = models or linear.pair()
    return kd.diagnose(teacher, student, data, *args, print_fn=None, **kwargs)


def same(a, b):
    assert [f.check for f in a.findings] == [f.check for f in b.findings]
    for left, right in zip(a.findings, b.findings, strict=True):
        assert left.severity == right.severity
        for name, value in left.values.items():
            if isinstance(value, float):
                assert value == pytest.approx(right.values[name], rel=1e-6), (left.check, name)


DATA = {
    "batches of 7": lambda: tf.data.Dataset.from_tensor_slices((X, Y, W)).batch(7),
    "one batch": lambda: tf.data.Dataset.from_tensors((X, Y, W)),
    "labels in a column": lambda: (X, Y[:, None], W[:, None]),
    "one-hot": lambda: (X, np.eye(linear.CLASSES)[Y], W),
    "smoothed": lambda: (X, 0.9 * np.eye(linear.CLASSES, dtype="float32")[Y] + 0.025, W),
    "whole numbers as floats": lambda: (X, Y.astype("float32"), W),
    "float64": lambda: (X.astype("float64"), Y, W.astype("float64")),
}


@pytest.mark.parametrize("name", DATA)
def test_forms_of_data_give_the_same(name):
    same(run((X, Y, W)), run(DATA[name]()))


def test_weight_zero_is_no_row():
    weights = np.where(np.arange(700) % 3, 1.0, 0.0)
    x = X.copy()
    x[::3] = np.nan  # as padding may be
    same(run((x, Y, weights)), run((X[weights > 0], Y[weights > 0])))


def test_sequences_count_by_position():
    logits, labels = made_up.calibrated(120, classes=4)
    weights = np.ones((30, 4))
    weights[:, 3] = 0
    shaped = logits.reshape(30, 4, 4), labels.reshape(30, 4), weights
    flat = kd.diagnose(lambda x: x, None, (logits, labels, weights.ravel()), print_fn=None)
    same(flat, kd.diagnose(lambda x: x, None, shaped, print_fn=None))


def test_inputs_in_a_dict():
    inputs = {"a": keras.Input((5,), name="a"), "b": keras.Input((5,), name="b")}
    outputs = keras.layers.Dense(4)(keras.layers.Add()([inputs["a"], inputs["b"]]))
    teacher = keras.Model(inputs, outputs)
    found = kd.diagnose(teacher, None, ({"a": X, "b": X}, Y), print_fn=None)
    expected = kd.diagnose(lambda x: teacher({"a": x, "b": x}), None, (X, Y), print_fn=None)
    same(found, expected)


def test_each_model_runs_once_over_each_set_of_data():
    teacher, student = counters.model(), counters.model()
    counters.reset(teacher), counters.reset(student)
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(100)
    run(batches, (X[:300], Y[:300]), models=(teacher, student))
    symbolic = 2  # passes without data, which tell what does not fit before any work
    assert counters.calls(teacher) == counters.calls(student) == 7 + 2 + symbolic


def test_the_data_is_read_once():
    read = []

    def rows():
        read.append(1)
        yield from zip(X, Y, strict=True)

    signature = tf.TensorSpec((5,), tf.float32), tf.TensorSpec((), tf.int64)
    run(tf.data.Dataset.from_generator(rows, output_signature=signature).batch(64))
    assert len(read) == 1


def test_the_models_stay_as_they_were():
    teacher, student = counters.model(), counters.model()
    teacher.get_layer("head").trainable = False
    before = state(teacher), state(student)
    run((X, Y), (X, Y), models=(teacher, student))
    assert_same_state(teacher, before[0])
    assert_same_state(student, before[1])
    assert teacher.predict_function is None


def test_the_teachers_inputs_are_preprocessed():
    teacher, student = linear.pair()
    scaled = kd.diagnose(
        *(teacher, student, (X, Y)), teacher_preprocess=lambda x: 0.1 * x, print_fn=None
    )
    plain = kd.diagnose(lambda x: teacher(0.1 * x), student, (X, Y), print_fn=None)
    left, right = (made_up.finding(d, "calibration").values for d in (scaled, plain))
    assert left == pytest.approx(right)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        models = linear.pair()
    finally:
        keras.config.set_dtype_policy("float32")
    assert models[0](X[:1]).dtype != "float32"
    values = [
        made_up.finding(run((X, Y), models=each), "accuracy").values["accuracy"]
        for each in (models, linear.pair())
    ]
    assert values[0] == pytest.approx(values[1], abs=0.02)


def test_the_table_and_json_hold_everything(capsys):
    diagnosis = kd.diagnose(*linear.pair(), (X, Y), verbose=0)
    assert capsys.readouterr().out == ""  # once, by `print`
    table = str(diagnosis)
    for finding in diagnosis.findings:
        assert finding.check in table
        assert finding.message.split()[-1] in table
    assert max(map(len, table.splitlines())) <= 100
    loaded = json.loads(diagnosis.to_json())
    assert loaded["temperature"] == diagnosis.temperature
    assert [each["check"] for each in loaded["findings"]] == [f.check for f in diagnosis.findings]
    assert loaded["findings"][2]["values"]["accuracy"] == pytest.approx(
        made_up.finding(diagnosis, "accuracy").values["accuracy"]
    )
    lines = []
    kd.diagnose(*linear.pair(), (X, Y), print_fn=lines.append)
    assert lines == [str(diagnosis)]
    with pytest.raises(ValueError, match="`print_fn`.*a function of .text., or None.*'print'"):
        kd.diagnose(*linear.pair(), (X, Y), print_fn="print")


def test_json_of_numbers_that_are_not_finite():
    finding = kd.diagnosis.Finding("a", "ok", "b", values={1: [float("nan"), float("inf"), 2.0]})
    loaded = json.loads(kd.diagnosis.Diagnosis([finding]).to_json())
    assert loaded["findings"][0]["values"] == {"1": [None, None, 2.0]}


def test_an_unknown_severity():
    with pytest.raises(ValueError, match="severity='bad'"):
        kd.diagnosis.Finding("a", "bad", "b")


def two_outputs():
    inputs = keras.Input((5,))
    return keras.Model(inputs, [keras.layers.Dense(4)(inputs) for _ in range(2)])


DATASET = tf.data.Dataset.from_tensor_slices((X, Y))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y[:-1]), r"`data` must have one length.* \[699, 700\] samples"),
        ((X, 3), r"`data` holds 3 of type int where an array is expected.*np.asarray\(x\)"),
        ((X[:0], Y[:0]), "must have one length, above 0"),
        (X, "must be a tf.data.Dataset of batches .* Received: ndarray"),
        ((X,), "must be a tf.data.Dataset of batches .* Received: tuple"),
        (DATASET.map(lambda x, y: x).batch(4), "must be a tf.data.Dataset .* a dataset of"),
        (DATASET, r"a dataset of single samples. Call .batch\(256\)"),
        (DATASET.batch(4).repeat(), r"never ends. Limit it: .take"),
        ((X, None), r"`data` has no labels: \(inputs, None\). Pass \(inputs, labels\)"),
        ((X, X[:, 0]), r"no labels of a classifier .* shape \(700,\), float32"),
        (
            (X, X[:, :3]),
            r"no labels of a classifier .* shape \(700, 3\), float32. Regression and multi-label",
        ),
        ((X, np.ones((700, 4))), "multi-label"),
        ((X, Y.astype(str)), "no labels of a classifier"),
        ((X, {"a": Y}), r"no labels of a classifier .*'a'"),
        ((X, np.full(700, -1)), "no row with a label"),
        ((X, Y, np.zeros(700)), "no row with a label"),
        ((X, Y, -np.ones(700)), "sample weights of `data` must be finite and at least 0"),
        ((X, Y, np.ones((700, 2))), r"sample weights of `data` have shape \(700, 2\)"),
    ],
)
def test_data_that_cannot_be_diagnosed(data, message):
    with pytest.raises(ValueError, match=message):
        run(data)
    if "`data`" in message:
        with pytest.raises(ValueError, match=message.replace("`data`", "`validation_data`")):
            run((X, Y), data)


@pytest.mark.parametrize(
    ("teacher", "student", "message"),
    [
        (two_outputs, None, "teacher has 2 outputs in a list.*keras.Model"),
        (None, two_outputs, "student has 2 outputs"),
        (lambda: linear.linear(1, classes=1), None, "teacher gives outputs of shape .*regression"),
        (lambda: "teacher", None, "`teacher`"),
        (lambda: keras.Model, None, "`teacher`"),
    ],
)
def test_models_that_cannot_be_diagnosed(teacher, student, message):
    given = (teacher or (lambda: linear.linear(1)))(), (student or (lambda: linear.linear(2)))()
    with pytest.raises(ValueError, match=message):
        kd.diagnose(*given, (X, Y))
    if teacher is not None:
        with pytest.raises(ValueError, match=message):
            kd.diagnose(given[0], None, (X, Y))


def test_a_student_of_other_positions():
    teacher, student = linear.pair()
    with pytest.raises(ValueError, match="student gives 256 rows of outputs where the teacher"):
        kd.diagnose(lambda x: tf.stack([teacher(x)] * 2, axis=1), student, (X, np.stack([Y, Y], 1)))


def test_a_model_cannot_teach_itself():
    model = linear.linear(1)
    with pytest.raises(ValueError, match="same model"):
        kd.diagnose(model, model, (X, Y))


def test_a_bad_temperature():
    with pytest.raises(ValueError, match="temperature=-1"):
        run((X, Y), temperature=-1)


def test_many_classes_keep_no_matrix():
    classes = 5000
    labels = np.arange(64)
    logits = made_up.answers(labels, classes, 1.0)
    diagnosis = made_up.diagnose(logits, labels)
    assert made_up.finding(diagnosis, "class order").severity == "note"
    assert "5000 classes are too many" in made_up.finding(diagnosis, "class order").message
