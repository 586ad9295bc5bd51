"""`LearningWithoutForgetting`: against NumPy in float64, and a student that does not forget."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests import extras, reference
from tests.distiller import linear
from tests.losses import checks

LWF = kd.losses.LearningWithoutForgetting
STUDENT_MASK = [False, True, True, False, True, False, False]
# Arguments, classes of teacher and student, and which of them in pairs.
CASES = {
    "the first": ({}, (4,), (7,), [0, 1, 2, 3], [0, 1, 2, 3]),
    "all": ({"temperature": 3.0}, (4,), (4,), [0, 1, 2, 3], [0, 1, 2, 3]),
    "another order": ({"student_classes": [5, 0, 3, 1]}, (4,), (7,), [0, 1, 2, 3], [5, 0, 3, 1]),
    "in the middle": ({"student_classes": [2, 3, 4, 5]}, (4,), (7,), [0, 1, 2, 3], [2, 3, 4, 5]),
    "some of the teacher": ({"teacher_classes": [3, 1]}, (4,), (3,), [3, 1], [0, 1]),
    "masks": (
        {"student_classes": STUDENT_MASK, "teacher_classes": [True, False, True, True]},
        *((4,), (7,), [0, 2, 3], [1, 2, 4]),
    ),
    "sequences": ({"student_classes": [4, 2]}, (3, 2), (3, 5), [0, 1], [4, 2]),
}


def truth(temperature, of_teacher, of_student):
    def value(t, s):
        return reference.soft_target_loss(s[..., of_student], t[..., of_teacher], temperature)

    return value


@pytest.mark.parametrize("mode", checks.MODES)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, mode):
    arguments, teacher, student, *pairs = CASES[name]
    expected = truth(arguments.get("temperature", 2.0), *pairs)
    shapes = [(5, *shape) for shape in (teacher, student)]
    checks.values_and_gradients(lambda: LWF(**arguments), expected, *shapes, mode)


@pytest.mark.parametrize("name", CASES)
def test_other_classes_get_no_gradient(name):
    arguments, teacher, student, _, of_student = CASES[name]
    logits = tf.Variable(checks.normal(5, *student, seed=2))
    with tf.GradientTape() as tape:
        value = LWF(**arguments)(checks.normal(5, *teacher, seed=1), logits)
    gradient = tf.convert_to_tensor(tape.gradient(value, logits)).numpy()
    others = np.setdiff1d(np.arange(student[-1]), of_student)
    np.testing.assert_array_equal(gradient[..., others], 0.0)
    assert (gradient[..., of_student] != 0).all()


def test_zero_where_the_shared_classes_are_equal():
    checks.zero_at_equality(LWF, (5, 6))
    teacher = checks.normal(5, 4)
    student = np.concatenate([checks.normal(5, 3, seed=9), teacher[:, ::-1] + 7.0], axis=-1)
    loss = LWF(student_classes=[6, 5, 4, 3])
    np.testing.assert_allclose(loss(teacher, student), np.zeros(5), atol=3e-7)


def test_finite_at_zero():
    checks.finite_at_zero(LWF, (5, 4), (5, 6))


def test_the_temperature_is_live():
    loss = LWF(temperature=1.0)
    teacher, student = checks.normal(5, 4, seed=1), checks.normal(5, 6, seed=2)
    loss(teacher, student)
    loss.temperature = 5.0
    expected = reference.soft_target_loss(student[:, :4], teacher, 5.0)
    np.testing.assert_allclose(loss(teacher, student), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "classes",
    [[0], [0, 0], [-1, 2], [0.5, 1.0], [[0, 1]], [True, False], "ab", 3, []],
    ids=str,
)
@pytest.mark.parametrize("name", ["student_classes", "teacher_classes"])
def test_bad_lists(name, classes):
    with pytest.raises(ValueError, match=f"`{name}`. Expected a list of at least two different"):
        LWF(**{name: classes})


def test_lists_of_different_lengths():
    with pytest.raises(ValueError, match=r"3 of the student .*\[0, 1, 2\]\) and 2 of the teacher"):
        LWF(student_classes=[0, 1, 2], teacher_classes=[True, False, True])


def test_a_bad_temperature():
    with pytest.raises(ValueError, match="temperature=0"):
        LWF(temperature=0)


@pytest.mark.parametrize(
    ("arguments", "teacher", "student", "message"),
    [
        ({}, (2, 5), (2, 4), "the student has 4 classes, fewer than the 5 of the teacher"),
        ({"student_classes": [0, 4]}, (2, 2), (2, 4), r"names class 4, but the student has 4"),
        ({"teacher_classes": [0, 2]}, (2, 2), (2, 4), r"names class 2, but the teacher has 2"),
        ({"student_classes": [True] * 3}, (2, 3), (2, 4), "has 3 booleans, but the student has 4"),
        ({"student_classes": [0, 1]}, (2, 3), (2, 4), r"2 of the student .* and 3 of the teacher"),
        ({}, (2, 3, 4), (2, 4), r"teacher \(2, 3, 4\), student \(2, 4\)"),
        ({}, (2, 3, 4), (2, 2, 4), r"teacher \(2, 3, 4\), student \(2, 2, 4\)"),
    ],
)
def test_classes_that_do_not_fit(arguments, teacher, student, message):
    with pytest.raises(ValueError, match=message):
        LWF(**arguments)(np.ones(teacher), np.ones(student))


def test_too_few_classes_raise_when_the_distiller_is_built():
    with pytest.raises(ValueError, match="student has 4 classes, fewer than the 6"):
        kd.Distiller(linear.linear(1, classes=6), linear.linear(2, classes=4), LWF())


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_models_that_end_in_softmax_are_refused(role):
    models = {"teacher": linear.linear(1, classes=3), "student": linear.linear(2)}
    models[role] = linear.linear(3, activation="softmax")
    with pytest.raises(ValueError, match=f"The {role} ends in softmax, .*expects logits"):
        kd.Distiller(**models, distillation_losses=LWF())


def test_softmax_in_a_later_output_is_refused():
    inputs = keras.Input((5,))
    heads = keras.layers.Dense(3)(inputs), keras.layers.Dense(3, "softmax")(inputs)
    student = keras.Model(inputs, [keras.layers.Dense(4)(inputs) for _ in range(2)])
    with pytest.raises(ValueError, match=r"The teacher \(output 1\) ends in softmax"):
        kd.Distiller(keras.Model(inputs, list(heads)), student, LWF())


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_fit_lowers_it_and_a_saved_distiller_has_it(policy, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        loss = LWF(3.0, STUDENT_MASK, [2, 0, 3], name="old", weight=0.5)
        models = linear.linear(1, classes=4), linear.linear(2, classes=7)
        made = linear.compiled(*models, loss, alpha=0.0, beta=1.0, mode="graph")
        made.optimizer.learning_rate = 0.5
        history = made.fit(*linear.data(64), epochs=12, verbose=0).history["old"]
        assert history[-1] < 0.5 * history[0]
        made.save(tmp_path / "distiller.keras")
    finally:
        keras.config.set_dtype_policy(before)
    loaded = keras.saving.load_model(tmp_path / "distiller.keras").distillation_losses[0]
    config = loaded.get_config()
    assert config == loss.get_config()
    assert (config["student_classes"], config["teacher_classes"]) == (STUDENT_MASK, [2, 0, 3])
    logits = checks.normal(5, 4, seed=1), checks.normal(5, 7, seed=2)
    np.testing.assert_array_equal(loaded(*logits), loss(*logits))


def test_sample_weights_count():
    x, y = linear.data(8)
    weights = linear.weights_of(8)
    teacher, student = linear.linear(1, classes=3), linear.linear(2)
    made = linear.compiled(teacher, student, LWF(), learning_rate=0.0)
    history = made.fit(x, y, sample_weight=weights, batch_size=8, verbose=0).history
    rows = reference.soft_target_loss(
        linear.logits_of(student, x)[:, :3], linear.logits_of(teacher, x), 2.0
    )
    expected = np.mean(weights * rows)
    assert history["learning_without_forgetting"][0] == pytest.approx(expected, rel=1e-5)


def classifier(classes, copied=None):
    """A network of the digits; `copied`: one whose hidden layer and first outputs it takes."""
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(classes),
        ]
    )
    if copied is not None:
        old = copied.layers[1].units
        kernel, bias = model.layers[1].get_weights()
        kernel[:, :old], bias[:old] = copied.layers[1].get_weights()
        model.set_weights([*copied.layers[0].get_weights(), kernel, bias])
    return model


def trained_on(model, x, y, loss):
    model.compile(keras.optimizers.Adam(0.01), loss=loss, jit_compile=False)
    model.fit(x, y, batch_size=32, epochs=20, verbose=0)


def among(model, x, y, first, end):
    """Accuracy on the rows of classes `first` to `end - 1`, among those classes."""
    rows = (y >= first) & (y < end)
    logits = model.predict(x[rows], verbose=0)[:, first:end]
    return np.mean(logits.argmax(axis=-1) + first == y[rows])


def test_a_student_learns_new_digits_and_does_not_forget_the_old_ones():
    """Measured on three seeds: 100 % of the old digits with the loss, 65 to 75 % without."""
    datasets = extras.require("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    x, order = x.astype("float32") / 16.0, np.random.default_rng(0).permutation(len(y))
    train, test = order[:1400], order[1400:]
    old_rows, new_rows = train[y[train] < 5], train[y[train] >= 5]
    keras.utils.set_random_seed(0)
    old = classifier(5)
    trained_on(old, x[old_rows], y[old_rows], linear.from_logits())
    assert among(old, x[test], y[test], 0, 5) > 0.97

    accuracy = {}
    for beta in (0.0, 1.0):
        keras.utils.set_random_seed(100)
        student = classifier(10, copied=old)
        distiller = kd.Distiller(old, student, LWF(temperature=2.0), alpha=1.0, beta=beta)
        trained_on(distiller, x[new_rows], y[new_rows], linear.from_logits())
        accuracy[beta] = [among(student, x[test], y[test], *ends) for ends in ((0, 5), (5, 10))]
    assert min(accuracy[0.0][1], accuracy[1.0][1]) > 0.95
    assert accuracy[1.0][0] > 0.95
    assert accuracy[1.0][0] > accuracy[0.0][0] + 0.15
