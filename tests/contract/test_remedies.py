"""What messages about callbacks, losses, weightings and teachers advise works."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.contract import fits
from tests.contract import wrong_calls_of_training as table
from tests.contract.calls import X, Y, fit
from tests.contract.wrong_calls import weighted

callbacks, losses, teachers = kd.callbacks, kd.losses, kd.teachers
NO_CALLBACK = keras.callbacks.Callback


def taught_by(make):
    def made():
        student = fits.network(2)
        return fits.distiller(make(student), student)

    return made


def pooled():
    tokens = keras.Input((4,), dtype="int32")
    embedded = keras.layers.Embedding(7, 3)(tokens)
    vectors = keras.layers.GlobalAveragePooling1D(name="pooled")(embedded)
    return keras.Model(tokens, keras.layers.Dense(5)(vectors))


REMEDIES = {
    "one of two schedules": lambda: fit(NO_CALLBACK(), callbacks=[table.beta(1.0, 0.0)]),
    "a lower start_epoch": lambda: fit(table.beta(1.0, 0.0, start_epoch=1)),
    "more epochs": lambda: fit(table.beta(1.0, 0.0, start_epoch=3), epochs=5),
    "the fit of the distiller": lambda: fit(table.beta(1.0, 0.0)),
    "'alpha', 'beta' or a loss": lambda: fit(
        callbacks.LossWeightSchedule("soft_targets", 1.0, 0.0)
    ),
    "a hyperparameter of a loss": lambda: fit(
        callbacks.LossWeightSchedule("soft_targets.temperature", 4.0, 1.0)
    ),
    "an EMA to steer": lambda: fit(
        callbacks.DecaySchedule(0.9, 0.99), taught_by(lambda student: teachers.EMA(student))
    ),
    "a Snapshot to take": lambda: fit(
        callbacks.SnapshotTeacher(), taught_by(lambda student: teachers.Snapshot(student))
    ),
    "validation_data": lambda: fit(
        callbacks.EarlyStopDistillation("val_loss"), validation_data=(X, Y)
    ),
    "loss='mse' of a hint": lambda: fit(table.hint(loss="mse"), table.with_a_hint),
    "dataset_size": lambda: losses.ContrastiveRepresentation(objective="nce", dataset_size=50),
    "classes of both": lambda: losses.LearningWithoutForgetting(
        student_classes=[0, 1], teacher_classes=[2, 1]
    ),
    "a pooled layer": lambda: kd.Distiller(
        pooled(),
        pooled(),
        losses.RelationalDistance(teacher_layer="pooled", student_layer="pooled"),
    ),
    "a larger batch": lambda: fit(
        NO_CALLBACK(),
        lambda: fits.distiller(fits.network(1), fits.network(2), losses.RelationalDistance()),
        batch_size=4,
    ),
    "a share for each class": lambda: fit(
        NO_CALLBACK(), lambda: weighted(kd.weighting.ClassShares(np.full(5, 0.5)))
    ),
    "no mixing_weight": lambda: losses.SoftTargets(divergence="reverse_kl"),
    "no hidden_width": lambda: losses.CurriculumTemperature(per_row=True, hidden_width=7),
    "no margin": lambda: losses.RegressionKD(bounded=True, margin=1.0),
}


@pytest.mark.parametrize("name", REMEDIES)
def test_it_works(name):
    REMEDIES[name]()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.SoftTargets(mixing_weight=0.3), "'forward_kl' has none.*Leave it out"),
        (lambda: losses.CurriculumTemperature(hidden_width=7), "pass per_row=True"),
        (lambda: losses.RegressionKD(margin=1.0), "pass bounded=True"),
    ],
)
def test_arguments_of_another_argument_are_refused_alone(call, message):
    with pytest.raises(ValueError, match=message):
        call()
