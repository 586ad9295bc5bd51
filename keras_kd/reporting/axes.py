"""Plots as SVG, in the colors of the page that holds them: canvas, axes, labels, markers.

They are not drawn by a plotting library: here text stays text in the page's own font, and colors
follow its light and dark themes. All pictures are `WIDTH` units wide, about what a column of the
page has in pixels, on a phone as on a desktop.
"""

import dataclasses
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

from keras_kd._utils.markup import element
from keras_kd.reporting.comparison import BASELINE, EXPORT, STUDENT, TEACHER, Candidate

WIDTH = 330
# In the units of the picture, which are pixels or a little more.
FONT = 12
# The width of a character of `FONT`, on the wide side, so that texts do not overlap.
CHARACTER = 6.7


class Canvas:
    """An SVG picture, from the top left corner.

    Args:
        height: The height, in the units of `WIDTH`.
        title: What it is, in a few words: the alternative text.
        description: What it shows, with the figures: read to those who cannot see it.
    """

    def __init__(self, height, title, description):
        self.height = height
        label = f"{title}. {description}"
        self.svg = element(
            "svg", viewBox=f"0 0 {WIDTH} {_short(height)}", role="img", aria_label=label
        )

    def add(self, tag: str, *children: Any, **attributes: Any) -> ET.Element:
        """Draws an element; numbers are shortened."""
        made = element(tag, *children, **{key: _short(value) for key, value in attributes.items()})
        self.svg.append(made)
        return made

    def text(
        self,
        x: float,
        y: float,
        words: str,
        anchor: str = "start",
        class_: str | None = None,
        **attributes: Any,
    ) -> None:
        """Writes; `y` is the base line."""
        self.add("text", words, x=x, y=y, text_anchor=anchor, class_=class_, **attributes)

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str = "grid") -> None:
        """Draws a straight line."""
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)

    def path(self, points: list[tuple[float, float]], class_: str) -> None:
        """Draws a line through points."""
        steps = " ".join(
            f"{'L' if i else 'M'}{_short(x)} {_short(y)}" for i, (x, y) in enumerate(points)
        )
        self.add("path", d=steps, class_=class_)

    def x_axis(
        self,
        scale: "Scale",
        y: float,
        top: float,
        label: str,
        tick_text: Callable[[float], str],
        most: int = 5,
    ) -> None:
        """An axis along the bottom, with lines up to `top`."""
        for value in scale.ticks(most):
            self.line(scale(value), top, scale(value), y)
            self.text(scale(value), y + 16, tick_text(value), "middle", "tick")
        self.text((scale.start + scale.end) / 2, y + 33, label, "middle", "axis")

    def y_axis(
        self,
        scale: "Scale",
        x: float,
        right: float,
        label: str,
        tick_text: Callable[[float], str],
        most: int = 6,
    ) -> None:
        """An axis along the left, with lines to `right`; its label stands on top of it."""
        for value in scale.ticks(most):
            self.line(x, scale(value), right, scale(value))
            self.text(x - 6, scale(value) + 4, tick_text(value), "end", "tick")
        self.text(0, 12, label, "start", "axis")


def _short(value):
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def shortened(words: Any, room: float) -> str:
    """Text cut to a width in units, with an ellipsis where something is missing.

    Not at its end: names that begin alike, as of numbered classes, must stay apart.
    """
    words, most = str(words), max(2, int(room / CHARACTER))
    if len(words) <= most:
        return words
    end = (most - 1) // 3
    return words[: most - 1 - end] + "…" + words[len(words) - end :]


def width_of(words: Any) -> float:
    """About how wide a text is, in units."""
    return len(str(words)) * CHARACTER


# Scales: from values to places, and where an axis has ticks.


_NICE = (1, 2, 2.5, 5, 10)


@dataclasses.dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low: The value at `start`.
        high: The value at `end`; above `low`.
        start: The place of `low` in the picture.
        end: The place of `high`; above `start` in the picture for an axis that points upwards.
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

    def ticks(self, most: int = 5) -> list[float]:
        """Round values on the axis, at most so many."""
        return (
            _log_ticks(self.low, self.high, most)
            if self.is_log
            else _ticks(self.low, self.high, most)
        )


def around(
    values: list[float],
    start: float,
    end: float,
    *,
    is_log: bool = False,
    margin: float = 0.12,
    least: float = 0.0,
    limits: tuple[float | None, float | None] = (None, None),
) -> Scale:
    """A scale that holds all values, with room at both ends.

    Args:
        values: One number or more; above 0 for a logarithmic axis.
        start: The place of the low end in the picture.
        end: The place of the high end.
        is_log: Whether equal ratios are equally far apart.
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


# Labels: names of points, placed so that they cover neither each other nor the points.

_GAP = 9.0


@dataclasses.dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> float:
        """By how much two rectangles overlap, as an area."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0.0) * max(height, 0.0)

    def outside(self, frame: "Box") -> float:
        """How far it reaches beyond another rectangle."""
        return (
            max(frame.left - self.left, 0.0)
            + max(self.right - frame.right, 0.0)
            + max(frame.top - self.top, 0.0)
            + max(self.bottom - frame.bottom, 0.0)
        )


def place(points: list[tuple[float, float, str]], frame: Box) -> list[tuple[float, float, str]]:
    """Where the names of points are written.

    Args:
        points: A list of `(x, y, words)`.
        frame: A `Box` that all names must lie in.

    Returns:
        A list of `(x, y, anchor)`, `y` the base line.
    """
    taken = [Box(x - 6, y - 6, x + 6, y + 6) for x, y, _ in points]
    placed = []
    for i, (x, y, words) in enumerate(points):
        others = taken[:i] + taken[i + 1 :]
        options = [_option(x, y, words, *place) for place in _PLACES]
        # Python's min keeps the first of equals: to the right, then to the left, and so on.
        best = min(options, key=lambda option: _cost(option[0], others, frame))
        taken.append(best[0])
        placed.append(best[1])
    return placed


# Anchor, steps to the side and lines down.
_PLACES = tuple(
    (anchor, side * _GAP, down)
    for down in (0.0, -0.9, 0.9, -1.8, 1.8, -2.7, 2.7)
    for anchor, side in (("start", 1), ("end", -1), ("middle", 0))
    if anchor != "middle" or abs(down) > 1
)


def _option(x, y, words, anchor, aside, down):
    width = width_of(words)
    at, middle = x + aside, y + down * FONT
    left = {"start": at, "end": at - width, "middle": at - width / 2}[anchor]
    box = Box(left, middle - 0.55 * FONT, left + width, middle + 0.55 * FONT)
    return box, (at, middle + 0.35 * FONT, anchor)


def _cost(box, others, frame):
    return 100 * box.outside(frame) + sum(box.meets(other) for other in others)


# Markers: a color and a shape for each model, the same in all plots.

RADIUS = 5.0
_FOUR = 4  # colors of exported files; a fifth file begins again with another shape
_SHAPES = ("square", "triangle", "pentagon", "cross")


class Style:
    """How a candidate is drawn.

    Args:
        class_: Class of the page's style sheet, which sets the color.
        shape: `"diamond"`, `"ring"`, `"disc"`, `"square"`, `"triangle"`, `"pentagon"`, `"cross"`.
    """

    def __init__(self, class_, shape):
        self.class_, self.shape = class_, shape

    def mark(
        self, x: float, y: float, words: str | None = None, radius: float = RADIUS
    ) -> ET.Element:
        """The marker at a place, with words that appear under the pointer."""
        title = None if words is None else element("title", words)
        return _shape(self.shape, x, y, radius, title, f"mark {self.class_}")


def styles(candidates: list[Candidate]) -> dict[str, Style]:
    """`{name: Style}`."""
    fixed = {
        TEACHER: Style("c-teacher", "diamond"),
        BASELINE: Style("c-baseline", "ring"),
        STUDENT: Style("c-student", "disc"),
    }
    exports = [each.name for each in candidates if each.role == EXPORT]
    made = {each.name: fixed[each.role] for each in candidates if each.role in fixed}
    for i, name in enumerate(exports):
        shape = _SHAPES[(i + i // _FOUR) % len(_SHAPES)]
        made[name] = Style(f"c-export-{i % _FOUR}", shape)
    return made


def _shape(shape, x, y, r, title, class_):
    if shape in ("ring", "disc"):
        class_ += " ring" if shape == "ring" else ""
        return element("circle", title, cx=f"{x:.1f}", cy=f"{y:.1f}", r=f"{r}", class_=class_)
    corners = {
        "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
        "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "triangle": ((0, -1.2), (1.1, 0.85), (-1.1, 0.85)),
        "pentagon": ((0, -1.15), (1.1, -0.35), (0.68, 0.95), (-0.68, 0.95), (-1.1, -0.35)),
        "cross": (
            *((-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4)),
            *((0.4, 1.1), (-0.4, 1.1), (-0.4, 0.4), (-1.1, 0.4), (-1.1, -0.4), (-0.4, -0.4)),
        ),
    }[shape]
    points = " ".join(f"{x + r * dx:.1f},{y + r * dy:.1f}" for dx, dy in corners)
    return element("polygon", title, points=points, class_=class_)
