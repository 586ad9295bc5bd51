"""Horizontal bars: changes to both sides of zero, and shares."""

import dataclasses

from keras_kd.report import numbers
from keras_kd.report.markup import element
from keras_kd.report.plots import scales
from keras_kd.report.plots.canvas import WIDTH, Canvas, shortened, width_of

_ROW, _BAR, _TOP = 22, 14, 4


@dataclasses.dataclass(frozen=True)
class Change:
    """A bar that may point either way; values in points."""

    label: str
    value: float
    deviation: float | None = None
    words: str = ""


def changes(title, bars, description):
    """Bars from a middle line: gains to the right, losses to the left.

    Args:
        title: Of the picture.
        bars: A list of `Change`.
        description: For those who cannot see it.
    """
    canvas = Canvas(_TOP + _ROW * len(bars) + 4, title, description)
    names = min(110.0, max(width_of(bar.label) for bar in bars)) + 8
    texts = [_value(bar) for bar in bars]
    left, right = names + 4, WIDTH - max(map(width_of, texts)) - 8
    scale = _around_zero(bars, left, right)
    for i, (bar, text) in enumerate(zip(bars, texts, strict=True)):
        _change(canvas, scale, bar, text, names, _TOP + _ROW * i)
    canvas.line(scale(0), _TOP, scale(0), _TOP + _ROW * len(bars), "zero")
    return canvas.svg


def _around_zero(bars, left, right):
    """The bars and their whiskers; what no bar needs is left to the longer side."""
    reach = [(bar.value + sign * (bar.deviation or 0.0)) for bar in bars for sign in (-1, 1)]
    low, high = min(0.0, *reach), max(0.0, *reach)
    if low == high:
        low, high = -1.0, 1.0
    return scales.Scale(low, high, left, right)


def _change(canvas, scale, bar, text, names, top):
    middle = top + _ROW / 2
    class_ = "better" if bar.value >= 0 else "worse"
    ends = sorted((scale(0), scale(bar.value)))
    box = {"x": ends[0], "y": middle - _BAR / 2, "width": ends[1] - ends[0], "height": _BAR}
    title = element("title", bar.words or f"{bar.label}: {text}")
    canvas.add("rect", title, **box, class_=class_)
    if bar.deviation:
        whisker = [scale(bar.value + sign * bar.deviation) for sign in (-1, 1)]
        canvas.line(whisker[0], middle, whisker[1], middle, "whisker ink")
    canvas.text(names, middle + 4, shortened(bar.label, names - 8), "end", "name")
    canvas.text(WIDTH - 2, middle + 4, text, "end", "value")


def _value(bar):
    return numbers.fixed(bar.value, 1 if abs(bar.value) < 99.95 else 0, "+")


def shares(title, bars, description):
    """Bars from 0 to 100 %.

    Args:
        title: Of the picture.
        bars: A list of `(label, share, class of the colour)`.
        description: For those who cannot see it.
    """
    row = 40
    canvas = Canvas(_TOP + row * len(bars), title, description)
    scale = scales.Scale(0.0, 1.0, 2, WIDTH - 2)
    for i, (label, share, class_) in enumerate(bars):
        top = _TOP + row * i
        text = numbers.percent(share)
        canvas.text(2, top + 13, shortened(label, WIDTH - width_of(text) - 12), "start", "name")
        canvas.text(WIDTH - 2, top + 13, text, "end", "value")
        canvas.add("rect", x=2, y=top + 19, width=WIDTH - 4, height=10, class_="track")
        canvas.add(
            "rect", x=2, y=top + 19, width=scale(share) - 2, height=10, class_=f"bar {class_}"
        )
    return canvas.svg
