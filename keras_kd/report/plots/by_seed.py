"""Each model's score in each seed: one row a model, one dot a seed."""

import itertools

from keras_kd.report import entrants as roles
from keras_kd.report.plots import markers, scales
from keras_kd.report.plots.canvas import WIDTH, Canvas, shortened, width_of

_ROW, _TOP, _LEFT, _RIGHT = 42, 8, 10, WIDTH - 14


def draw(comparison):
    """The picture, an SVG element."""
    metric, entrants = comparison.metric, comparison.entrants
    scores = {each.name: each.scores(metric) for each in entrants}
    bottom = _TOP + _ROW * len(entrants)
    canvas = Canvas(bottom + 40, f"{metric.label} by seed", _described(metric, entrants))
    shown = [metric.shown(float(value)) for found in scores.values() for value in found]
    scale = scales.around(shown, _LEFT, _RIGHT, margin=0.08, least=_least(metric, shown))
    unit = f"{metric.label}, %" if metric.is_fraction else metric.label
    canvas.x_axis(scale, bottom, _TOP, unit, lambda value: f"{value:.6g}")
    places = [
        [(scale(metric.shown(float(value))), _TOP + _ROW * i + 30) for value in scores[each.name]]
        for i, each in enumerate(entrants)
    ]
    _connect(canvas, entrants, places)
    styles = markers.styles(entrants)
    for i, each in enumerate(entrants):
        _row(canvas, metric, each, _TOP + _ROW * i, places[i], styles[each.name])
    return canvas.svg


def _least(metric, shown):
    return 1.0 if metric.is_fraction else 0.02 * max(map(abs, shown))


def _connect(canvas, entrants, places):
    """Thin lines from a seed's student to the next row's of the same seed."""
    trained = [
        found for each, found in zip(entrants, places, strict=True) if each.role != roles.TEACHER
    ]
    for above, below in itertools.pairwise(trained):
        if len(above) == len(below):
            for one, other in zip(above, below, strict=True):
                canvas.path([one, other], "pair")


def _row(canvas, metric, entrant, top, places, style):
    y = top + 30
    canvas.line(_LEFT, y, _RIGHT, y, "row")
    for seed, (x, _) in enumerate(places):
        value = metric.text(float(entrant.scores(metric)[seed]))
        canvas.svg.append(style.mark(x, y, f"{entrant.name}, seed {seed}: {value}"))
    mean, deviation = roles.mean_and_deviation(entrant.scores(metric))
    value = metric.text(mean, deviation)
    canvas.text(_RIGHT, top + 16, value, "end", "value")
    room = _RIGHT - _LEFT - width_of(value) - 10
    canvas.text(_LEFT, top + 16, shortened(entrant.name, room), "start", "name")


def _described(metric, entrants):
    parts = []
    for each in entrants:
        listed = ", ".join(metric.text(float(value)) for value in each.scores(metric))
        parts.append(f"{each.name}: {listed}")
    return "; ".join(parts)
