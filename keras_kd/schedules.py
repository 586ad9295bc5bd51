"""Values over epochs or steps, which the callbacks of `keras_kd.callbacks` follow.

A schedule is called with a position, counted from 0, and the number of positions it spans, and
returns a float. With `n` positions the first has `start` and the last has `end`.
"""

import bisect
import math
from typing import Any

import keras
import numpy as np

from keras_kd._utils.validation import invalid

__all__ = ["Constant", "Cosine", "Exponential", "Linear", "Piecewise", "Polynomial", "WarmUp"]


class Schedule:
    """Base class: subclasses define the value at a fraction of the span.

    Args:
        start: Value at the first position.
        end: Value at the last position.
    """

    # Whether its values depend on the number of positions that it spans.
    has_span = True

    def __init__(self, start: Any, end: Any) -> None:
        self.start, self.end = _check_finite("start", start), _check_finite("end", end)

    def __call__(self, position: Any, count: int | None) -> Any:
        """The value at `position` of `count`; the end values hold outside.

        Raises:
            ValueError: `count` is `None`: the span is not known.
        """
        if count is None:
            raise ValueError(
                f"{type(self).__name__} needs to know over how many epochs or steps it runs. Pass "
                "`length`, or give `fit` data whose number of batches is known."
            )
        fraction = position / (count - 1) if count > 1 else float(position >= count)
        return self.at(min(max(fraction, 0.0), 1.0))

    def at(self, fraction: float) -> Any:
        """The value at a fraction of the span, from 0 to 1."""
        raise NotImplementedError


class Linear(Schedule):
    """`start + fraction (end - start)`.

    Args:
        start: First value.
        end: Last value.

    Example:

    ```python
    import keras_kd as kd

    schedule = kd.schedules.Linear(5.0, 1.0)
    assert [schedule(i, 5) for i in range(5)] == [5.0, 4.0, 3.0, 2.0, 1.0]
    ```
    """

    def at(self, fraction: float) -> Any:
        return self.start + fraction * (self.end - self.start)


class Cosine(Schedule):
    """`end + (start - end) (1 + cos(pi fraction)) / 2`: slow at both ends.

    Args:
        start: First value.
        end: Last value.

    Example:

    ```python
    import keras_kd as kd

    schedule = kd.schedules.Cosine(1.0, 0.0)
    assert [schedule(i, 3) for i in range(3)] == [1.0, 0.5, 0.0]
    ```
    """

    def at(self, fraction: float) -> Any:
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * fraction))


class Exponential(Schedule):
    """`start (end / start)^fraction`: the same ratio from each position to the next.

    Args:
        start: First value, positive.
        end: Last value, positive.

    Raises:
        ValueError: `start` and `end` are not both positive.

    Example:

    ```python
    import keras_kd as kd

    schedule = kd.schedules.Exponential(8.0, 2.0)
    assert [schedule(i, 3) for i in range(3)] == [8.0, 4.0, 2.0]
    ```
    """

    def __init__(self, start: Any, end: Any) -> None:
        super().__init__(start, end)
        if self.start <= 0 or self.end <= 0:
            raise ValueError(
                "An exponential schedule needs positive ends. Received: "
                f"start={start}, end={end}. To reach 0 use kd.schedules.Linear or Cosine."
            )

    def at(self, fraction: float) -> Any:
        return self.start * (self.end / self.start) ** fraction


class Polynomial(Schedule):
    """`end + (start - end) (1 - fraction)^power`: fast at first, then ever slower.

    Args:
        start: First value.
        end: Last value.
        power: The exponent, positive.

    Example:

    ```python
    import keras_kd as kd

    schedule = kd.schedules.Polynomial(0.0, 1.0)
    assert [schedule(i, 3) for i in range(3)] == [0.0, 0.875, 1.0]
    ```
    """

    def __init__(self, start: Any, end: Any, power: float = 3) -> None:
        super().__init__(start, end)
        self.power = _check_finite("power", power)
        if self.power <= 0:
            raise invalid("power", "a number above 0", repr(power))

    def at(self, fraction: float) -> Any:
        return self.end + (self.start - self.end) * (1.0 - fraction) ** self.power


class Constant:
    """One value.

    Args:
        value: A number.

    Example:

    ```python
    import keras_kd as kd

    assert kd.schedules.Constant(2.0)(position=7, count=None) == 2.0
    ```
    """

    has_span = False

    def __init__(self, value: Any) -> None:
        self.value = _check_finite("value", value)

    def __call__(self, position: Any, count: int | None) -> Any:
        return self.value


class Piecewise:
    """`values[i]` before position `boundaries[i]`, then the next value.

    Args:
        boundaries: Positions, ascending.
        values: One more than boundaries.

    Example:

    ```python
    import keras_kd as kd

    schedule = kd.schedules.Piecewise([2, 3], [1.0, 5.0, 0.5])
    assert [schedule(i, None) for i in range(4)] == [1.0, 1.0, 5.0, 0.5]
    ```
    """

    has_span = False

    def __init__(self, boundaries: Any, values: Any) -> None:
        for name, given in (("boundaries", boundaries), ("values", values)):
            if not isinstance(given, (list, tuple, np.ndarray)):
                raise invalid(name, "a list of numbers", repr(given))
        self.boundaries = [_check_finite("boundaries", boundary) for boundary in boundaries]
        self.values = [_check_finite("values", value) for value in values]
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                "`values` must have one value more than `boundaries`. Received: "
                f"{len(self.boundaries)} boundaries and {len(self.values)} values."
            )
        if self.boundaries != sorted(set(self.boundaries)):
            raise ValueError(f"`boundaries` must rise. Received: boundaries={self.boundaries}")

    def __call__(self, position: Any, count: int | None) -> Any:
        return self.values[bisect.bisect_right(self.boundaries, position)]


class WarmUp:
    """Linear from `start` to the first value of another schedule, then that schedule.

    Args:
        schedule: The schedule that follows, or a number for a constant.
        length: Positions of the warm-up, at least 1.
        start: Value at the first position.

    Example:

    ```python
    import keras_kd as kd

    schedule = kd.schedules.WarmUp(1.0, length=2)
    assert [schedule(i, None) for i in range(4)] == [0.0, 0.5, 1.0, 1.0]
    ```
    """

    def __init__(self, schedule: Any, length: Any, start: float = 0.0) -> None:
        self.schedule = make_schedule(schedule)
        self.has_span = self.schedule.has_span
        is_integer = isinstance(length, (int, np.integer)) and not isinstance(length, bool)
        if not is_integer or length < 1:
            raise invalid("length", "an integer, at least 1", repr(length))
        self.length, self.start = int(length), _check_finite("start", start)

    def __call__(self, position: Any, count: int | None) -> Any:
        rest = None if count is None else max(count - self.length, 1)
        if position >= self.length:
            return self.schedule(position - self.length, rest)
        target = self.schedule(0, rest)
        return self.start + (target - self.start) * max(position, 0) / self.length


class _Function:
    """A callable of the user's, or a Keras learning rate schedule: of the position alone."""

    has_span = False

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, position: Any, count: int | None) -> Any:
        return float(self.function(position))


_NUMBER = (int, float, np.number)
_BY_NAME = {
    "linear": Linear,
    "cosine": Cosine,
    "exponential": Exponential,
    "polynomial": Polynomial,
}


def make_schedule(schedule: Any, start: Any = None, end: Any = None) -> Any:
    """Makes a schedule from what a user passes.

    Args:
        schedule: `"linear"`, `"cosine"`, `"exponential"` or `"polynomial"` (from `start` to
            `end`); a number; an object of this module; a
            `keras.optimizers.schedules.LearningRateSchedule` or any function of the position.
        start: First value, for a name.
        end: Last value, for a name.

    Returns:
        A callable of `(position, count)`.
    """
    if isinstance(schedule, str):
        if schedule not in _BY_NAME:
            raise _invalid_schedule(schedule)
        return _BY_NAME[schedule](start, end)
    if isinstance(schedule, (Schedule, Constant, Piecewise, WarmUp, _Function)):
        return schedule
    if isinstance(schedule, _NUMBER) and not isinstance(schedule, bool):
        return Constant(schedule)
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule) or callable(schedule):
        return _Function(schedule)
    raise _invalid_schedule(schedule)


def _invalid_schedule(schedule):
    expected = f"one of {tuple(_BY_NAME)}, a number, a schedule or a function of the position"
    return invalid("schedule", expected, repr(schedule))


def _check_finite(name, value):
    if isinstance(value, bool) or not isinstance(value, _NUMBER) or not math.isfinite(value):
        raise invalid(name, "a finite number", repr(value))
    return float(value)
