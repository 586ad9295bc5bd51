"""The score against what it costs: bytes or microseconds."""

from keras_kd.report import numbers
from keras_kd.report.plots import labels, markers, scales
from keras_kd.report.plots.canvas import WIDTH, Canvas, shortened

_HEIGHT, _TOP, _BOTTOM, _LEFT, _RIGHT = 250, 24, 208, 42, WIDTH - 8
COSTS = {
    "bytes": ("size", numbers.size),
    "median_us": ("latency", numbers.microseconds),
}


def draw(comparison, rows, cost):
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
    canvas = Canvas(_HEIGHT, title, _described(metric, rows, cost, cost_text))
    x = scales.around([row[cost] for row in rows], _LEFT, _RIGHT, is_log=True, least=0.5)
    y = _y_scale(metric, rows)
    unit = f"{metric.label}, %" if metric.is_fraction else metric.label
    canvas.y_axis(y, _LEFT, _RIGHT, unit, lambda value: f"{value:.6g}")
    canvas.x_axis(
        x, _BOTTOM, _TOP, f"{name} (logarithmic)", lambda value: _round(cost_text(value)), most=4
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
    return scales.around(shown, _BOTTOM, _TOP, margin=0.1, least=least)


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
    metric, styles = comparison.metric, markers.styles(comparison.entrants)
    words = [shortened(row["name"], 120) for row in rows]
    frame = labels.Box(_LEFT + 2, _TOP - 4, _RIGHT, _BOTTOM)
    places = labels.place(
        [(*point, word) for point, word in zip(points, words, strict=True)], frame
    )
    for row, (px, py), word, place in zip(rows, points, words, places, strict=True):
        style = styles[row["name"]]
        if row["deviation"]:
            ends = [y(metric.shown(row["mean"] + sign * row["deviation"])) for sign in (-1, 1)]
            canvas.line(px, ends[0], px, ends[1], f"whisker {style.class_}")
        canvas.svg.append(style.mark(px, py, f"{row['name']}: {metric.text(row['mean'])}"))
        canvas.text(place[0], place[1], word, place[2], "name")


def _described(metric, rows, cost, cost_text):
    return "; ".join(
        f"{row['name']} {metric.text(row['mean'], row['deviation'])} at {cost_text(row[cost])}"
        for row in rows
    )
