"""From values to places, and the values at which an axis has ticks."""

import dataclasses
import math

_NICE = (1, 2, 2.5, 5, 10)


@dataclasses.dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low: The value at `start`.
        high: The value at `end`; above `low`.
        start: A place in the picture.
        end: Likewise; below `start` for an axis that points upwards.
        is_log: Whether equal ratios are equally far apart.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value):
        """The place of a value."""
        low, high = self._of(self.low), self._of(self.high)
        return self.start + (self._of(value) - low) / (high - low) * (self.end - self.start)

    def _of(self, value):
        return math.log10(value) if self.is_log else value

    def ticks(self, most=5):
        """Round values on the axis, at most so many."""
        return (
            _log_ticks(self.low, self.high, most)
            if self.is_log
            else _ticks(self.low, self.high, most)
        )


def around(values, start, end, *, is_log=False, margin=0.12, least=0.0, limits=(None, None)):
    """A scale that holds all values, with room at both ends.

    Args:
        values: One number or more; above 0 for a logarithmic axis.
        start: As of `Scale`.
        end: As of `Scale`.
        is_log: As of `Scale`.
        margin: The room, as a part of the range.
        least: The smallest range that is shown (of a logarithmic axis: in powers of ten).
        limits: What the axis must not pass, or `None`.
    """
    ends = [min(values), max(values)]
    if is_log:
        ends = [math.log10(value) for value in ends]
    middle, span = sum(ends) / 2, max(ends[1] - ends[0], least, 1e-9 * abs(sum(ends)), 1e-12)
    ends = [middle - span * (0.5 + margin), middle + span * (0.5 + margin)]
    if is_log:
        return Scale(10 ** ends[0], 10 ** ends[1], start, end, True)
    low, high = limits
    return Scale(
        ends[0] if low is None else max(low, ends[0]),
        ends[1] if high is None else min(high, ends[1]),
        start,
        end,
    )


def _ticks(low, high, most):
    for power in range(math.floor(math.log10((high - low) / most)), 400):
        for nice in _NICE:
            step = nice * 10.0**power
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if last - first < most:
                return [i * step for i in range(first, last + 1)]
    return []


def _log_ticks(low, high, most):
    """Powers of ten, with 2 and 5 between them where the range is short."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**power for power in powers for digit in digits]
        found = [value for value in found if low <= value <= high]
        if len(found) <= most:
            return found if len(found) > 1 else [low, high]
    return found[:: math.ceil(len(found) / most)]
