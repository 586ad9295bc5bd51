"""`curves.svg`: how loss and accuracy went over the epochs."""

import xml.etree.ElementTree as ET
from typing import Any

from keras_kd._utils.markup import element
from keras_kd.reporting import axes
from keras_kd.reporting.axes import Canvas
from keras_kd.runs.context import Run

_PANELS = (("val_accuracy", "validation accuracy"), ("val_loss", "validation loss"))
_COLORS = {"teacher": "#8a8f98", "student": "#1f5fd0", "baseline": "#d2691e"}
_HEIGHT, _LEFT, _TOP, _BOTTOM = 260, 44, 24, 190
_STYLE = """
svg { background: #fff; font-family: system-ui, sans-serif; font-size: 12px; }
path { fill: none; stroke-width: 2; } line { stroke: #d8dce2; } text { fill: #333; }
""" + "".join(
    f".{name} {{ stroke: {color}; }} text.{name} {{ fill: {color}; stroke: none; }}\n"
    for name, color in _COLORS.items()
)


def draw(run: Run) -> list[str]:
    """Draws the rows of `results.csv`; returns the name of the file."""
    panels = []
    for column, words in _PANELS:
        found = {name: run.results.values(name, column) for name in _COLORS}
        panels.append(_panel(words, {name: each for name, each in found.items() if each}))
    height = _HEIGHT * len(panels)
    whole = element(
        "svg",
        element("style", _STYLE),
        viewBox=f"0 0 {axes.WIDTH} {height}",
        width=660,
        xmlns="http://www.w3.org/2000/svg",
    )
    for i, panel in enumerate(panels):
        panel.set("y", str(_HEIGHT * i))
        panel.set("height", str(_HEIGHT))
        whole.append(panel)
    run.folder.write_text("curves.svg", ET.tostring(whole, encoding="unicode") + "\n")
    return ["curves.svg"]


def _panel(words: str, found: dict[str, list[float]]) -> ET.Element:
    described = "; ".join(f"{name}: last {values[-1]:.4g}" for name, values in found.items())
    canvas = Canvas(_HEIGHT, words, described or "No validation data.")
    if not found:
        return canvas.svg
    longest = max(map(len, found.values()))
    right = axes.WIDTH - 8
    x = axes.around([1.0, float(max(longest, 2))], _LEFT, right, margin=0.02)
    y = axes.around([v for each in found.values() for v in each], _BOTTOM, _TOP)
    canvas.y_axis(y, _LEFT, right, words, _number)
    canvas.x_axis(x, _BOTTOM, _TOP, "epoch", _whole)
    for i, (name, values) in enumerate(found.items()):
        points = [(x(epoch), y(value)) for epoch, value in enumerate(values, 1)]
        canvas.path(points, name)
        for each in points if len(points) == 1 else []:
            canvas.add("circle", cx=each[0], cy=each[1], r=3.0, class_=name)
        canvas.text(_LEFT + 90.0 * i, _BOTTOM + 54, name, "start", name)
    return canvas.svg


def _number(value: Any) -> str:
    return f"{value:.4g}"


def _whole(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else ""
