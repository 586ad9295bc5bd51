"""Schedules: exact values, spans that are not known, bad arguments."""

import math

import keras
import pytest

from keras_kd import schedules


def values(schedule, count, positions=None):
    return [schedule(i, count) for i in positions or range(count)]


def test_linear():
    assert values(schedules.Linear(5.0, 1.0), 5) == [5.0, 4.0, 3.0, 2.0, 1.0]


def test_cosine():
    expected = [1.0, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0.0]
    assert values(schedules.Cosine(1.0, 0.0), 5) == pytest.approx(expected, abs=1e-15)


def test_exponential():
    assert values(schedules.Exponential(8.0, 1.0), 4) == pytest.approx([8.0, 4.0, 2.0, 1.0])


@pytest.mark.parametrize("kind", [schedules.Linear, schedules.Cosine, schedules.Exponential])
def test_the_ends_hold_outside(kind):
    assert values(kind(4.0, 1.0), 3, [-2, 0, 2, 9]) == pytest.approx([4.0, 4.0, 1.0, 1.0])
    assert values(kind(4.0, 1.0), 1, [0, 1]) == pytest.approx([4.0, 1.0])


def test_piecewise():
    schedule = schedules.Piecewise([2, 3], [1.0, 5.0, 0.5])
    assert values(schedule, None, range(5)) == [1.0, 1.0, 5.0, 0.5, 0.5]


def test_warm_up():
    schedule = schedules.WarmUp(schedules.Linear(1.0, 0.0), length=2, start=0.5)
    assert values(schedule, 5) == [0.5, 0.75, 1.0, 0.5, 0.0]
    assert values(schedules.WarmUp(2.0, 4), None, range(6)) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]


def test_what_a_user_may_write():
    assert values(schedules.make_schedule(3), None, [0, 7]) == [3.0, 3.0]
    assert values(schedules.make_schedule(lambda position: 2 * position), None, [0, 7]) == [
        0.0,
        14.0,
    ]
    assert values(schedules.make_schedule("linear", 1.0, 2.0), 2) == [1.0, 2.0]
    decay = keras.optimizers.schedules.ExponentialDecay(8.0, 1, 0.5)
    assert values(schedules.make_schedule(decay), None, range(3)) == [8.0, 4.0, 2.0]
    assert schedules.make_schedule(schedules.make_schedule(3)) is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: schedules.make_schedule("sine", 1.0, 2.0),
            "one of.*'linear'.*Received: schedule='sine'",
        ),
        (lambda: schedules.make_schedule(None), "Received: schedule=None"),
        (lambda: schedules.Linear(1.0, float("nan")), "finite number.*end=nan"),
        (lambda: schedules.Linear("5", 1.0), "finite number.*start='5'"),
        (lambda: schedules.Exponential(1.0, 0.0), "positive ends"),
        (lambda: schedules.Piecewise([1, 1], [1.0, 2.0, 3.0]), "must rise"),
        (lambda: schedules.Piecewise([1], [1.0]), "one value more"),
        (lambda: schedules.Piecewise([3, "a"], [1.0, 2.0, 3.0]), "boundaries='a'"),
        (lambda: schedules.WarmUp(1.0, 0), "`length`"),
        (lambda: schedules.Linear(1.0, 2.0)(0, None), "over how many epochs"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
