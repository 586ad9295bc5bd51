"""`LogHyperparameters`: which numbers are logged, under which names, and where it may be listed."""

import keras
import pytest

import keras_kd as kd
from tests.distiller import linear
from tests.distiller.linear import compiled

X, Y = linear.data(8)


def fit(made, *callbacks, epochs=2):
    return made.fit(X, Y, epochs=epochs, callbacks=list(callbacks), verbose=0).history


def logged(made, *callbacks):
    """What the first epoch logs, beside what it logs without the callback."""
    history = fit(made, kd.callbacks.LogHyperparameters(), *callbacks, epochs=1)
    measured = {"loss", "hard_loss", *made.losses_by_name}
    return {name: values[0] for name, values in history.items() if name not in measured}


def test_of_one_loss():
    found = logged(compiled(*linear.pair(), kd.losses.SoftTargets(3.0, weight=0.7), alpha=0.2))
    assert found == {
        "alpha": 0.2,
        "beta": 0.5,
        "soft_targets_weight": 0.7,
        "temperature": 3.0,
        "learning_rate": pytest.approx(0.1),
    }


def test_of_several_losses_and_a_moving_teacher():
    _, student = linear.pair()
    losses = [
        kd.losses.SoftTargets(3.0, name="a"),
        kd.losses.SoftTargets(3.0, weight=0.5, name="b"),
        kd.losses.CurriculumTemperature(initial=6.0, reversal=0.0, name="c"),
    ]
    found = logged(compiled(kd.teachers.EMA(student, decay=0.75), student, losses))
    assert found == {
        "alpha": 0.5,
        "beta": 0.5,
        "a_weight": 1.0,
        "b_weight": 0.5,
        "c_weight": 1.0,
        "a.temperature": 3.0,
        "b.temperature": 3.0,
        "c.reversal": 0.0,
        "c.learned_temperature": pytest.approx(6.0),
        "ema_decay": 0.75,
        "learning_rate": pytest.approx(0.1),
    }


def test_the_names_are_those_of_the_schedules():
    made = compiled(*linear.pair())
    schedules = [
        kd.callbacks.TemperatureSchedule(5.0, 1.0),
        kd.callbacks.LossWeightSchedule("beta", 1.0, 0.0),
        kd.callbacks.LossWeightSchedule("soft_targets", 1.0, 0.5, by="step"),
    ]
    known = set(fit(made, *schedules))
    log = kd.callbacks.LogHyperparameters()
    for order in ([log, *schedules], [*schedules, log]):
        history = fit(made, *order)
        assert set(history) == known | {"alpha", "learning_rate"}
        assert history["temperature"] == [5.0, 1.0]
        assert history["soft_targets_weight"] == [1.0, 0.5]


def test_what_another_callback_has_logged_stays():
    """`EarlyStopDistillation` logs what the epoch ran with, and then changes it."""
    stop = kd.callbacks.EarlyStopDistillation("alpha", patience=1)
    log = kd.callbacks.LogHyperparameters
    for order in ([log(), stop, log()], [log(), stop]):
        made = compiled(*linear.pair())
        assert fit(made, *order, epochs=3)["beta"] == [0.5, 0.5, 0.0]


@pytest.mark.parametrize("callback", ["LogHyperparameters", "DistillationMonitor"])
def test_behind_a_tracker_it_is_refused(callback, tmp_path):
    made = compiled(*linear.pair())
    arguments = {"DistillationMonitor": [X]}.get(callback, [])
    logs = getattr(kd.callbacks, callback)(*arguments)
    trackers = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    with pytest.raises(ValueError, match=f"CSVLogger is listed before.*List {callback} first"):
        fit(made, trackers, logs)
    assert made.optimizer.iterations == 0
    fit(made, logs, trackers)
    head = (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
    assert {"LogHyperparameters": "beta"}.get(callback, "probe_kl") in head


def test_a_model_that_is_not_a_distiller_is_refused():
    _, student = linear.pair()
    student.compile("sgd", linear.from_logits())
    with pytest.raises(ValueError, match=r"numbers of a keras_kd.Distiller.*type Sequential"):
        fit(student, kd.callbacks.LogHyperparameters())


def test_it_teaches_nothing():
    """Without a factor above 0 there is nothing to learn from, watched or not."""
    made = compiled(*linear.pair(), alpha=0.0, beta=0.0)
    for callback in (kd.callbacks.LogHyperparameters(), kd.callbacks.DistillationMonitor(X)):
        with pytest.raises(ValueError, match="alpha and beta are both 0"):
            fit(made, callback)
