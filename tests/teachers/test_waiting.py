"""A fit that mostly waits for its teacher warns, once."""

import typing
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd as kd
from keras_kd.teachers import prefetch
from keras_kd.teachers.prefetch import TeacherWaitWarning, Waiting
from keras_kd.training import prefetch as preparation


class Clock:
    """Time that passes only where a test moves it."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def steps(waiting, clock, count, waits, takes, first=0):
    """Steps that wait for a batch, and then take their time."""
    for step in range(first, first + count):
        clock.now += waits
        waiting.delivered()
        clock.now += takes
        waiting.on_train_batch_end(step)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def waiting(clock):
    return Waiting(clock)


def test_waiting_for_the_teacher_warns_with_the_share(waiting, clock):
    steps(waiting, clock, 21, waits=3.0, takes=1.0)
    message = r"for 75% of the time \(60 of 80 seconds\).*about 25% of the time: keras_kd.cache_te"
    with pytest.warns(TeacherWaitWarning, match=message):
        steps(waiting, clock, 1, waits=3.0, takes=1.0, first=21)


def test_it_warns_once(waiting, clock):
    with pytest.warns(TeacherWaitWarning) as warned:
        steps(waiting, clock, 200, waits=3.0, takes=1.0)
    assert len(warned) == 1


@pytest.mark.parametrize(
    ("count", "waits", "takes"),
    [(200, 1.0, 1.5), (15, 3.0, 1.0), (200, 0.01, 0.001), (200, 0.0, 1.0)],
    ids=["less_than_half", "few_steps", "a_moment", "never"],
)
def test_a_fit_that_does_not_is_left_alone(waiting, clock, count, waits, takes):
    steps(waiting, clock, count, waits, takes)


def test_the_first_steps_in_which_all_is_traced_do_not_count(waiting, clock):
    steps(waiting, clock, 2, waits=1000.0, takes=1000.0)
    steps(waiting, clock, 100, waits=0.2, takes=1.0, first=2)


def test_later_epochs_are_not_looked_at(waiting, clock):
    steps(waiting, clock, 5, waits=3.0, takes=1.0)
    waiting.on_epoch_end(0)
    steps(waiting, clock, 100, waits=3.0, takes=1.0)


def test_a_fit_hears_of_each_batch_that_a_slow_teacher_answers(clock):
    """The teacher moves the clock, as the answers come; the steps take no time."""

    class Slow(kd.teachers.HostTeacher):
        def predict(self, inputs, layers=()):
            clock.now += 2.0
            return np.ones((len(inputs), 3), "float32"), {}

    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    distiller = kd.Distiller(Slow(), student, kd.losses.RegressionKD(), alpha=0.0, beta=1.0)
    distiller.compile("sgd", None, jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices(np.ones((40, 4), "float32")).batch(4)
    heard = []
    asked = prefetch.with_teacher(distiller, data, lambda: heard.append(clock.now))
    elements = list(asked)
    assert len(heard) == len(elements) == 10
    assert sorted(heard) == heard
    for element in elements:
        assert element["inputs"].shape == (4, 4)
        np.testing.assert_array_equal(element["keras_kd_teacher"]["outputs"], np.ones((4, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", TeacherWaitWarning)
        waiting = Waiting(clock)
        watched = prefetch.with_teacher(distiller, data, waiting.delivered)
        distiller.fit(watched, callbacks=[waiting], verbose=0)


class Recorded(Waiting):
    """Counts what it hears of."""

    made: typing.ClassVar[list] = []

    def __init__(self):
        super().__init__(clock=Clock())
        self.batches, self.steps = 0, 0
        self.made.append(self)

    def delivered(self):
        self.batches += 1
        super().delivered()

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        super().on_train_batch_end(batch, logs)


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
@pytest.mark.parametrize("own", ["none", "list", "callback_list"])
def test_fit_listens(monkeypatch, kind, own):
    monkeypatch.setattr(preparation, "Waiting", Recorded)
    Recorded.made.clear()

    class Ones(kd.teachers.HostTeacher):
        def predict(self, inputs, layers=()):
            return np.ones((len(inputs), 3), "float32"), {}

    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    distiller = kd.Distiller(Ones(), student, kd.losses.RegressionKD(), alpha=0.0, beta=1.0)
    distiller.compile("sgd", None, jit_compile=False)
    x = np.ones((40, 4), "float32")
    data = tf.data.Dataset.from_tensor_slices(x).batch(4) if kind == "dataset" else x
    options = {"batch_size": 4} if kind == "arrays" else {}
    mine = keras.callbacks.LambdaCallback()
    if own == "list":
        options["callbacks"] = [mine]
    elif own == "callback_list":
        options["callbacks"] = keras.callbacks.CallbackList(
            [mine], add_history=True, model=distiller, epochs=2, steps=10, verbose=0
        )
    distiller.fit(data, epochs=2, verbose=0, **options)
    (waiting,) = Recorded.made
    assert waiting.steps == 20
    assert waiting.batches >= 20
