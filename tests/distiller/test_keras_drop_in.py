"""A program written for `keras.distillation` runs after its import was changed, and rightly."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests import reference
from tests.distiller import linear
from tests.distiller.linear import assert_same_values

T = 3.0
LogitsDistillation = keras.distillation.LogitsDistillation
FeatureDistillation = keras.distillation.FeatureDistillation


def deep(seed):
    """Two dense layers, "hidden" and "head"."""
    model = keras.Sequential(
        [
            keras.Input((linear.FEATURES,)),
            keras.layers.Dense(6, name="hidden"),
            keras.layers.Dense(linear.CLASSES, name="head"),
        ]
    )
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    return model


def hidden_and_logits(model, x):
    hidden = linear.logits_of(model.get_layer("hidden"), x)
    return hidden, linear.logits_of(model.get_layer("head"), hidden)


def losses_of(distiller, x, y):
    distiller.compile("sgd", loss=linear.from_logits(), run_eagerly=True)
    return distiller.evaluate(x, y, with_teacher=True, return_dict=True, verbose=0)


def cross_entropy(student, teacher):
    logs = reference.log_softmax(student, T), reference.log_softmax(teacher, T)
    return T**2 * -np.sum(np.exp(logs[1]) * logs[0], axis=-1).mean()


VALUES = {
    "kl": lambda student, teacher: reference.soft_target_loss(student, teacher, T).mean(),
    "ce": cross_entropy,
    "mse": lambda student, teacher: np.mean((student - teacher) ** 2) / T**2,
    "mae": lambda student, teacher: np.mean(np.abs(student - teacher)) / T,
}
SPELLINGS = [
    ("kl_divergence", "kl"),
    (keras.losses.KLDivergence(), "kl"),
    (keras.losses.kl_divergence, "kl"),
    (keras.losses.KLDivergence(reduction="sum_over_batch_size", name="mine"), "kl"),
    ("categorical_crossentropy", "ce"),
    (keras.losses.CategoricalCrossentropy(from_logits=True), "ce"),
    ("mse", "mse"),
    (keras.losses.MeanSquaredError(), "mse"),
    ("mean_absolute_error", "mae"),
]


@pytest.mark.parametrize(("loss", "value"), SPELLINGS)
def test_every_spelling_of_a_loss_of_logits_means_what_it_says(loss, value):
    x, y = linear.data()
    teacher, student = linear.pair()
    logits = linear.logits_of(student, x), linear.logits_of(teacher, x)
    distiller = kd.Distiller(teacher, student, LogitsDistillation(temperature=T, loss=loss))
    logs = losses_of(distiller, x, y)
    assert_same_values(logs, {"logits_distillation": VALUES[value](*logits)})


def test_the_default_loss_is_the_kl_divergence():
    x, y = linear.data()
    teacher, student = linear.pair()
    logits = linear.logits_of(student, x), linear.logits_of(teacher, x)
    logs = losses_of(kd.Distiller(teacher, student, LogitsDistillation()), x, y)
    assert_same_values(logs, {"logits_distillation": VALUES["kl"](*logits)})


def program(Distiller, **options):  # noqa: N803 a class
    """What a user of `keras.distillation.Distiller` writes, by position."""
    teacher, student = deep(1), deep(2)
    losses = [LogitsDistillation(T), FeatureDistillation("mse", "hidden", "hidden")]
    distiller = Distiller(teacher, student, losses, [0.7, 0.2], 0.4)
    distiller.compile(
        optimizer=keras.optimizers.SGD(0.1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **options,
    )
    x, y = linear.data()
    history = distiller.fit(x, y, validation_data=(x, y), epochs=2, verbose=0)
    distiller.evaluate(x, y, verbose=0)
    distiller.predict(x, verbose=0)
    distiller.student.predict(x, verbose=0)
    return distiller, history.history


def test_the_program_runs_with_either():
    for distiller_class, eager in ((keras.distillation.Distiller, True), (kd.Distiller, False)):
        distiller, history = program(distiller_class, run_eagerly=eager)
        assert {"loss", "val_loss", "accuracy", "val_accuracy"} <= set(history)
        assert len(history["loss"]) == 2
    assert (distiller.alpha, distiller.beta) == pytest.approx((0.4, 0.6))
    assert [loss.weight for loss in distiller.distillation_losses] == pytest.approx([0.7, 0.2])


def test_the_objective_of_the_program():
    x, y = linear.data()
    teacher, student = deep(1), deep(2)
    losses = [LogitsDistillation(T), FeatureDistillation("mse", "hidden", "hidden")]
    distiller = kd.Distiller(teacher, student, losses, [0.7, 0.2], 0.4)
    logs = losses_of(distiller, x, y)
    (student_hidden, student_logits), (teacher_hidden, teacher_logits) = (
        hidden_and_logits(model, x) for model in (student, teacher)
    )
    expected = {
        "hard_loss": reference.hard_loss(student_logits, y).mean(),
        "logits_distillation": VALUES["kl"](student_logits, teacher_logits),
        "feature_distillation": np.mean((student_hidden - teacher_hidden) ** 2),
    }
    hard, logits, features = expected.values()
    expected["loss"] = 0.4 * hard + 0.6 * (0.7 * logits + 0.2 * features)
    assert_same_values(logs, expected)


def test_keyword_arguments_of_keras_distillation():
    teacher, student = deep(1), deep(2)
    distiller = kd.Distiller(
        teacher=teacher,
        student=student,
        distillation_losses=LogitsDistillation(temperature=T),
        distillation_loss_weights=None,
        student_loss_weight=1,
        name="mine",
    )
    assert (distiller.name, distiller.alpha, distiller.beta) == ("mine", 1.0, 0.0)
    assert distiller.teacher is teacher
    assert distiller.student is student


def test_features_of_the_final_output():
    x, y = linear.data()
    teacher, student = linear.pair()
    gap = linear.logits_of(student, x) - linear.logits_of(teacher, x)
    logs = losses_of(kd.Distiller(teacher, student, FeatureDistillation()), x, y)
    assert_same_values(logs, {"feature_distillation": np.mean(gap**2)})


def test_sample_weight_reaches_the_loss_objects():
    x, y = linear.data()
    weights = linear.weights_of()
    teacher, student = deep(1), deep(2)
    losses = [LogitsDistillation(T), FeatureDistillation("mse", "hidden", "hidden")]
    gap = hidden_and_logits(student, x)[0] - hidden_and_logits(teacher, x)[0]
    logits = hidden_and_logits(student, x)[1], hidden_and_logits(teacher, x)[1]
    expected = {
        "logits_distillation": np.mean(weights * reference.soft_target_loss(*logits, T)),
        "feature_distillation": np.mean(weights * np.mean(gap**2, axis=-1)),
    }
    distiller = kd.Distiller(teacher, student, losses)
    distiller.compile("sgd", loss=linear.from_logits(), run_eagerly=True)
    assert_same_values(distiller.train_on_batch(x, y, weights, return_dict=True), expected)


class MaximumGap(keras.distillation.DistillationLoss):
    """A user's own loss, a scalar by the contract of `keras.distillation`."""

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return keras.ops.max(keras.ops.abs(teacher_outputs - student_outputs))


def test_a_loss_of_the_users():
    x, y = linear.data()
    teacher, student = linear.pair()
    gap = np.abs(linear.logits_of(student, x) - linear.logits_of(teacher, x)).max()
    distiller = kd.Distiller(teacher, student, MaximumGap())
    distiller.compile("sgd", loss=linear.from_logits(), run_eagerly=True)
    logs = distiller.train_on_batch(x, y, return_dict=True)
    assert_same_values(logs, {"maximum_gap": gap})
    with pytest.raises(ValueError, match="one number for the batch, so sample_weight"):
        distiller.train_on_batch(x, y, linear.weights_of())


def test_label_smoothing_is_kept():
    x, y = linear.data()
    teacher, student = linear.pair()
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    student_log, teacher_log = (
        reference.log_softmax(linear.logits_of(model, x), T) for model in (student, teacher)
    )
    targets = 0.8 * np.exp(teacher_log) + 0.2 / linear.CLASSES
    expected = T**2 * -np.sum(targets * student_log, axis=-1).mean()
    logs = losses_of(kd.Distiller(teacher, student, LogitsDistillation(T, loss)), x, y)
    assert_same_values(logs, {"logits_distillation": expected})


class Scaled(LogitsDistillation):
    """A subclass with a formula of its own."""

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return 100.0 * keras.ops.mean(keras.ops.abs(teacher_outputs - student_outputs))


def kl_divergence(first, second):
    """The user's, which is called as Keras' is."""
    del second
    return keras.ops.zeros_like(first[:, 0]) + 7.0


def test_what_a_user_calls_the_same_is_the_users():
    teacher, student = linear.pair()
    x, y = linear.data()
    gap = np.abs(linear.logits_of(teacher, x) - linear.logits_of(student, x)).mean()
    found = losses_of(kd.Distiller(teacher, student, Scaled(loss="mse")), x, y)
    assert found["scaled"] == pytest.approx(100 * gap, rel=1e-5)
    found = losses_of(kd.Distiller(teacher, student, LogitsDistillation(loss=kl_divergence)), x, y)
    assert found["logits_distillation"] == pytest.approx(7.0)


def test_a_temperature_that_changed_is_in_the_configuration():
    made = kd.Distiller(*linear.pair(), LogitsDistillation(temperature=T))
    made.temperature = 7.0
    assert kd.Distiller.from_config(made.get_config()).temperature == 7.0


def test_numbers_of_numpy_and_the_names_of_its_attributes():
    losses = [LogitsDistillation(), LogitsDistillation(loss="mse")]
    made = kd.Distiller(
        *linear.pair(),
        losses,
        distillation_loss_weights=np.array([1.0, 0.5]),
        student_loss_weight=np.float32(0.25),
    )
    assert made.distillation_loss_weights == [1.0, 0.5]
    assert (made.student_loss_weight, made.alpha, made.beta) == (0.25, 0.25, 0.75)


def test_whether_evaluations_ask_the_teacher_is_saved(tmp_path):
    made = kd.Distiller(*linear.pair())
    made.evaluate_with_teacher = True
    made.compile("sgd", linear.from_logits())
    made.save(tmp_path / "distiller.keras")
    assert keras.saving.load_model(tmp_path / "distiller.keras").evaluate_with_teacher


NAMES = ("total_loss", "student_loss", "distillation_loss")


@pytest.mark.parametrize("spelled", ["losses", "weight"])
def test_the_names_that_users_of_keras_distillation_monitor(spelled):
    x, y = linear.data()
    teacher, student = linear.pair()
    if spelled == "losses":
        losses = [LogitsDistillation(T), LogitsDistillation(2.0)]
        made = kd.Distiller(teacher, student, losses, [0.7, 0.3])
    else:
        losses = [kd.losses.SoftTargets(T), kd.losses.LogitsMSE()]
        made = kd.Distiller(teacher, student, losses, [0.7, 0.3], student_loss_weight=0.5)
    made.compile(keras.optimizers.SGD(0.1), loss=linear.from_logits())
    stop = keras.callbacks.EarlyStopping(monitor="val_total_loss", mode="min")
    history = made.fit(
        x, y, validation_data=(x, y), epochs=2, batch_size=10, verbose=0, callbacks=[stop]
    ).history
    for prefix in ("", "val_"):
        logs = {name: np.array(history[prefix + name]) for name in (*NAMES, "loss", "hard_loss")}
        np.testing.assert_array_equal(logs["total_loss"], logs["loss"])
        np.testing.assert_array_equal(logs["student_loss"], logs["hard_loss"])
        total = 0.5 * (logs["student_loss"] + logs["distillation_loss"])
        np.testing.assert_allclose(logs["total_loss"], total, rtol=1e-5)


def test_other_spellings_have_no_second_names():
    x, y = linear.data()
    made = linear.compiled(*linear.pair())
    history = made.fit(x, y, validation_data=(x, y), verbose=0).history
    assert set(NAMES).isdisjoint(history)
    assert "val_soft_targets" not in history


def test_floats_come_back_as_they_were_given(tmp_path):
    losses = [LogitsDistillation(0.1), kd.losses.SoftTargets(4.7, weight=0.3)]
    made = kd.Distiller(*linear.pair(), losses, [0.7, 1 / 3], student_loss_weight=0.6)
    made.compile("sgd", linear.from_logits())
    made.save(tmp_path / "d.keras")
    for each in (made, keras.saving.load_model(tmp_path / "d.keras")):
        assert each.distillation_loss_weights == [0.7, 1 / 3]
        assert (each.student_loss_weight, each.beta) == (0.6, 0.4)
        assert [loss.temperature for loss in each.distillation_losses] == [0.1, 4.7]
        assert isinstance(each.distillation_losses[0], LogitsDistillation)
        assert each.uses_keras_names
    made.alpha = 0.15
    assert made.alpha == 0.15
    made.alpha_variable.assign(0.25)
    assert made.alpha == 0.25


def test_a_configuration_of_keras_own():
    theirs = keras.distillation.Distiller(
        *(deep(seed) for seed in (1, 2)), LogitsDistillation(T), student_loss_weight=0.3
    )
    made = kd.Distiller.from_config(theirs.get_config())
    assert (made.alpha, made.beta, made.temperature) == (0.3, 0.7, T)
    assert {"distillation_loss_weights", "student_loss_weight"} <= set(made.get_config())
