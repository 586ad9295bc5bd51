"""The charts of a report: bars, dots by seed, confusion, Pareto, reliability."""

import dataclasses
import itertools

from keras_kd._utils import formatting
from keras_kd.reporting import breakdowns
from keras_kd.reporting.comparison import TEACHER
from keras_kd.reporting.markup import element
from keras_kd.reporting.plots import axes
from keras_kd.reporting.plots.axes import WIDTH, Canvas, shortened, width_of
from keras_kd.reporting.statistics import mean_and_deviation

# Horizontal bars: changes to both sides of zero, and shares.


_BARS_ROW, _BAR, _BARS_TOP = 22, 14, 4


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
    canvas = Canvas(_BARS_TOP + _BARS_ROW * len(bars) + 4, title, description)
    names = min(110.0, max(width_of(bar.label) for bar in bars)) + 8
    texts = [_value(bar) for bar in bars]
    left, right = names + 4, WIDTH - max(map(width_of, texts)) - 8
    scale = _around_zero(bars, left, right)
    for i, (bar, text) in enumerate(zip(bars, texts, strict=True)):
        _change(canvas, scale, bar, text, names, _BARS_TOP + _BARS_ROW * i)
    canvas.line(scale(0), _BARS_TOP, scale(0), _BARS_TOP + _BARS_ROW * len(bars), "zero")
    return canvas.svg


def _around_zero(bars, left, right):
    """The bars and their whiskers; what no bar needs is left to the longer side."""
    reach = [(bar.value + sign * (bar.deviation or 0.0)) for bar in bars for sign in (-1, 1)]
    low, high = min(0.0, *reach), max(0.0, *reach)
    if low == high:
        low, high = -1.0, 1.0
    return axes.Scale(low, high, left, right)


def _change(canvas, scale, bar, text, names, top):
    middle = top + _BARS_ROW / 2
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
    return formatting.fixed(bar.value, 1 if abs(bar.value) < 99.95 else 0, "+")


def shares(title, bars, description):
    """Bars from 0 to 100 %.

    Args:
        title: Of the picture.
        bars: A list of `(label, share, class of the colour)`.
        description: For those who cannot see it.
    """
    row = 40
    canvas = Canvas(_BARS_TOP + row * len(bars), title, description)
    scale = axes.Scale(0.0, 1.0, 2, WIDTH - 2)
    for i, (label, share, class_) in enumerate(bars):
        top = _BARS_TOP + row * i
        text = formatting.percent(share)
        canvas.text(2, top + 13, shortened(label, WIDTH - width_of(text) - 12), "start", "name")
        canvas.text(WIDTH - 2, top + 13, text, "end", "value")
        canvas.add("rect", x=2, y=top + 19, width=WIDTH - 4, height=10, class_="track")
        canvas.add(
            "rect", x=2, y=top + 19, width=scale(share) - 2, height=10, class_=f"bar {class_}"
        )
    return canvas.svg


# Each model's score in each seed: one row a model, one dot a seed.


_SEEDS_ROW, _SEEDS_TOP, _SEEDS_LEFT, _SEEDS_RIGHT = 42, 8, 10, WIDTH - 14


def draw_by_seed(comparison):
    """The picture, an SVG element."""
    metric, candidates = comparison.metric, comparison.candidates
    scores = {each.name: each.scores(metric) for each in candidates}
    bottom = _SEEDS_TOP + _SEEDS_ROW * len(candidates)
    canvas = Canvas(bottom + 40, f"{metric.label} by seed", _describe_seeds(metric, candidates))
    shown = [metric.shown(float(value)) for found in scores.values() for value in found]
    scale = axes.around(shown, _SEEDS_LEFT, _SEEDS_RIGHT, margin=0.08, least=_least(metric, shown))
    unit = f"{metric.label}, %" if metric.is_fraction else metric.label
    canvas.x_axis(scale, bottom, _SEEDS_TOP, unit, lambda value: f"{value:.6g}")
    places = [
        [
            (scale(metric.shown(float(value))), _SEEDS_TOP + _SEEDS_ROW * i + 30)
            for value in scores[each.name]
        ]
        for i, each in enumerate(candidates)
    ]
    _connect(canvas, candidates, places)
    styles = axes.styles(candidates)
    for i, each in enumerate(candidates):
        _row(canvas, metric, each, _SEEDS_TOP + _SEEDS_ROW * i, places[i], styles[each.name])
    return canvas.svg


def _least(metric, shown):
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
    canvas.line(_SEEDS_LEFT, y, _SEEDS_RIGHT, y, "row")
    for seed, (x, _) in enumerate(places):
        value = metric.text(float(candidate.scores(metric)[seed]))
        canvas.svg.append(style.mark(x, y, f"{candidate.name}, seed {seed}: {value}"))
    mean, deviation = mean_and_deviation(candidate.scores(metric))
    value = metric.text(mean, deviation)
    canvas.text(_SEEDS_RIGHT, top + 16, value, "end", "value")
    room = _SEEDS_RIGHT - _SEEDS_LEFT - width_of(value) - 10
    canvas.text(_SEEDS_LEFT, top + 16, shortened(candidate.name, room), "start", "name")


def _describe_seeds(metric, candidates):
    parts = []
    for each in candidates:
        listed = ", ".join(metric.text(float(value)) for value in each.scores(metric))
        parts.append(f"{each.name}: {listed}")
    return "; ".join(parts)


# What is mistaken for what, more often or less than without the teacher.


# More classes than that leave no room for their names.
MOST_CLASSES = 20
_WITH_NUMBERS = 12


def draw_confusion(change):
    """The picture, an SVG element.

    Args:
        change: Of `classes.confusion_change`, of at most `MOST_CLASSES` classes.
    """
    labels, difference = change["labels"], change["difference"]
    names = min(84.0, max(width_of(label) for label in labels)) + 6
    rotated = max(width_of(label) for label in labels) > (WIDTH - names) / len(labels)
    top = (names if rotated else 18) + 18
    cell = (WIDTH - names - 2) / len(labels)
    canvas = Canvas(
        top + cell * len(labels) + 4, "Confusion, distilled minus labels only", told(change)
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
    words = f"{labels[0]} taken for {labels[1]}: {_number(value)} rows"
    box = {"x": x + 0.5, "y": y + 0.5, "width": size - 1, "height": size - 1}
    canvas.add("rect", element("title", words), **box, class_=class_, fill_opacity=strength)
    if abs(value) >= 0.5 and count <= _WITH_NUMBERS:
        canvas.text(
            x + size / 2,
            y + size / 2 + 4,
            formatting.fixed(float(value), 0, "+"),
            "middle",
            "count",
        )


def _number(value):
    return formatting.fixed(float(value), 0 if value == round(value) else 1, "+")


def told(change, most=5):
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
    return f"Largest changes, in rows: {', '.join(listed)}."


# The score against what it costs: bytes or microseconds.


_PARETO_HEIGHT, _PARETO_TOP, _PARETO_BOTTOM, _PARETO_LEFT, _PARETO_RIGHT = (
    250,
    24,
    208,
    42,
    WIDTH - 8,
)
COSTS = {
    "bytes": ("size", formatting.size),
    "median_us": ("latency", formatting.microseconds),
}


def draw_pareto(comparison, rows, cost):
    """The picture, an SVG element, or `None` where fewer than two models have this cost.

    A dashed line joins the models that no other one beats in both.

    Args:
        comparison: A `Comparison`.
        rows: Of `table.rows`.
        cost: `"bytes"` or `"median_us"`.
    """
    name, cost_text = COSTS[cost]
    metric = comparison.metric
    rows = [row for row in rows if row[cost]]
    if len(rows) < 2:
        return None
    title = f"{metric.label} against {name}"
    canvas = Canvas(_PARETO_HEIGHT, title, _describe_pareto(metric, rows, cost, cost_text))
    x = axes.around(
        [row[cost] for row in rows], _PARETO_LEFT, _PARETO_RIGHT, is_log=True, least=0.5
    )
    y = _y_scale(metric, rows)
    unit = f"{metric.label}, %" if metric.is_fraction else metric.label
    canvas.y_axis(y, _PARETO_LEFT, _PARETO_RIGHT, unit, lambda value: f"{value:.6g}")
    canvas.x_axis(
        x,
        _PARETO_BOTTOM,
        _PARETO_TOP,
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
    return axes.around(shown, _PARETO_BOTTOM, _PARETO_TOP, margin=0.1, least=least)


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
    frame = axes.Box(_PARETO_LEFT + 2, _PARETO_TOP - 4, _PARETO_RIGHT, _PARETO_BOTTOM)
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


# Confidence against accuracy: on the diagonal a model is as sure as it is right.


# The accuracy of fewer rows than that is off by 15 points and more, by chance.
FEWEST = 10
(
    _RELIABILITY_HEIGHT,
    _RELIABILITY_TOP,
    _RELIABILITY_BOTTOM,
    _RELIABILITY_LEFT,
    _RELIABILITY_RIGHT,
) = 250, 24, 208, 42, WIDTH - 10


def draw_reliability(comparison):
    """The picture, an SVG element, or `None` where no model has a curve."""
    curves = {}
    for each in comparison.candidates:
        curve = [row for row in breakdowns.curve(each) if row["count"] >= FEWEST]
        if curve:
            curves[each.name] = curve
    if not curves:
        return None
    canvas = Canvas(_RELIABILITY_HEIGHT, "Reliability curve", _describe_reliability(comparison))
    low = min(row["confidence"] for curve in curves.values() for row in curve)
    low = 100 * min(low, *(row["accuracy"] for curve in curves.values() for row in curve))
    low = max(0.0, low - 4)
    x = axes.Scale(low, 101.5, _RELIABILITY_LEFT, _RELIABILITY_RIGHT)
    y = axes.Scale(low, 101.5, _RELIABILITY_BOTTOM, _RELIABILITY_TOP)
    canvas.y_axis(
        y, _RELIABILITY_LEFT, _RELIABILITY_RIGHT, "right, %", lambda value: f"{value:.6g}"
    )
    canvas.x_axis(
        x,
        _RELIABILITY_BOTTOM,
        _RELIABILITY_TOP,
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
            f"({row['count']:,} rows)"
        )
        canvas.svg.append(style.mark(px, py, words, radius=3.0))


def _describe_reliability(comparison):
    errors = {each.name: each.mean("quality", "ece") for each in comparison.candidates}
    told = [f"{name} {error:.3f}" for name, error in errors.items() if error is not None]
    return "Expected calibration errors: " + (", ".join(told) or "not measured")
