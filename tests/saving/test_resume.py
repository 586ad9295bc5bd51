"""A distiller that is saved, loaded, interrupted and resumed trains as one that was not."""

import contextlib

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from tests.distiller import linear


def network(units, seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((linear.FEATURES,)),
            keras.layers.Dense(units, "relu", kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(linear.CLASSES),
        ]
    )


def distiller():
    teacher = network(9, 1)
    made = kd.Distiller(teacher, network(6, 2), kd.losses.SoftTargets(3.0, weight=0.7), alpha=0.3)
    made.compile(keras.optimizers.Adam(0.01), loss=linear.from_logits(), metrics=["accuracy"])
    return made


class Schedule(keras.callbacks.Callback):
    """Changes every hyperparameter that may change during `fit`, by the epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.alpha, self.model.beta = 0.2 + 0.1 * epoch, 0.9 - 0.1 * epoch
        self.model.temperature = 5.0 - epoch


class InterruptedFit(Exception):  # noqa: N818
    pass


class Interrupt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise InterruptedFit


def fit(model, epochs, *callbacks, **kwargs):
    x, y = linear.data(60)
    options = {"batch_size": 16, "shuffle": False, "verbose": 0, **kwargs}
    return model.fit(x, y, epochs=epochs, callbacks=[Schedule(), *callbacks], **options).history


@pytest.fixture(scope="module")
def uninterrupted():
    model = distiller()
    history = fit(model, 4)
    return model, history


def assert_same(model, history, expected):
    np.testing.assert_equal(model.student.get_weights(), expected[0].student.get_weights())
    for key, values in history.items():
        assert values == expected[1][key][-len(values) :], key
    assert (model.alpha, model.beta) == (expected[0].alpha, expected[0].beta)
    assert model.temperature == expected[0].temperature


def test_saved_loaded_and_continued(tmp_path, uninterrupted):
    first = distiller()
    fit(first, 2)
    first.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert loaded.distillation_losses[0].weight == np.float32(0.7)
    np.testing.assert_equal(loaded.teacher.get_weights(), first.teacher.get_weights())
    x = linear.data(60)[0]
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), first.predict(x, verbose=0))
    assert_same(loaded, fit(loaded, 4, initial_epoch=2), uninterrupted)


def test_backup_and_restore(tmp_path, uninterrupted):
    with pytest.raises(InterruptedFit):
        fit(distiller(), 4, keras.callbacks.BackupAndRestore(tmp_path / "backup"), Interrupt(2))
    resumed = distiller()
    history = fit(resumed, 4, keras.callbacks.BackupAndRestore(tmp_path / "backup"))
    assert len(history["loss"]) == 2
    assert_same(resumed, history, uninterrupted)


@pytest.mark.parametrize("weights_only", [False, True])
def test_model_checkpoint(tmp_path, uninterrupted, weights_only):
    path = tmp_path / ("c.weights.h5" if weights_only else "c.keras")
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=weights_only)
    fit(distiller(), 2, checkpoint)
    resumed = distiller()
    if weights_only:
        resumed.load_weights(path)
    else:
        resumed = keras.models.load_model(path)
    assert_same(resumed, fit(resumed, 4, initial_epoch=2), uninterrupted)


def test_a_teacher_that_keras_cannot_name_is_refused(tmp_path):
    teacher = network(9, 1)
    made = kd.Distiller(lambda x: teacher(x, training=False), network(6, 2))
    with pytest.raises(ValueError, match="register_keras_serializable"):
        made.save(tmp_path / "distiller.keras")
    assert not (tmp_path / "distiller.keras").exists()


class InterruptAfter(keras.callbacks.Callback):
    """Ends a fit after a batch of an epoch, when the callbacks before it have seen it."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise InterruptedFit


def compiled(made, **options):
    """Eager where nothing else is asked for: a few steps are quicker than tracing one."""
    options = {"metrics": ["accuracy"], "run_eagerly": True, **options}
    made.compile(keras.optimizers.Adam(0.01), loss=linear.from_logits(), **options)
    return made


def snapshots():
    student = network(6, 2)
    made = compiled(kd.Distiller(kd.teachers.Snapshot(student), student, alpha=0.3))
    return made, [kd.callbacks.SnapshotTeacher()]


def averages():
    student = network(6, 2)
    made = compiled(kd.Distiller(kd.teachers.EMA(student), student, alpha=0.3))
    return made, [kd.callbacks.DecaySchedule(0.5, 0.9, by="step")]


def plain(**options):
    made = kd.Distiller(network(9, 1), network(6, 2), kd.losses.SoftTargets(3.0), alpha=0.3)
    return compiled(made, **options), [kd.callbacks.TemperatureSchedule(5.0, 2.0, by="step")]


def pruned():
    return plain()[0], [kd.callbacks.Sparsify(0.5, frequency=3)]


def clustered():
    return plain()[0], [kd.callbacks.Cluster(4)]


def mutual():
    made = compiled(kd.MutualDistiller([network(9, 1), network(6, 2)]))
    return made, [kd.callbacks.TemperatureSchedule(5.0, 2.0, by="step")]


WITHIN_EPOCHS = {
    "eager": (plain, {}),
    "xla": (lambda: plain(run_eagerly=False, jit_compile=True), {}),
    "several_steps": (lambda: plain(run_eagerly=False, steps_per_execution=2), {}),
    "validation": (plain, {"validation_split": 0.4}),
    "endless": (plain, {"steps_per_epoch": 3}),
    "snapshot": (snapshots, {}),
    "average": (averages, {}),
    "pruned": (pruned, {}),
    "clustered": (clustered, {}),
    "mutual": (mutual, {}),
}


def run(make, options, *callbacks):
    model, own = make()
    x, y = linear.data(60)
    options = {"batch_size": 12, "shuffle": False, "verbose": 0, **options}
    if "steps_per_epoch" in options:
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(options.pop("batch_size"))
        x, y = data.repeat(), None
    return model, model.fit(x, y, epochs=2, callbacks=[*own, *callbacks], **options).history


@pytest.mark.parametrize("kind", WITHIN_EPOCHS)
def test_resumes_within_an_epoch(tmp_path, kind):
    """Of a run that ends within an epoch neither weights nor history show it."""
    make, options = WITHIN_EPOCHS[kind]
    expected, history = run(make, options)
    for at in ((0, 1), (1, 3)):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=2)
        with contextlib.suppress(InterruptedFit):
            run(make, options, backup, InterruptAfter(*at))
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=2)
    resumed, last = run(make, options, backup)
    for one, other in zip(resumed.variables, expected.variables, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)
    for key, values in last.items():
        np.testing.assert_allclose(values, history[key][-len(values) :], 1e-6, err_msg=key)
    assert not (tmp_path / "backup").exists()


@pytest.fixture(scope="module")
def of_plain():
    return run(plain, {})[0]


def interrupted(folder, *at):
    backup = keras.callbacks.BackupAndRestore(folder, save_freq=2)
    with pytest.raises(InterruptedFit):
        run(plain, {}, backup, InterruptAfter(*at))


@pytest.mark.parametrize("metadata", [None, "", '{"epoch": 0, "batch": 1}', '{"epoch": 7'])
def test_the_weights_say_where_they_are(tmp_path, of_plain, metadata):
    """Whatever Keras' second file says, or if it is missing: the two are not written at once."""
    interrupted(tmp_path / "backup", 1, 3)
    file = tmp_path / "backup" / "training_metadata.json"
    file.unlink()
    if metadata is not None:
        file.write_text(metadata)
    resumed, history = run(plain, {}, keras.callbacks.BackupAndRestore(tmp_path / "backup"))
    assert len(history["loss"]) == 1
    np.testing.assert_equal(resumed.get_weights(), of_plain.get_weights())


def test_a_backup_that_is_half_removed_is_none(tmp_path, of_plain):
    """Keras removes it when `fit` has ended; a kill during that may leave the epoch behind."""
    (tmp_path / "training_metadata.json").write_text('{"epoch": 2, "batch": 0}')
    resumed, history = run(plain, {}, keras.callbacks.BackupAndRestore(tmp_path))
    assert len(history["loss"]) == 2
    np.testing.assert_equal(resumed.get_weights(), of_plain.get_weights())


def test_a_backup_without_a_position_restarts_its_epoch(tmp_path):
    """As earlier versions wrote them."""
    interrupted(tmp_path / "backup", 1, 3)
    with h5py.File(tmp_path / "backup" / "latest.weights.h5", "a") as file:
        del file["vars"]["position"]
    steps = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(1))
    resumed, _ = run(plain, {}, keras.callbacks.BackupAndRestore(tmp_path / "backup"), count)
    assert len(steps) == 5
    assert resumed.optimizer.iterations == 8 + 5


class Load(keras.callbacks.Callback):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_train_begin(self, logs=None):
        self.model.load_weights(self.path)


@pytest.mark.parametrize("by", ["hand", "callback", "file"])
def test_weights_that_are_not_a_backup_of_this_fit_leave_no_batch_out(tmp_path, by):
    interrupted(tmp_path / "backup", 0, 3)
    path = tmp_path / "backup" / "latest.weights.h5"
    model, _ = plain()
    callbacks = [keras.callbacks.BackupAndRestore(tmp_path / "other")]
    if by == "file":
        model = keras.models.load_model(saved_within(tmp_path))
    elif by == "hand":
        model.load_weights(path)
    else:
        callbacks.append(Load(path))
    before = int(model.optimizer.iterations) if by != "callback" else 4
    x, y = linear.data(60)
    model.fit(x, y, batch_size=12, epochs=1, verbose=0, callbacks=callbacks)
    assert model.optimizer.iterations == before + 5


def saved_within(folder):
    path = folder / "within.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_freq=2)
    with pytest.raises(InterruptedFit):
        run(plain, {}, checkpoint, InterruptAfter(0, 3))
    return path


def test_steps_at_once_that_pass_the_position_over_are_refused(tmp_path, of_plain):
    interrupted(tmp_path / "backup", 0, 1)

    def several(steps):
        return lambda: plain(steps_per_execution=steps)

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(ValueError, match=r"after batch 2 .* steps_per_execution=1"):
        run(several(4), {}, backup)
    resumed, _ = run(several(1), {}, keras.callbacks.BackupAndRestore(tmp_path / "backup"))
    np.testing.assert_equal(resumed.get_weights(), of_plain.get_weights())


@pytest.mark.parametrize("number", [0, 1])
def test_a_generation_resumes_within_an_epoch(tmp_path, number):
    """The first one too, which has no teacher."""

    def generations(*at):
        keras.utils.set_random_seed(5)
        made = kd.BornAgain(network(6, 2), 2, directory=tmp_path / str(bool(at)))
        made.compile(keras.optimizers.Adam(0.01), linear.from_logits(), run_eagerly=True)

        def callbacks(generation):
            backup = keras.callbacks.BackupAndRestore(tmp_path / f"b{generation}", save_freq=2)
            return [backup, InterruptAfter(*at)] if at and generation == number else [backup]

        x, y = linear.data(60)
        options = {"batch_size": 12, "shuffle": False, "verbose": 0, "callbacks": callbacks}
        return made.fit(x, y, epochs=1, **options)

    with pytest.raises(InterruptedFit):
        generations(0, 3)
    (tmp_path / "True").rename(tmp_path / "False")
    resumed = generations().students
    assert not list(tmp_path.glob("b*"))
    (tmp_path / "False").rename(tmp_path / "resumed")
    for one, other in zip(resumed, generations().students, strict=True):
        np.testing.assert_equal(one.get_weights(), other.get_weights())
