"""Teachers made of the student's earlier weights, against loops written by hand."""

import warnings

import keras
import numpy as np
import pytest

import keras_kd as kd
from tests import matrix
from tests.cache import caches


def student_with_statistics():
    built = keras.Sequential(
        [
            keras.Input((caches.FEATURES,)),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(caches.CLASSES),
        ]
    )
    rng = np.random.default_rng(2)
    built.layers[1].set_weights([rng.normal(size=w.shape) for w in built.layers[1].weights])
    return built


class Watching(keras.callbacks.Callback):
    """The student's weights after each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self.model.student.get_weights())


def fitted(teacher, student, mode="graph", epochs=2, callbacks=(), **of_optimizer):
    distiller = kd.Distiller(teacher, student)
    options = {"eager": {"run_eagerly": True}, "graph": {"jit_compile": False}}
    options["xla"] = {"jit_compile": True}
    optimizer = keras.optimizers.SGD(0.5, **of_optimizer)
    distiller.compile(optimizer, caches.from_logits(), **options[mode])
    watching = Watching()
    history = distiller.fit(
        caches.dataset(),
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[watching, *callbacks],
    ).history
    return distiller, watching.seen, history


@pytest.mark.parametrize("mode", matrix.MODES)
@pytest.mark.parametrize("warm_up", [False, True])
def test_an_ema_is_the_running_average_of_the_students_weights(mode, warm_up):
    student = student_with_statistics()
    trained = [v.trainable for v in student.weights]
    average = [np.float64(w) for w in student.get_weights()]
    teacher = kd.teachers.EMA(student, 0.9, warm_up=warm_up)
    _, seen, _ = fitted(teacher, student, mode)
    assert len(seen) == 18
    for step, weights in enumerate(seen):
        d = min(0.9, (1 + step) / (10 + step)) if warm_up else 0.9
        average = [
            d * own + (1 - d) * new if is_trained else new
            for own, new, is_trained in zip(average, weights, trained, strict=True)
        ]
    for own, expected in zip(teacher.model.get_weights(), average, strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-6)
    assert int(teacher.steps) == 18


@pytest.mark.parametrize("mode", matrix.MODES)
def test_an_ema_moves_with_updates_not_with_steps_that_accumulate_gradients(mode):
    student = caches.model(1)
    average = [np.float64(w) for w in student.get_weights()]
    teacher = kd.teachers.EMA(student, 0.9, warm_up=False)
    _, seen, _ = fitted(teacher, student, mode, gradient_accumulation_steps=3)
    assert len(seen) == 18
    for weights in seen[2::3]:
        average = [0.9 * own + 0.1 * new for own, new in zip(average, weights, strict=True)]
    for own, expected in zip(teacher.model.get_weights(), average, strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-6)
    assert int(teacher.steps) == 6


def test_the_decay_is_live_and_scheduled():
    student = caches.model(1)
    teacher = kd.teachers.EMA(student, 0.5, warm_up=False)
    schedule = kd.callbacks.DecaySchedule(0.0, 0.75)
    _, seen, history = fitted(teacher, student, callbacks=[schedule])
    np.testing.assert_allclose(history["ema_decay"], [0.0, 0.75])
    average = [np.float64(w) for w in seen[8]]  # decay 0: the student itself
    for weights in seen[9:]:
        average = [0.75 * a + 0.25 * w for a, w in zip(average, weights, strict=True)]
    for own, expected in zip(teacher.model.get_weights(), average, strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-6)


def test_the_teacher_starts_as_the_student_and_shares_nothing_with_it():
    student = caches.model(1)
    teacher = kd.teachers.EMA(student)
    x, _ = caches.arrays(4)
    np.testing.assert_array_equal(teacher(x), student(x))
    assert not {id(w) for w in teacher.weights} & {id(w) for w in student.weights}


def test_a_saved_ema_goes_on(tmp_path):
    def run(path=None):
        student = caches.model(1)
        distiller, _, _ = fitted(kd.teachers.EMA(student, 0.9), student, epochs=1)
        if path is not None:
            distiller.save(path)
            distiller = keras.models.load_model(path)
        distiller.fit(caches.dataset(), epochs=1, shuffle=False, verbose=0)
        return [*distiller.teacher.model.get_weights(), *distiller.student.get_weights()]

    for one, other in zip(run(), run(tmp_path / "d.keras"), strict=True):
        np.testing.assert_array_equal(one, other)


class Teachers(keras.callbacks.Callback):
    """The teacher's weights and beta during each epoch."""

    def __init__(self):
        super().__init__()
        self.weights, self.betas, self.students = [], [], []

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.weights.append(self.model.teacher.model.get_weights())
            self.betas.append(self.model.beta)
            self.students.append(self.model.student.get_weights())


@pytest.mark.parametrize(
    ("options", "taken", "betas"),
    [
        ({}, [0, 1, 2, 3], [0.0, 0.5, 0.5, 0.5]),
        ({"start_epoch": 2}, [0, 0, 2, 3], [0.0, 0.0, 0.5, 0.5]),
        ({"every": 2}, [0, 1, 1, 3], [0.0, 0.5, 0.5, 0.5]),
    ],
)
def test_snapshots_are_the_student_of_earlier_epochs(options, taken, betas):
    student = caches.model(1)
    seen = Teachers()
    callbacks = [kd.callbacks.SnapshotTeacher(**options), seen]
    distiller, _, _ = fitted(kd.teachers.Snapshot(student), student, epochs=4, callbacks=callbacks)
    assert seen.betas == betas
    assert distiller.beta == 0.5
    for own, epoch in zip(seen.weights, taken, strict=True):
        for one, other in zip(own, seen.students[epoch], strict=True):
            np.testing.assert_array_equal(one, other)


def test_interrupted_snapshots_go_on(tmp_path):
    class Interruption(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == at:
                raise KeyboardInterrupt

    def run(folder, stop):
        nonlocal at
        at = stop
        student = caches.model(1)
        callbacks = [
            kd.callbacks.SnapshotTeacher(start_epoch=2, every=2),
            keras.callbacks.BackupAndRestore(folder / "backup"),
            Interruption(),
        ]
        distiller = kd.Distiller(kd.teachers.Snapshot(student), student)
        distiller.compile(keras.optimizers.SGD(0.5), caches.from_logits())
        distiller.fit(caches.dataset(), epochs=5, shuffle=False, verbose=0, callbacks=callbacks)
        return student.get_weights()

    at = None
    whole = run(tmp_path / "whole", None)
    for stop in (1, 3, 4):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / str(stop), stop)
        resumed = run(tmp_path / str(stop), None)
        for one, other in zip(resumed, whole, strict=True):
            np.testing.assert_array_equal(one, other)


def test_bad_arguments():
    student = caches.model(1)
    with pytest.raises(ValueError, match="`decay`. Expected a number from 0 to below 1"):
        kd.teachers.EMA(student, 1.0)
    with pytest.raises(ValueError, match="`student`. Expected a keras.Model"):
        kd.teachers.EMA(lambda x: x)
    with pytest.raises(ValueError, match="has no weights yet"):
        kd.teachers.EMA(keras.Sequential([keras.layers.Dense(3)]))
    with pytest.raises(ValueError, match="made of another model than the student"):
        kd.Distiller(kd.teachers.EMA(caches.model(1, classes=3)), student)
    distiller = kd.Distiller(caches.model(2), student)
    distiller.compile("sgd", caches.from_logits())
    for callback, message in (
        (kd.callbacks.SnapshotTeacher(), "whose teacher is a keras_kd.teachers.Snapshot"),
        (kd.callbacks.DecaySchedule(0.5, 0.9), "steers a keras_kd.teachers.EMA"),
    ):
        with pytest.raises(ValueError, match=message):
            distiller.fit(caches.dataset(), callbacks=[callback], shuffle=False, verbose=0)


@pytest.mark.parametrize("kind", [kd.teachers.EMA, kd.teachers.Snapshot])
def test_what_the_student_adapted_to_is_the_teachers_too(kind):
    x = np.random.default_rng(0).normal(5, 3, size=(64, caches.FEATURES)).astype("float32")
    normal = keras.layers.Normalization()
    normal.adapt(x)
    dense = keras.layers.Dense(caches.CLASSES)
    student = keras.Sequential([keras.Input((caches.FEATURES,)), normal, dense])
    teacher = kind(student)
    if kind is kd.teachers.Snapshot:
        dense.kernel.assign(2 * dense.kernel)
        teacher.take(student)
    np.testing.assert_allclose(teacher.model(x), student(x), rtol=1e-5, atol=1e-5)


def test_a_running_average_moves_in_an_ensemble_too():
    student = student_with_statistics()
    teacher, expected = kd.teachers.EMA(student, 0.5, warm_up=False), student.get_weights()[-1]
    _, seen, _ = fitted(kd.teachers.Ensemble([teacher, caches.model(1)]), student)
    for weights in seen:
        expected = (expected + np.float64(weights[-1])) / 2
    np.testing.assert_allclose(teacher.model.get_weights()[-1], expected, rtol=1e-5, atol=1e-6)


def test_a_copy_of_an_untrained_student_is_not_said_to_guess():
    student = keras.Sequential([keras.Input((caches.FEATURES,)), keras.layers.Dense(10)])
    x = np.random.default_rng(0).normal(size=(64, caches.FEATURES)).astype("float32")
    distiller = kd.Distiller(kd.teachers.EMA(student), student)
    distiller.compile("sgd", caches.from_logits())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distiller.fit(x, np.arange(64) % 10, batch_size=64, verbose=0)


def test_a_schedule_of_beta_beside_snapshots_is_refused():
    student = student_with_statistics()
    callbacks = [
        kd.callbacks.SnapshotTeacher(start_epoch=2),
        kd.callbacks.LossWeightSchedule("beta", 1.0, 0.2),
    ]
    with pytest.raises(ValueError, match="would undo what SnapshotTeacher sets"):
        fitted(kd.teachers.Snapshot(student), student, callbacks=callbacks)
