"""The end of the distillation, and what the monitor measures."""

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests import reference
from tests.callbacks.test_feature_hint import fit, models
from tests.distiller import linear
from tests.distiller.linear import compiled
from tests.losses.checks import softmax

X, Y = linear.data(24)


class Script(keras.callbacks.Callback):
    """Puts given values into the logs, as a metric would."""

    def __init__(self, values, name="val_accuracy"):
        super().__init__()
        self.values, self.name = values, name

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.values[epoch]


def stop(**options):
    return kd.callbacks.EarlyStopDistillation("val_accuracy", **options)


@pytest.mark.parametrize(
    ("values", "options", "betas"),
    [
        ([0.1, 0.2, 0.2, 0.2, 0.9], {"patience": 2}, [0.5, 0.5, 0.5, 0.5, 0.0]),
        ([0.1, 0.2, 0.1, 0.3, 0.3], {"patience": 2}, [0.5] * 5),
        ([0.1, 0.12, 0.14, 0.5, 0.5], {"patience": 2, "min_delta": 0.05}, [0.5] * 3 + [0.0] * 2),
        ([0.5, 0.4, 0.3, 0.2, 0.1], {"patience": 1, "mode": "min"}, [0.5] * 5),
        ([0.5, 0.5, 0.5, 0.5, 0.5], {"patience": 1, "start_epoch": 2}, [0.5] * 4 + [0.0]),
    ],
)
def test_when_it_stops(values, options, betas):
    made = compiled(*models())
    history = fit(made, Script(values), stop(alpha=1.0, **options))
    assert history["beta"] == betas
    assert history["alpha"] == [0.5 if beta else 1.0 for beta in betas]


def test_the_labels_then_teach_alone():
    made = compiled(*models(), mode="graph")
    fit(made, Script([0.5, 0.1]), stop(patience=1, alpha=1.0), epochs=2)
    _, alone = models()
    alone.set_weights(made.student.get_weights())
    alone.compile(keras.optimizers.SGD(0.1), linear.from_logits())
    fit(made, Script([0.1]), stop(patience=1), epochs=1)
    fit(alone, epochs=1)
    for a, b in zip(made.student.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_second_fit_starts_from_scratch():
    made = compiled(*models())
    assert fit(made, Script([0.9, 0.1]), stop(patience=1), epochs=2)["beta"] == [0.5, 0.5]
    assert made.beta == 0.0
    made.beta = 0.5
    values = [0.3, 0.4, 0.4, 0.4]
    history = fit(made, Script(values), stop(patience=2), epochs=4)
    assert history["beta"] == [0.5] * 4
    assert made.beta == 0.0  # after the last epoch


def test_each_monitor_is_compared_with_itself():
    made = compiled(*models())
    other = kd.callbacks.EarlyStopDistillation("a/b", patience=2, mode="min")
    values = Script([0.1] * 3), Script([0.9, 0.8, 0.7], "a/b")
    history = fit(made, *values, other, stop(patience=2), epochs=3)
    assert history["beta"] == [0.5] * 3
    states = {key: list(state) for key, state in made.callback_states.items()}
    assert states == {
        "early_stop_distillation_val_accuracy": [-0.1, 2, True],
        "early_stop_distillation_a_b": [0.7, 0, False],
    }


def test_a_resumed_fit_goes_on_waiting(tmp_path):
    values = [0.5, 0.4, 0.4, 0.4, 0.4]
    expected = fit(compiled(*models()), Script(values), stop(patience=3))

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        fit(compiled(*models()), Script(values), stop(patience=3), backup, Interrupt())
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    history = fit(compiled(*models()), Script(values), stop(patience=3), backup)
    assert history["beta"] == expected["beta"][3:] == [0.5, 0.0]


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([kd.callbacks.EarlyStopDistillation()], r"no validation data. Pass validation_data"),
        (
            [kd.callbacks.LossWeightSchedule("beta", 1.0, 0.0), stop()],
            r"LossWeightSchedule\('beta'\) would undo",
        ),
        ([stop(), stop(patience=9)], "Two EarlyStopDistillation callbacks watch 'val_accuracy'"),
        ([keras.callbacks.ModelCheckpoint("x.keras"), stop()], "ModelCheckpoint is listed before"),
    ],
)
def test_what_does_not_fit_the_run(callbacks, message):
    with pytest.raises(ValueError, match=message):
        fit(compiled(*models()), *callbacks)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"patience": 0}, "patience=0"), ({"mode": "up"}, "mode='up'"), ({"alpha": -1}, "alpha=-1")],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        stop(**options)


def features(model):
    return keras.Model(model.inputs, model.get_layer("features").output).predict(X, verbose=0)


def cka(a, b):
    a, b = (np.float64(x) - np.float64(x).mean(0) for x in (a, b))
    cross = (a.T @ b) ** 2
    return cross.sum() / np.sqrt(((a.T @ a) ** 2).sum() * ((b.T @ b) ** 2).sum())


def test_what_is_measured(tmp_path):
    teacher, student = models()
    made = compiled(teacher, student, mode="graph")
    monitor = kd.callbacks.DistillationMonitor(
        X, pairs=[("features", "features")], plot=tmp_path / "plot.png"
    )
    history = fit(made, monitor, epochs=3)
    t, s = (np.float64(m.predict(X, verbose=0)) for m in (teacher, student))
    assert history["probe_agreement"][-1] == pytest.approx((t.argmax(-1) == s.argmax(-1)).mean())
    kl = reference.soft_target_loss(s, t, 1.0).mean()
    assert history["probe_kl"][-1] == pytest.approx(kl, rel=1e-4)
    expected = cka(features(teacher), features(student))
    assert history["probe_cka_features"][-1] == pytest.approx(expected, rel=1e-5)
    assert len(history["probe_kl"]) == 3
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


def test_the_pairs_of_the_losses_are_the_default():
    losses = [kd.losses.SoftTargets(), kd.losses.FeatureHint("features", "features")]
    teacher, student = models()
    monitor = kd.callbacks.DistillationMonitor(X)
    fit(compiled(teacher, student, losses), monitor, epochs=1)
    assert set(monitor.measured) == {"probe_agreement", "probe_kl", "probe_cka_features"}


def test_monitor_measures_hints_of_callbacks_and_distinguishes_pairs():
    def made():
        pair = zip(models(), ("other", "logits"), strict=True)
        return compiled(
            *(
                keras.Sequential([*m.layers[:-1], keras.layers.Dense(linear.CLASSES, name=name)])
                for m, name in pair
            )
        )

    monitor = kd.callbacks.DistillationMonitor(X)
    fit(made(), monitor, kd.callbacks.FeatureHint("features", "features"), epochs=1)
    assert "probe_cka_features" in monitor.measured
    pairs = [("features", "features"), ("other", "features"), ("other", "logits")]
    monitor = kd.callbacks.DistillationMonitor(X, pairs)
    fit(made(), monitor, epochs=1)
    names = [name.removeprefix("probe_cka_") for name in monitor.measured if "cka" in name]
    assert names == ["features_features", "features_other", "logits"]
    values = [monitor.measured[f"probe_cka_{name}"][0] for name in names[:2]]
    assert values[0] != pytest.approx(values[1], rel=1e-3)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ((4, "softmax"), r"teacher ends in softmax.*Monitor\(from_logits=False"),
        ((1,), r"value for each class.*shape \(None, 1\)"),
    ],
)
def test_outputs_that_a_monitor_cannot_compare_raise_before_training(head, message):
    pair = [keras.Sequential([keras.Input((linear.FEATURES,)), keras.layers.Dense(*head)])] * 2
    made = compiled(*map(keras.models.clone_model, pair), kd.losses.RegressionKD())
    with pytest.raises(ValueError, match=message):
        fit(made, kd.callbacks.DistillationMonitor(X))
    assert made.optimizer.iterations == 0


def test_a_monitor_changes_nothing():
    weights = []
    for callbacks in ([], [kd.callbacks.DistillationMonitor(X)]):
        teacher, student = models()
        made = compiled(teacher, student, mode="graph")
        fit(made, *callbacks, epochs=2)
        weights.append(student.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_unknown_layer_of_the_monitor():
    monitor = kd.callbacks.DistillationMonitor(X, pairs=[("features", "feature")])
    with pytest.raises(ValueError, match="no layer 'feature'"):
        fit(compiled(*models()), monitor)


def test_cka_is_blind_to_rotation_and_scale():
    from keras_kd._utils import statistics

    rng = np.random.default_rng(0)
    a = rng.normal(size=(20, 5))
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert statistics.cka(a, 3.0 * a @ rotation + 1.0) == pytest.approx(1.0)
    assert statistics.cka(a, np.ones((20, 2))) == 0.0
    assert softmax(a).shape == a.shape
    assert statistics.cka(a, rng.normal(size=(20, 3))) < 0.6


@pytest.mark.parametrize(
    ("name", "message"),
    [("plot", "whose name ends in one of"), ("plot.xyz", "ends in one of"), (".png", "ends in")],
)
def test_a_wrong_plot_path_raises_before_training(name, message, tmp_path):
    distiller = linear.compiled(*linear.pair())
    monitor = kd.callbacks.DistillationMonitor(linear.data()[0], plot=tmp_path / name)
    with pytest.raises(ValueError, match=message):
        distiller.fit(*linear.data(), callbacks=[monitor], verbose=0)
    assert int(distiller.optimizer.iterations) == 0


def test_a_plot_in_a_folder_that_is_not_there_yet(tmp_path):
    distiller = linear.compiled(*linear.pair())
    plot = tmp_path / "new" / "plot.png"
    monitor = kd.callbacks.DistillationMonitor(linear.data()[0], plot=plot)
    distiller.fit(*linear.data(), callbacks=[monitor], verbose=0)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_epochs_that_do_not_validate_are_not_looked_at():
    distiller = compiled(*linear.pair())
    stop = kd.callbacks.EarlyStopDistillation("val_loss", patience=1, min_delta=100.0)
    options = {"validation_data": (X, Y), "validation_freq": 2, "verbose": 0}
    history = distiller.fit(X, Y, epochs=6, callbacks=[stop], **options).history
    assert history["beta"] == [0.5, 0.5, 0.5, 0.5, 0.0, 0.0]


def test_missing_validation_data_raises_before_training():
    distiller = compiled(*linear.pair())
    with pytest.raises(ValueError, match="'val_loss', and fit has no validation data"):
        distiller.fit(X, Y, callbacks=[kd.callbacks.EarlyStopDistillation()], verbose=0)
    assert int(distiller.optimizer.iterations) == 0
    stop = kd.callbacks.EarlyStopDistillation()
    distiller.fit(X, Y, validation_split=0.5, callbacks=[stop], verbose=0)
    own = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(val_loss=1.0 + epoch)
    )
    stop = kd.callbacks.EarlyStopDistillation(patience=1)
    history = distiller.fit(X, Y, epochs=3, callbacks=[own, stop], verbose=0).history
    assert history["beta"] == [0.5, 0.5, 0.0]


def test_callbacks_that_would_undo_each_other():
    student = linear.linear(2)
    distiller = compiled(kd.teachers.Snapshot(student), student)
    options = {"validation_data": (X, Y), "verbose": 0}
    stop = kd.callbacks.EarlyStopDistillation(alpha=1.0)
    schedule = kd.callbacks.LossWeightSchedule("alpha", 0.2, 0.5)
    with pytest.raises(ValueError, match=r"LossWeightSchedule\('alpha'\) would undo"):
        distiller.fit(X, Y, callbacks=[stop, schedule], **options)
    later = kd.callbacks.SnapshotTeacher(start_epoch=2)
    early = kd.callbacks.EarlyStopDistillation(patience=2)
    with pytest.raises(ValueError, match=r"EarlyStopDistillation\(start_epoch=2\)"):
        distiller.fit(X, Y, callbacks=[early, later], **options)
    distiller.fit(X, Y, callbacks=[stop, later], **options)  # it waits longer than that
    kept = kd.callbacks.EarlyStopDistillation(start_epoch=2, patience=1, min_delta=100.0)
    history = distiller.fit(X, Y, epochs=5, callbacks=[kept, later], **options).history
    assert history["beta"] == [0.0, 0.0, 0.5, 0.5, 0.0]


def test_a_teacher_made_of_labels_raises_before_training():
    distiller = compiled(kd.teachers.VirtualTeacher(), linear.linear(2))
    with pytest.raises(ValueError, match="VirtualTeacher is made of the labels"):
        distiller.fit(X, Y, callbacks=[kd.callbacks.DistillationMonitor(X)], verbose=0)
    assert int(distiller.optimizer.iterations) == 0
