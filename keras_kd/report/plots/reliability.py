"""Confidence against accuracy: on the diagonal a model is as sure as it is right."""

from keras_kd.report import calibration
from keras_kd.report.plots import markers, scales
from keras_kd.report.plots.canvas import WIDTH, Canvas

# The accuracy of fewer rows than that is off by 15 points and more, by chance.
FEWEST = 10
_HEIGHT, _TOP, _BOTTOM, _LEFT, _RIGHT = 250, 24, 208, 42, WIDTH - 10


def draw(comparison):
    """The picture, an SVG element, or `None` where no model has a curve."""
    curves = {}
    for each in comparison.entrants:
        curve = [row for row in calibration.curve(each) if row["count"] >= FEWEST]
        if curve:
            curves[each.name] = curve
    if not curves:
        return None
    canvas = Canvas(_HEIGHT, "Reliability curve", _described(comparison))
    low = min(row["confidence"] for curve in curves.values() for row in curve)
    low = 100 * min(low, *(row["accuracy"] for curve in curves.values() for row in curve))
    low = max(0.0, low - 4)
    x = scales.Scale(low, 101.5, _LEFT, _RIGHT)
    y = scales.Scale(low, 101.5, _BOTTOM, _TOP)
    canvas.y_axis(y, _LEFT, _RIGHT, "right, %", lambda value: f"{value:.6g}")
    canvas.x_axis(x, _BOTTOM, _TOP, "confidence, %", lambda value: f"{value:.6g}", most=6)
    canvas.line(x(low), y(low), x(100), y(100), "diagonal")
    styles = markers.styles(comparison.entrants)
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


def _described(comparison):
    errors = {each.name: each.mean("quality", "ece") for each in comparison.entrants}
    told = [f"{name} {error:.3f}" for name, error in errors.items() if error is not None]
    return "Expected calibration errors: " + (", ".join(told) or "not measured")
