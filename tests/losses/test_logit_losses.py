"""The losses between logits, some of which take labels, against NumPy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.distiller import linear
from tests.losses import checks
from tests.losses.checks import softmax

LABELS = {(5, 6): np.array([0, 5, 2, 2, 4]), (2, 3, 4): np.array([[0, 3, 1], [2, 2, 0]])}
NUMBERS = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")


def kl(p, q):
    terms = np.where(p > 0, p * (np.log(np.where(p > 0, p, 1)) - np.log(np.where(q > 0, q, 1))), 0)
    return terms.sum(-1)


def decoupled(temperature, target, non_target):
    def truth(t, s, labels):
        p, q = softmax(t / temperature), softmax(s / temperature)
        of_label = np.eye(t.shape[-1], dtype=bool)[labels]
        pair = [
            np.stack([x[of_label], 1 - x[of_label]], -1).reshape(*t.shape[:-1], 2) for x in (p, q)
        ]
        others = [np.where(of_label, 0.0, x) for x in (p, q)]
        others = [x / x.sum(-1, keepdims=True) for x in others]
        return temperature**2 * (target * kl(*pair) + non_target * kl(*others))

    return truth


def sigmoid(temperature):
    def truth(t, s):
        p, q = (1 / (1 + np.exp(-x / temperature)) for x in (t, s))
        return temperature**2 * (kl(np.stack([p, 1 - p], -1), np.stack([q, 1 - q], -1))).mean(-1)

    return truth


def standardized(temperature):
    def truth(t, s):
        t, s = ((x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) for x in (t, s))
        return temperature**2 * kl(softmax(t / temperature), softmax(s / temperature))

    return truth


def bounded(margin):
    def truth(t, s, y):
        of_teacher, of_student = (((x - y) ** 2).sum(-1) for x in (t, s))
        return np.where(of_student + margin > of_teacher, of_student, 0.0)

    return truth


def of_one_temperature(t, s):
    return 16.0 * kl(softmax(t / 4.0), softmax(s / 4.0))


# Loss, truth, shape, labels.
CASES = {
    "decoupled": (kd.losses.DecoupledKD, decoupled(4.0, 1.0, 8.0), (5, 6), LABELS[5, 6]),
    "decoupled, sequences": (
        lambda: kd.losses.DecoupledKD(1.5, target=2.0, non_target=0.5),
        decoupled(1.5, 2.0, 0.5),
        (2, 3, 4),
        LABELS[2, 3, 4],
    ),
    "sigmoid": (lambda: kd.losses.SigmoidKD(3.0), sigmoid(3.0), (5, 6), None),
    "sigmoid, one output": (kd.losses.SigmoidKD, sigmoid(1.0), (5, 1), None),
    "standardized": (kd.losses.LogitStandardization, standardized(2.0), (5, 6), None),
    "standardized, sequences": (kd.losses.LogitStandardization, standardized(2.0), (2, 3, 4), None),
    "curriculum": (kd.losses.CurriculumTemperature, of_one_temperature, (5, 6), None),
    "curriculum, rows": (
        lambda: kd.losses.CurriculumTemperature(per_row=True, hidden_width=4),
        of_one_temperature,  # the network says `initial` until it learns
        (2, 3, 4),
        None,
    ),
    "regression": (kd.losses.RegressionKD, lambda t, s: ((t - s) ** 2).mean(-1), (5, 3), None),
    "regression, l1": (
        lambda: kd.losses.RegressionKD(keras.losses.MeanAbsoluteError()),
        lambda t, s: np.abs(t - s).mean(-1),
        (5, 3),
        None,
    ),
    "bounded": (
        lambda: kd.losses.RegressionKD(bounded=True, margin=0.1),
        bounded(0.1),
        (5, 3),
        NUMBERS,
    ),
}
PLAIN = [name for name in CASES if name != "bounded"]


@pytest.mark.parametrize("mode", checks.MODES)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, mode):
    make, truth, shape, labels = CASES[name]
    checks.values_and_gradients(make, truth, shape, shape, mode, labels)


@pytest.mark.parametrize("name", CASES)
def test_values_in_half_precision(name):
    make, truth, shape, labels = CASES[name]
    checks.values_in_half_precision(make, truth, shape, shape, labels)


def given(name):
    labels = CASES[name][3]
    return {} if labels is None else {"labels": labels}


@pytest.mark.parametrize("name", PLAIN)
def test_zero_and_a_zero_gradient_where_both_are_equal(name):
    checks.zero_at_equality(CASES[name][0], CASES[name][2], **given(name))


@pytest.mark.parametrize("name", CASES)
def test_logits_that_are_all_zero_give_finite_gradients(name):
    make, _, shape, _ = CASES[name]
    checks.finite_at_zero(make, shape, shape, **given(name))


def test_a_student_better_than_its_bound_is_let_go():
    loss = kd.losses.RegressionKD(bounded=True)
    student = tf.Variable(NUMBERS + 0.1)
    with tf.GradientTape() as tape:
        value = loss(NUMBERS + 1.0, student, labels=NUMBERS)
    np.testing.assert_array_equal(value, np.zeros(5))
    np.testing.assert_array_equal(tape.gradient(value, student), np.zeros((5, 3)))


@pytest.mark.parametrize("form", ["column", "one-hot", "soft"])
def test_forms_of_labels(form):
    teacher, student = checks.normal(5, 6, seed=1), checks.normal(5, 6, seed=2)
    labels = LABELS[5, 6]
    given = {
        "column": labels[:, None],
        "one-hot": np.eye(6)[labels],
        "soft": 0.8 * np.eye(6)[labels] + 0.2 / 6,
    }[form]
    loss = kd.losses.DecoupledKD()
    np.testing.assert_array_equal(
        loss(teacher, student, labels=given), loss(teacher, student, labels=labels)
    )


def test_decoupled_is_soft_targets_with_the_right_factors():
    teacher, student = checks.normal(1, 6, seed=1), checks.normal(1, 6, seed=2)
    others = 1 - softmax(np.float64(teacher) / 4.0)[0, 2]
    loss = kd.losses.DecoupledKD(4.0, target=1.0, non_target=float(others))
    soft = kd.losses.SoftTargets(4.0)
    expected = soft(teacher, student)
    np.testing.assert_allclose(loss(teacher, student, labels=[2]), expected, rtol=1e-5)


@pytest.mark.parametrize("labels", [np.array([1, -1, 2]), np.eye(7)[[1, 6, 2], :6]])
def test_rows_without_a_label_are_not_decoupled(labels):
    teacher, student = checks.normal(3, 6, seed=1), tf.Variable(checks.normal(3, 6, seed=2))
    with tf.GradientTape() as tape:
        value = kd.losses.DecoupledKD()(teacher, student, labels=labels)
    assert value[1] == 0.0
    assert (value.numpy()[[0, 2]] > 0).all()
    np.testing.assert_array_equal(tape.gradient(value, student)[1], np.zeros(6))


def temperature_slope(t, s, temperature, step=1e-5):
    both = [
        T**2 * kl(softmax(t / T), softmax(s / T)) for T in (temperature + step, temperature - step)
    ]
    return (both[0] - both[1]) / (2 * step)


def test_the_curriculum_goes_against_the_student():
    teacher, student = checks.normal(5, 6, seed=1), checks.normal(5, 6, seed=2)
    loss = kd.losses.CurriculumTemperature(reversal=0.5)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(loss(teacher, student))
    (gradient,) = tape.gradient(value, loss.trainable_variables)
    # T = 1 + 20 sigmoid(a) = 4: dT/da = 20 * 0.15 * 0.85
    slope = temperature_slope(np.float64(teacher), np.float64(student), 4.0).sum()
    assert float(gradient) == pytest.approx(-0.5 * slope * 20 * 0.15 * 0.85, rel=1e-4)


def test_the_curriculum_of_rows():
    teacher, student = checks.normal(5, 6, seed=1), tf.Variable(checks.normal(5, 6, seed=2))
    loss = kd.losses.CurriculumTemperature(per_row=True, hidden_width=3)
    with tf.GradientTape(persistent=True) as tape:
        value = loss(teacher, student)
        total = tf.reduce_sum(value)
    bias = loss.trainable_variables[-1]
    assert bias.shape == (1,)
    slopes = temperature_slope(np.float64(teacher), np.float64(student.numpy()), 4.0)
    expected = -slopes.sum() * 20 * 0.15 * 0.85
    assert float(tape.gradient(total, bias)[0]) == pytest.approx(expected, rel=1e-4)
    # After it has learned, rows differ.
    loss.network[1].kernel.assign(np.full((3, 1), 0.5))
    values = loss(teacher, student).numpy()
    assert np.std(values / value.numpy()) > 1e-3
    with pytest.raises(AttributeError, match="each row has a temperature"):
        _ = loss.learned_temperature


@pytest.mark.parametrize("mode", linear.MODES)
def test_the_curriculum_learns_in_fit_and_its_reversal_is_scheduled(mode, tmp_path):
    x, y = linear.data(64)
    loss = kd.losses.CurriculumTemperature(reversal=0.0)
    made = linear.compiled(*linear.pair(), loss, mode=mode)
    made.optimizer.learning_rate = 0.5
    made.fit(x, y, epochs=1, verbose=0)
    assert loss.learned_temperature == pytest.approx(4.0)
    schedule = kd.callbacks.LossWeightSchedule(
        "curriculum_temperature.reversal", 0.0, 1.0, "cosine", length=3
    )
    history = made.fit(x, y, epochs=3, verbose=0, callbacks=[schedule]).history
    np.testing.assert_allclose(history["curriculum_temperature.reversal"], [0, 0.5, 1])
    assert loss.learned_temperature != pytest.approx(4.0, abs=1e-3)
    made.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras").distillation_losses[0]
    assert loaded.learned_temperature == loss.learned_temperature
    assert loaded.reversal == 1.0


def test_an_unknown_number_cannot_be_scheduled():
    schedule = kd.callbacks.LossWeightSchedule("soft_targets.reversal", 0.0, 1.0)
    with pytest.raises(ValueError, match="'soft_targets' has no hyperparameter 'reversal'"):
        linear.compiled(*linear.pair()).fit(*linear.data(8), callbacks=[schedule], verbose=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kd.losses.DecoupledKD(target=-1), "target=-1"),
        (lambda: kd.losses.DecoupledKD(non_target=-1), "non_target=-1"),
        (lambda: kd.losses.DecoupledKD(0), "temperature"),
        (lambda: kd.losses.CurriculumTemperature(4.0, 2.0), "lowest=4.0, initial=4.0, highest=2.0"),
        (lambda: kd.losses.CurriculumTemperature(reversal=-1), "reversal=-1"),
        (lambda: kd.losses.RegressionKD("mae"), "loss='mae'"),
        (lambda: kd.losses.RegressionKD("smooth_l1", bounded=True), "compares squared errors"),
        (lambda: kd.losses.RegressionKD(margin=-1), "margin=-1"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "name", ["decoupled", "sigmoid", "standardized", "curriculum", "regression"]
)
def test_shapes_that_differ(name):
    with pytest.raises(ValueError, match=r"one shape.*teacher \(2, 4\), student \(2, 5\)"):
        CASES[name][0]()(
            np.ones((2, 4)), np.ones((2, 5)), **({"labels": [0, 1]} if "dec" in name else {})
        )


def test_one_class_cannot_be_decoupled():
    with pytest.raises(ValueError, match="at least 2 classes"):
        kd.losses.DecoupledKD()(np.ones((2, 1)), np.ones((2, 1)), labels=[0, 0])


@pytest.mark.parametrize("labels", [np.zeros((5, 4)), np.zeros((5, 6, 1)), np.zeros(())])
def test_labels_of_a_wrong_shape(labels):
    with pytest.raises(ValueError, match=r"Expected labels as class indices of shape \(5,\)"):
        kd.losses.DecoupledKD()(np.ones((5, 6)), np.ones((5, 6)), labels=labels)


@pytest.mark.parametrize(
    ("activation", "kind"),
    [("softmax", kd.losses.DecoupledKD), ("softmax", kd.losses.LogitStandardization)]
    + [("softmax", kd.losses.CurriculumTemperature), ("sigmoid", kd.losses.SigmoidKD)],
)
def test_models_that_end_in_probabilities_are_refused(activation, kind):
    with pytest.raises(ValueError, match=f"student ends in {activation}"):
        kd.Distiller(linear.linear(1), linear.linear(2, activation=activation), kind())


def test_labels_that_a_bound_cannot_be_compared_with():
    loss = kd.losses.RegressionKD(bounded=True)
    numbers = np.ones((3, 4), "float32")
    with pytest.raises(ValueError, match=r"outputs of shape \(3, 4\).*labels of shape \(3, 1\)"):
        loss(numbers, numbers, labels=np.ones(3))
    made = linear.compiled(*linear.pair(), loss, compile_args={"loss": "mse"})
    x, y = linear.data(6)
    assert made.fit(x, np.eye(4)[y], verbose=0).history["regression_kd"][0] > 0


def test_losses_that_need_labels_say_so():
    x, _ = linear.data(8)
    made = linear.compiled(*linear.pair(), kd.losses.DecoupledKD(), alpha=0.0, beta=1.0)
    with pytest.raises(ValueError, match=r"'decoupled_kd' needs labels.*\(inputs, labels\)"):
        made.fit(x, verbose=0)
    made = linear.compiled(*linear.pair(), kd.losses.RegressionKD(bounded=True), alpha=0.0)
    with pytest.raises(ValueError, match="needs labels, because bounded=True"):
        made.fit(x, verbose=0)
    made = linear.compiled(*linear.pair(), kd.losses.RegressionKD(), alpha=0.0, beta=1.0)
    made.fit(x, verbose=0)


KINDS = [
    kd.losses.DecoupledKD,
    kd.losses.SigmoidKD,
    kd.losses.LogitStandardization,
    kd.losses.CurriculumTemperature,
    kd.losses.RegressionKD,
]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_fit_lowers_it_and_a_saved_distiller_has_it(kind, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        made = linear.compiled(*linear.pair(), kind(name="part"), alpha=0.0, beta=1.0, mode="graph")
        made.optimizer.learning_rate = 0.5
        x, y = linear.data(64)
        history = made.fit(x, y, epochs=12, verbose=0).history["part"]
        assert history[-1] < 0.8 * history[0]
        made.save(tmp_path / "distiller.keras")
        loaded = keras.saving.load_model(tmp_path / "distiller.keras").distillation_losses[0]
        assert type(loaded) is kind
        assert loaded.get_config() == made.distillation_losses[0].get_config()
    finally:
        keras.config.set_dtype_policy("float32")


def test_labels_of_the_output_that_is_read():
    def model(seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((5,))
        return keras.Model(inputs, {n: keras.layers.Dense(4, name=n)(inputs) for n in ("a", "b")})

    x, y = linear.data(8)
    other = np.roll(y, 1)
    teacher, student = model(1), model(2)
    made = kd.Distiller(teacher, student, kd.losses.DecoupledKD(output="b"), alpha=0.0, beta=1.0)
    loss = {"a": linear.from_logits(), "b": linear.from_logits()}
    made.compile(keras.optimizers.SGD(0.0), loss=loss)
    history = made.fit(x, {"a": other, "b": y}, verbose=0).history
    t, s = (np.float64(m.predict(x, verbose=0)["b"]) for m in (teacher, student))
    expected = decoupled(4.0, 1.0, 8.0)(t, s, y).mean()
    assert history["decoupled_kd"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        kd.losses.DecoupledKD,
        kd.losses.DIST,
        kd.losses.LogitStandardization,
        kd.losses.CurriculumTemperature,
        kd.losses.LearningWithoutForgetting,
    ],
)
def test_softmax_is_refused_with_a_remedy_that_there_is(make):
    ends = [{"activation": "softmax"}, {}]
    for teacher, student in (ends, ends[::-1]):
        models = [
            keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, **options)])
            for options in (teacher, student)
        ]
        with pytest.raises(ValueError, match=r"ends in softmax, but .*activation=None") as error:
            kd.Distiller(*models, make())
        assert "from_logits=False" in str(error.value)
    both = [keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, **ends[0])]) for _ in "ts"]
    kd.Distiller(*both, make(from_logits=False))
