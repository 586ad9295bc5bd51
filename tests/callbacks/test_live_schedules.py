"""Schedules of temperature and weights in `fit`: each step's number, resuming, logs, errors."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests.distiller import linear
from tests.distiller.linear import Loop, assert_same_weights, compiled
from tests.distiller.test_live import counting

ROWS, BATCH, EPOCHS = 12, 4, 4
STEPS = ROWS // BATCH


def schedules():
    """Callbacks that together change every number, and what each step runs with."""
    callbacks = [
        kd.callbacks.TemperatureSchedule(5.0, 2.0),
        kd.callbacks.LossWeightSchedule("alpha", 1.0, 0.0, "cosine", by="step"),
        kd.callbacks.LossWeightSchedule("beta", lambda epoch: 0.5 + 0.25 * epoch),
        kd.callbacks.LossWeightSchedule("soft_targets", 0.0, 1.0, start_epoch=1, length=2),
    ]
    numbers = []
    for epoch in range(EPOCHS):
        for step in range(STEPS):
            way = (epoch * STEPS + step) / (EPOCHS * STEPS - 1)
            numbers.append(
                {
                    "temperature": 5.0 - epoch,
                    "alpha": 0.5 * (1.0 + np.cos(np.pi * way)),
                    "beta": 0.5 + 0.25 * epoch,
                    "weight": [0.0, 0.0, 1.0, 1.0][epoch],
                }
            )
    return callbacks, numbers


def fit(distiller, callbacks, epochs=EPOCHS, **options):
    x, y = linear.data(ROWS)
    options = {"batch_size": BATCH, "shuffle": False, "verbose": 0, **options}
    return distiller.fit(x, y, epochs=epochs, callbacks=callbacks, **options).history


@pytest.mark.parametrize("mode", linear.MODES)
def test_every_step_uses_its_numbers(mode):
    teacher, student = linear.pair()
    x, y = linear.data(ROWS)
    callbacks, numbers = schedules()
    loop = Loop(teacher, student)
    for i, values in enumerate(numbers):
        loop.__dict__.update(values)
        first = i % STEPS * BATCH
        loop.step(x[first : first + BATCH], y[first : first + BATCH])
    fit(compiled(teacher, student, mode=mode), callbacks)
    assert_same_weights(student, loop)


def test_the_history_has_what_was_set():
    callbacks, numbers = schedules()
    history = fit(compiled(*linear.pair()), callbacks)
    last = numbers[STEPS - 1 :: STEPS]  # of each epoch
    assert history["temperature"] == [5.0, 4.0, 3.0, 2.0]
    assert history["beta"] == [0.5, 0.75, 1.0, 1.25]
    assert history["soft_targets_weight"] == [0.0, 0.0, 1.0, 1.0]
    np.testing.assert_allclose(history["alpha"], [n["alpha"] for n in last], atol=1e-7)


def test_numbers_of_numpy():
    for start, end in ((np.float32(5), np.float32(1)), (np.int64(5), 1)):
        schedule = kd.callbacks.TemperatureSchedule(start, end)
        history = fit(compiled(*linear.pair()), [schedule], epochs=2)
        assert history["temperature"] == [5.0, 1.0]


def test_no_retracing():
    calls = []
    teacher, student = linear.pair()
    distiller = compiled(counting(teacher, calls), student, mode="graph")
    traced = []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: traced.append(len(calls)))
    fit(distiller, [*schedules()[0], count])
    assert traced == [traced[0]] * EPOCHS


def test_a_resumed_fit_goes_on_where_it_was():
    whole, parts = linear.pair(), linear.pair()
    fit(compiled(*whole), schedules()[0])
    distiller = compiled(*parts)
    # The first part is given the whole number of epochs, as users of BackupAndRestore do.
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(distiller, "stop_training", epoch == 1)
    )
    fit(distiller, [*schedules()[0], stop])
    resumed = compiled(parts[0], parts[1])
    fit(resumed, schedules()[0], initial_epoch=2)
    for a, b in zip(whole[1].get_weights(), parts[1].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# Keras says so at the end of each first epoch of such a dataset.
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_dataset_of_unknown_length_by_step():
    import tensorflow as tf

    def dataset():
        x, y = linear.data(ROWS)
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).filter(lambda x, y: True)

    distiller = compiled(*linear.pair())
    by_step = kd.callbacks.TemperatureSchedule(5.0, 1.0, by="step")
    with pytest.raises(ValueError, match="over how many epochs or steps"):
        distiller.fit(dataset(), epochs=2, callbacks=[by_step], shuffle=False, verbose=0)
    by_step = kd.callbacks.TemperatureSchedule(5.0, 1.0, by="step", length=4, start_epoch=1)
    with pytest.raises(ValueError, match="cannot count steps.*steps_per_epoch"):
        distiller.fit(dataset(), epochs=2, callbacks=[by_step], shuffle=False, verbose=0)
    assert distiller.optimizer.iterations == 0
    by_step = kd.callbacks.TemperatureSchedule(5.0, 1.0, by="step", length=3)
    distiller.fit(dataset(), epochs=1, callbacks=[by_step], shuffle=False, verbose=0)
    assert distiller.temperature == 1.0
    by_epoch = kd.callbacks.TemperatureSchedule(5.0, 1.0)
    distiller.fit(dataset(), epochs=2, callbacks=[by_epoch], shuffle=False, verbose=0)
    assert distiller.temperature == 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kd.callbacks.TemperatureSchedule(5.0), "two numbers, or a whole schedule"),
        (lambda: kd.callbacks.TemperatureSchedule(kd.schedules.Constant(2.0), 1.0), "two numbers"),
        (lambda: kd.callbacks.TemperatureSchedule(5.0, 0.0), "argument `end`.*above 0"),
        (lambda: kd.callbacks.LossWeightSchedule("beta", 1.0, -1.0), "at least 0"),
        (lambda: kd.callbacks.TemperatureSchedule(5.0, 1.0, by="batch"), "'epoch' or 'step'"),
        (lambda: kd.callbacks.TemperatureSchedule(5.0, 1.0, start_epoch=-1), "start_epoch=-1"),
        (lambda: kd.callbacks.TemperatureSchedule(5.0, 1.0, length=0), "length=0"),
        (lambda: kd.callbacks.TemperatureSchedule(5.0, 1.0, "steps"), "schedule='steps'"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (kd.callbacks.TemperatureSchedule(5.0, 1.0, start_epoch=4), "begins with epoch 4.*epoch 3"),
        (kd.callbacks.LossWeightSchedule("hint", 0.0, 1.0), "'hint'.*'soft_targets'"),
        ([kd.callbacks.LossWeightSchedule("beta", 0.0, 1.0)] * 2, "Several callbacks set 'beta'"),
    ],
)
def test_schedules_that_do_not_fit_the_run_raise_before_it(callback, message):
    teacher, student = linear.pair()
    before = student.get_weights()
    with pytest.raises(ValueError, match=message):
        fit(compiled(teacher, student), callback if isinstance(callback, list) else [callback])
    for a, b in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_that_is_not_a_distiller_raises():
    _, student = linear.pair()
    student.compile("sgd", linear.from_logits())
    with pytest.raises(ValueError, match=r"steers a keras_kd.Distiller"):
        fit(student, [kd.callbacks.TemperatureSchedule(5.0, 1.0)])


def test_losses_without_temperature_are_refused():
    class LogitsMSE(kd.losses.DistillationLoss):
        def call(self, teacher_outputs, student_outputs):
            return keras.ops.mean((teacher_outputs - student_outputs) ** 2, axis=-1)

    distiller = compiled(*linear.pair(), LogitsMSE())
    with pytest.raises(ValueError, match="none of the distillation losses has a temperature"):
        fit(distiller, [kd.callbacks.TemperatureSchedule(5.0, 1.0)])
