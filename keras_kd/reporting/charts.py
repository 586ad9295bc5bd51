"""The charts of a report: bars, dots by seed, confusion, Pareto front, reliability."""

import dataclasses
import itertools
import xml.etree.ElementTree as ET
from typing import Any

from keras_kd._utils import formatting
from keras_kd._utils.markup import element
from keras_kd.reporting import axes, breakdowns
from keras_kd.reporting.axes import WIDTH, Box, Canvas, shortened, width_of
from keras_kd.reporting.comparison import TEACHER, Comparison
from keras_kd.reporting.statistics import mean_and_deviation

# More classes leave no room for their names.
MOST_CLASSES = 20
# Confusion matrices of at most so many classes have numbers in their cells.
_MOST_NUMBERED = 12
# The accuracy of fewer samples is off by 15 points and more, by chance.
FEWEST = 10
COSTS = {
    "bytes": ("size", formatting.size),
    "median_us": ("latency", formatting.microseconds),
}


@dataclasses.dataclass(frozen=True)
class Rows:
    """A layout of rows of one height below each other, in units of the picture."""

    height: float
    top: float
    left: float = 2
    right: float = WIDTH - 2

    def top_of(self, row: int) -> float:
        """Where a row begins; the one after the last row is the end of all."""
        return self.top + self.height * row


_BARS = Rows(height=22, top=4)
_SHARES = Rows(height=40, top=4)
_SEEDS = Rows(height=42, top=8, left=10, right=WIDTH - 14)
# A picture with two axes is 250 high; the numbers of the axes stand left of and below the frame.
_HEIGHT = 250
_FRAME = Box(left=42, top=24, right=WIDTH - 8, bottom=208)


# Horizontal bars: changes to both sides of zero, and shares.


@dataclasses.dataclass(frozen=True)
class Change:
    """A bar that may point either way; values in points."""

    label: str
    value: float
    deviation: float | None = None
    words: str = ""


def changes(title: str, bars: list[Change], description: str) -> ET.Element:
    """Bars from a middle line: gains to the right, losses to the left.

    Args:
        title: The title of the picture.
        bars: The bars, from above.
        description: The figures in words, for those who cannot see the picture.
    """
    canvas = Canvas(_BARS.top_of(len(bars)) + 4, title, description)
    names = min(110.0, max(width_of(bar.label) for bar in bars)) + 8
    texts = [_value(bar) for bar in bars]
    left, right = names + 4, WIDTH - max(map(width_of, texts)) - 8
    scale = _around_zero(bars, left, right)
    for i, (bar, text) in enumerate(zip(bars, texts, strict=True)):
        _draw_change(canvas, scale, bar, text, names, _BARS.top_of(i))
    canvas.line(scale(0), _BARS.top, scale(0), _BARS.top_of(len(bars)), "zero")
    return canvas.svg


def _around_zero(bars, left, right):
    """The bars and their whiskers; what no bar needs is left to the longer side."""
    reach = [(bar.value + sign * (bar.deviation or 0.0)) for bar in bars for sign in (-1, 1)]
    low, high = min(0.0, *reach), max(0.0, *reach)
    if low == high:
        low, high = -1.0, 1.0
    return axes.Scale(low, high, left, right)


def _draw_change(canvas, scale, bar, text, names, top):
    middle, thickness = top + _BARS.height / 2, 14
    class_ = "better" if bar.value >= 0 else "worse"
    ends = sorted((scale(0), scale(bar.value)))
    title = element("title", bar.words or f"{bar.label}: {text}")
    canvas.add(
        "rect",
        title,
        x=ends[0],
        y=middle - thickness / 2,
        width=ends[1] - ends[0],
        height=thickness,
        class_=class_,
    )
    if bar.deviation:
        whisker = [scale(bar.value + sign * bar.deviation) for sign in (-1, 1)]
        canvas.line(whisker[0], middle, whisker[1], middle, "whisker ink")
    canvas.text(names, middle + 4, shortened(bar.label, names - 8), "end", "name")
    canvas.text(WIDTH - 2, middle + 4, text, "end", "value")


def _value(bar):
    return formatting.fixed(bar.value, 1 if abs(bar.value) < 99.95 else 0, "+")


def shares(title: str, bars: list[tuple[str, float, str]], description: str) -> ET.Element:
    """Bars from 0 to 100 %.

    Args:
        title: The title of the picture.
        bars: A list of `(label, share, class of the color)`.
        description: The figures in words, for those who cannot see the picture.
    """
    canvas = Canvas(_SHARES.top_of(len(bars)), title, description)
    scale = axes.Scale(0.0, 1.0, _SHARES.left, _SHARES.right)
    for i, (label, share, class_) in enumerate(bars):
        top = _SHARES.top_of(i)
        text = formatting.percent(share)
        canvas.text(2, top + 13, shortened(label, WIDTH - width_of(text) - 12), "start", "name")
        canvas.text(WIDTH - 2, top + 13, text, "end", "value")
        canvas.add("rect", x=2, y=top + 19, width=WIDTH - 4, height=10, class_="track")
        canvas.add(
            "rect", x=2, y=top + 19, width=scale(share) - 2, height=10, class_=f"bar {class_}"
        )
    return canvas.svg


# Each model's score in each seed.


def draw_by_seed(comparison: Comparison) -> ET.Element:
    """Each model's score in each seed: one row for each model, one dot for each seed."""
    metric, candidates = comparison.metric, comparison.candidates
    scores = {each.name: each.scores(metric) for each in candidates}
    bottom = _SEEDS.top_of(len(candidates))
    canvas = Canvas(bottom + 40, f"{metric.label} by seed", _describe_seeds(metric, candidates))
    shown = [metric.shown(float(value)) for found in scores.values() for value in found]
    scale = axes.around(shown, _SEEDS.left, _SEEDS.right, margin=0.08, least=_least(metric, shown))
    unit = f"{metric.label}, %" if metric.is_fraction else metric.label
    canvas.x_axis(scale, bottom, _SEEDS.top, unit, lambda value: f"{value:.6g}")
    places = [
        [(scale(metric.shown(float(value))), _SEEDS.top_of(i) + 30) for value in scores[each.name]]
        for i, each in enumerate(candidates)
    ]
    _connect(canvas, candidates, places)
    styles = axes.styles(candidates)
    for i, each in enumerate(candidates):
        _row(canvas, metric, each, _SEEDS.top_of(i), places[i], styles[each.name])
    return canvas.svg


def _least(metric, shown):
    """The smallest range of values that a picture shows, so that noise does not look large."""
    return 1.0 if metric.is_fraction else 0.02 * max(map(abs, shown))


def _connect(canvas, candidates, places):
    """Thin lines from a seed's student to the next row's of the same seed."""
    trained = [
        found for each, found in zip(candidates, places, strict=True) if each.role != TEACHER
    ]
    for above, below in itertools.pairwise(trained):
        if len(above) == len(below):
            for one, other in zip(above, below, strict=True):
                canvas.path([one, other], "pair")


def _row(canvas, metric, candidate, top, places, style):
    y = top + 30
    canvas.line(_SEEDS.left, y, _SEEDS.right, y, "row")
    for seed, (x, _) in enumerate(places):
        value = metric.text(float(candidate.scores(metric)[seed]))
        canvas.svg.append(style.mark(x, y, f"{candidate.name}, seed {seed}: {value}"))
    mean, deviation = mean_and_deviation(candidate.scores(metric))
    value = metric.text(mean, deviation)
    canvas.text(_SEEDS.right, top + 16, value, "end", "value")
    room = _SEEDS.right - _SEEDS.left - width_of(value) - 10
    canvas.text(_SEEDS.left, top + 16, shortened(candidate.name, room), "start", "name")


def _describe_seeds(metric, candidates):
    parts = []
    for each in candidates:
        listed = ", ".join(metric.text(float(value)) for value in each.scores(metric))
        parts.append(f"{each.name}: {listed}")
    return "; ".join(parts)


# What is mistaken for what.


def draw_confusion(change: dict[str, Any]) -> ET.Element:
    """What is mistaken for what, more often or less than without the teacher.

    Args:
        change: See `breakdowns.compare_confusion`, with at most `MOST_CLASSES` classes.
    """
    labels, difference = change["labels"], change["difference"]
    names = min(84.0, max(width_of(label) for label in labels)) + 6
    rotated = max(width_of(label) for label in labels) > (WIDTH - names) / len(labels)
    top = (names if rotated else 18) + 18
    cell = (WIDTH - names - 2) / len(labels)
    canvas = Canvas(
        top + cell * len(labels) + 4,
        "Confusion, distilled minus labels only",
        describe_confusion(change),
    )
    canvas.text(names, 12, "predicted", "start", "axis")
    canvas.text(0, top - 4 if not rotated else 12, "true", "start", "axis")
    most = max(float(abs(difference).max()), 1e-9)
    for i, label in enumerate(labels):
        middle = (i + 0.5) * cell
        canvas.text(names - 5, top + middle + 4, shortened(label, names - 6), "end", "tick")
        _column(canvas, names + middle, top - 6, label, rotated, names)
        for j in range(len(labels)):
            at = names + j * cell, top + i * cell
            _cell(
                canvas, *at, cell, difference[i, j], most, i == j, (label, labels[j]), len(labels)
            )
    return canvas.svg


def _column(canvas, x, y, label, rotated, room):
    if rotated:
        turn = f"rotate(-90 {x + 4:.1f} {y:.1f})"
        canvas.text(x + 4, y, shortened(label, room - 6), "start", "tick", transform=turn)
    else:
        canvas.text(x, y, str(label), "middle", "tick")


def _cell(canvas, x, y, size, value, most, is_diagonal, labels, count):
    better = (value > 0) == is_diagonal
    class_ = "cell" if value == 0 else f"cell {'better' if better else 'worse'}"
    strength = f"{0.12 + 0.55 * abs(value) / most:.2f}" if value else None
    words = f"{labels[0]} taken for {labels[1]}: {_number(value)} samples"
    box = {"x": x + 0.5, "y": y + 0.5, "width": size - 1, "height": size - 1}
    canvas.add("rect", element("title", words), **box, class_=class_, fill_opacity=strength)
    if abs(value) >= 0.5 and count <= _MOST_NUMBERED:
        canvas.text(
            x + size / 2,
            y + size / 2 + 4,
            formatting.fixed(float(value), 0, "+"),
            "middle",
            "count",
        )


def _number(value):
    return formatting.fixed(float(value), 0 if value == round(value) else 1, "+")


def describe_confusion(change: dict[str, Any], most: int = 5) -> str:
    """The largest changes in words."""
    labels, difference = change["labels"], change["difference"]
    pairs = [
        (float(difference[i, j]), one, other)
        for i, one in enumerate(labels)
        for j, other in enumerate(labels)
        if i != j and difference[i, j] != 0
    ]
    if not pairs:
        return "No difference."
    pairs.sort(key=lambda pair: -abs(pair[0]))
    listed = [f"{one} taken for {other} {_number(value)}" for value, one, other in pairs[:most]]
    return f"Largest changes, in samples: {', '.join(listed)}."


# The score against what it costs.


def draw_pareto(comparison: Comparison, rows: list[dict], cost: str) -> ET.Element | None:
    """The score against bytes or microseconds; `None` where fewer than two models have this cost.

    A dashed line joins the models that no other beats in both.

    Args:
        comparison: The models.
        rows: The main table, from `tables.main_rows`.
        cost: `"bytes"` or `"median_us"`.
    """
    name, cost_text = COSTS[cost]
    metric = comparison.metric
    rows = [row for row in rows if row[cost]]
    if len(rows) < 2:
        return None
    title = f"{metric.label} against {name}"
    canvas = Canvas(_HEIGHT, title, _describe_pareto(metric, rows, cost, cost_text))
    x = axes.around([row[cost] for row in rows], _FRAME.left, _FRAME.right, is_log=True, least=0.5)
    y = _y_scale(metric, rows)
    unit = f"{metric.label}, %" if metric.is_fraction else metric.label
    canvas.y_axis(y, _FRAME.left, _FRAME.right, unit, lambda value: f"{value:.6g}")
    canvas.x_axis(
        x,
        _FRAME.bottom,
        _FRAME.top,
        f"{name} (logarithmic)",
        lambda value: _round(cost_text(value)),
        most=4,
    )
    points = [(x(row[cost]), y(metric.shown(row["mean"]))) for row in rows]
    _front(canvas, metric, rows, points, cost)
    _points(canvas, comparison, rows, points, y)
    return canvas.svg


def _round(text):
    return text.replace(".0 ", " ")


def _y_scale(metric, rows):
    shown = [
        metric.shown(row["mean"] + sign * (row["deviation"] or 0.0))
        for row in rows
        for sign in (-1, 1)
    ]
    least = 1.0 if metric.is_fraction else 0.02 * max(map(abs, shown))
    return axes.around(shown, _FRAME.bottom, _FRAME.top, margin=0.1, least=least)


def _front(canvas, metric, rows, points, cost):
    kept = [i for i, row in enumerate(rows) if not any(_beats(metric, o, row, cost) for o in rows)]
    kept.sort(key=lambda i: rows[i][cost])
    if len(kept) > 1:
        canvas.path([points[i] for i in kept], "front")


def _beats(metric, one, other, cost):
    gain = metric.gain(one["mean"], other["mean"])
    at_least = gain >= 0 and one[cost] <= other[cost]
    return at_least and (gain > 0 or one[cost] < other[cost])


def _points(canvas, comparison, rows, points, y):
    metric, styles = comparison.metric, axes.styles(comparison.candidates)
    words = [shortened(row["name"], 120) for row in rows]
    frame = Box(_FRAME.left + 2, _FRAME.top - 4, _FRAME.right, _FRAME.bottom)
    places = axes.place([(*point, word) for point, word in zip(points, words, strict=True)], frame)
    for row, (px, py), word, place in zip(rows, points, words, places, strict=True):
        style = styles[row["name"]]
        if row["deviation"]:
            ends = [y(metric.shown(row["mean"] + sign * row["deviation"])) for sign in (-1, 1)]
            canvas.line(px, ends[0], px, ends[1], f"whisker {style.class_}")
        canvas.svg.append(style.mark(px, py, f"{row['name']}: {metric.text(row['mean'])}"))
        canvas.text(place[0], place[1], word, place[2], "name")


def _describe_pareto(metric, rows, cost, cost_text):
    return "; ".join(
        f"{row['name']} {metric.text(row['mean'], row['deviation'])} at {cost_text(row[cost])}"
        for row in rows
    )


# Confidence against accuracy.


def draw_reliability(comparison: Comparison) -> ET.Element | None:
    """Confidence against accuracy; `None` where no model has a curve.

    On the diagonal a model is as sure as it is right.
    """
    curves = {}
    for each in comparison.candidates:
        curve = [row for row in breakdowns.reliability_curve(each) if row["count"] >= FEWEST]
        if curve:
            curves[each.name] = curve
    if not curves:
        return None
    canvas = Canvas(_HEIGHT, "Reliability curve", _describe_reliability(comparison))
    frame = dataclasses.replace(_FRAME, right=WIDTH - 10)  # the last number is centered there
    low = min(row["confidence"] for curve in curves.values() for row in curve)
    low = 100 * min(low, *(row["accuracy"] for curve in curves.values() for row in curve))
    low = max(0.0, low - 4)
    x = axes.Scale(low, 101.5, frame.left, frame.right)
    y = axes.Scale(low, 101.5, frame.bottom, frame.top)
    canvas.y_axis(y, frame.left, frame.right, "right, %", lambda value: f"{value:.6g}")
    canvas.x_axis(
        x,
        frame.bottom,
        frame.top,
        "confidence, %",
        lambda value: f"{value:.6g}",
        most=6,
    )
    canvas.line(x(low), y(low), x(100), y(100), "diagonal")
    styles = axes.styles(comparison.candidates)
    for name, curve in curves.items():
        _curve(canvas, name, curve, x, y, styles[name])
    return canvas.svg


def _curve(canvas, name, curve, x, y, style):
    points = [(x(100 * row["confidence"]), y(100 * row["accuracy"])) for row in curve]
    canvas.path(points, f"curve {style.class_}")
    for row, (px, py) in zip(curve, points, strict=True):
        words = (
            f"{name}: {100 * row['confidence']:.0f} % sure, {100 * row['accuracy']:.0f} % right "
            f"({row['count']:,} samples)"
        )
        canvas.svg.append(style.mark(px, py, words, radius=3.0))


def _describe_reliability(comparison):
    errors = {each.name: each.mean("quality", "ece") for each in comparison.candidates}
    listed = [f"{name} {error:.3f}" for name, error in errors.items() if error is not None]
    return "Expected calibration errors: " + (", ".join(listed) or "not measured")
