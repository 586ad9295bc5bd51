"""Losses that would be constant or meaningless for the models raise; a user's own losses work."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd.training import arguments
from tests.distiller import linear

ONE_VALUE = "SigmoidKD where it is the logit of yes or no, RegressionKD where it is a number"


@pytest.mark.parametrize(
    "loss",
    [
        kd.losses.SoftTargets,
        kd.losses.LogitStandardization,
        kd.losses.CurriculumTemperature,
        kd.losses.DIST,
        kd.losses.DecoupledKD,
        keras.distillation.LogitsDistillation,
        lambda: keras.distillation.LogitsDistillation(loss="categorical_crossentropy"),
    ],
)
def test_a_single_output_raises(loss):
    with pytest.raises(ValueError, match=ONE_VALUE):
        kd.Distiller(*linear.pair(classes=1), loss())
    kd.Distiller(*linear.pair(classes=1), kd.losses.SigmoidKD())


@pytest.mark.parametrize(
    "loss",
    [
        kd.losses.SoftTargets(),
        kd.losses.SoftTargets(from_logits=False),
        kd.losses.LogitStandardization(),
        kd.losses.DIST(),
        kd.losses.DecoupledKD(),
        kd.losses.SigmoidKD(),
    ],
)
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_models_that_end_in_sigmoid(loss, role):
    usual = {"activation": "softmax"} if not loss.from_logits else {}
    models = {"teacher": linear.linear(1, **usual), "student": linear.linear(2, **usual)}
    models[role] = linear.linear(3, activation="sigmoid")
    with pytest.raises(ValueError, match=f"The {role} ends in sigmoid"):
        kd.Distiller(models["teacher"], models["student"], loss)


def test_the_same_loss_twice():
    loss = kd.losses.SoftTargets()
    with pytest.raises(ValueError, match="the same loss object twice"):
        kd.Distiller(*linear.pair(), [loss, loss])


def test_metrics_where_keras_distillation_takes_them():
    distiller = kd.Distiller(*linear.pair())
    with pytest.raises(ValueError, match=r"`loss_weights`.*'accuracy'.*metrics=\[...\]"):
        distiller.compile("sgd", linear.from_logits(), ["accuracy"])
    distiller.compile("sgd", linear.from_logits(), 0.5)
    arguments.check_loss_weights({"a": tf.Variable(0.5), "b": None})


def test_a_loss_with_a_reduction_that_grows_with_the_batch():
    loss = kd.losses.FeatureHint(
        "dense", "dense", loss=keras.losses.MeanSquaredError(reduction="sum")
    )
    with pytest.raises(
        ValueError, match=r"MeanSquaredError\(reduction='sum'\) grows with the batch"
    ):
        kd.Distiller(*linear.pair(), loss)


class OneHot(kd.losses.DistillationLoss):
    """Takes one-hot labels without stating so: the labels of the data decide."""

    def call(self, teacher_outputs, student_outputs, labels):
        return keras.ops.sum(labels * (teacher_outputs - student_outputs) ** 2, axis=-1)


def test_a_loss_of_labels_of_another_form():
    class Stated(OneHot):
        labels_are_numbers = True

    teacher, student = linear.pair()
    x, y = linear.data()
    before = student.get_weights()
    made = kd.Distiller(teacher, student, OneHot(), alpha=0.0, beta=1.0)
    made.compile("sgd")
    with pytest.raises(TypeError, match="OneHot.call"):
        made.fit(x, y, batch_size=len(x), verbose=0)  # of 23 class indices
    for one, other in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    y = np.eye(linear.CLASSES, dtype="float32")[y]
    differences = linear.logits_of(teacher, x) - linear.logits_of(student, x)
    for loss in (OneHot(name="one_hot"), Stated(name="one_hot")):
        made = kd.Distiller(teacher, student, loss, alpha=0.0, beta=1.0)
        made.compile("sgd")
        logs = made.evaluate(x, y, with_teacher=True, return_dict=True, verbose=0)
        assert logs["one_hot"] == pytest.approx(np.sum(y * differences**2) / len(x), rel=1e-5)


class Gap(kd.losses.SoftTargets):
    """With a formula of its own."""

    def call(self, teacher_outputs, student_outputs):
        return keras.ops.mean(keras.ops.abs(teacher_outputs - student_outputs), axis=-1)


def test_a_subclass_of_soft_targets_with_a_formula_of_its_own():
    teacher, student = linear.pair()
    x, y = linear.data()
    made = linear.compiled(teacher, student, Gap(name="gap"))
    logs = made.evaluate(x, y, with_teacher=True, return_dict=True, verbose=0)
    differences = linear.logits_of(teacher, x) - linear.logits_of(student, x)
    assert logs["gap"] == pytest.approx(np.abs(differences).mean(), rel=1e-5)
