"""What the pictures draw, in numbers; how they look is for the browser."""

import itertools
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from keras_kd._utils.formatting import MINUS
from keras_kd.reporting import axes, breakdowns, charts, html
from tests.report import made_up, samples


def numbers(element, *names):
    return [float(element.get(name)) for name in names]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (90.3, 95.4, [91, 92, 93, 94, 95]),
        (-0.2, 0.31, [-0.2, -0.1, 0, 0.1, 0.2, 0.3]),
    ],
)
def test_ticks(low, high, expected):
    np.testing.assert_allclose(axes.Scale(low, high, 0, 1).ticks(6), expected, atol=1e-12)


def test_ticks_of_a_logarithmic_axis():
    assert axes.Scale(15, 1500, 0, 1, True).ticks(6) == [20, 50, 100, 200, 500, 1000]
    np.testing.assert_allclose(axes.Scale(2e3, 3e6, 0, 1, True).ticks(4), [1e4, 1e5, 1e6])


def test_a_scale_maps_ends_to_ends():
    scale = axes.Scale(10, 1000, 40, 300, True)
    assert [scale(value) for value in (10, 100, 1000)] == [40, 170, 300]
    flat = axes.around([5.0, 5.0], 0, 1)
    assert flat.low < 5 < flat.high


def test_long_names_that_begin_alike_stay_apart():
    names = [f"a class of many things, number {i}" for i in range(12)]
    room = axes.width_of("x" * 14)
    found = [axes.shortened(name, room) for name in names]
    assert len(set(found)) == 12
    assert max(len(each) for each in found) <= 14
    assert axes.shortened("short", room) == "short"


def test_bars_begin_at_zero_and_are_as_long_as_their_values():
    svg = charts.changes("t", [charts.Change("up", 4.0), charts.Change("down", -2.0)], "d")
    up, down = svg.iter("rect")
    (x_up, width_up), (x_down, width_down) = (numbers(each, "x", "width") for each in (up, down))
    assert width_up == pytest.approx(2 * width_down, abs=0.2)
    assert x_down + width_down == pytest.approx(x_up, abs=0.2)
    assert (up.get("class"), down.get("class")) == ("better", "worse")


def test_by_seed_has_a_dot_for_each_model_of_each_seed():
    report = samples.full()
    svg = charts.draw_by_seed(report.comparison)
    titles = [title.text for title in svg.iter("title")]
    assert len(titles) == 1 + 4 * 3
    assert "labels only, seed 1: 90.6 %" in titles
    # Right is better: the distilled student's dots lie right of the other's.
    dots = [numbers(each, "cx")[0] for each in svg.iter("circle")]
    assert max(dots[:3]) < min(dots[3:])


def test_the_front_has_the_models_that_none_beats():
    report = samples.full()
    svg = charts.draw_pareto(report.comparison, report.rows, "bytes")
    (front,) = [path for path in svg.iter("path") if path.get("class") == "front"]
    # int8 is smallest; float16 is larger and no better; then the student and the teacher.
    by_name = {row["name"]: row for row in report.rows}
    assert by_name["float16"]["mean"] <= by_name["int8"]["mean"]
    assert front.get("d").count("L") + 1 == 3


def test_a_cost_that_one_model_has_is_not_drawn():
    report = samples.full()
    rows = [{**row, "bytes": None} for row in report.rows[1:]] + report.rows[:1]
    assert charts.draw_pareto(report.comparison, rows, "bytes") is None


def test_names_of_points_do_not_meet():
    rng = np.random.default_rng(0)
    frame = axes.Box(40, 20, 322, 208)
    for _ in range(20):
        points = [
            (float(rng.uniform(60, 300)), float(rng.uniform(60, 180)), f"model {i}")
            for i in range(5)
        ]
        boxes = [
            _box(place, words)
            for place, (_, _, words) in zip(axes.place(points, frame), points, strict=True)
        ]
        assert all(not one.meets(other) for one, other in itertools.combinations(boxes, 2))
        assert all(box.outside(frame) == 0 for box in boxes)


def _box(place, words):
    x, y, anchor = place
    width = axes.width_of(words)
    left = {"start": x, "end": x - width, "middle": x - width / 2}[anchor]
    return axes.Box(left, y - 9, left + width, y + 1)


def test_confusion_is_colored_by_better_and_worse():
    truth = made_up.labels(40)
    found = made_up.compared(
        baseline=[made_up.classifier(truth, np.where(truth == 1, 2, truth))],
        student=[made_up.classifier(truth, np.where(truth == 3, 0, truth))],
    )
    svg = charts.draw_confusion(breakdowns.compare_confusion(found))
    classes = {each[0].text: each.get("class") for each in svg.iter("rect")}
    assert classes[f"1 taken for 2: {MINUS}10 samples"] == "cell better"
    assert classes["1 taken for 1: +10 samples"] == "cell better"
    assert classes["3 taken for 0: +10 samples"] == "cell worse"
    assert classes[f"3 taken for 3: {MINUS}10 samples"] == "cell worse"
    assert classes["0 taken for 1: +0 samples"] == "cell"


def test_each_model_has_a_look_of_its_own():
    candidates = samples.full(exports=[f"export {i}" for i in range(8)]).comparison.candidates
    looks = [(each.class_, each.shape) for each in axes.styles(candidates).values()]
    assert len(set(looks)) == len(looks) == 11


def test_pictures_say_in_words_what_they_show():
    report = samples.full()
    svg = charts.draw_pareto(report.comparison, report.rows, "median_us")
    label = svg.get("aria-label")
    assert "distilled 94.2 ± 0.2 % at 655 µs" in label
    assert ET.tostring(svg)  # well formed


def test_the_picture_says_which_way_is_better():
    truth = np.zeros(4)
    sides = {
        name: [made_up.regression(truth, [1, 1, 2, error], size={"bytes": 1000 * error})]
        for name, error in (("student", 3), ("baseline", 4))
    }
    assert "Lower and further left is better" in html.text(made_up.report(**sides))
    truth = made_up.labels()
    sides = {
        name: made_up.with_errors(truth, [count])
        for name, count in zip(sides, (9, 19), strict=True)
    }
    assert "Higher and further left is better" in html.text(made_up.report(**sides))


def test_of_many_slices_those_that_changed_most_are_drawn():
    truth = made_up.labels()
    changed = made_up.predictions(truth, slice(390, 400))
    report = made_up.report(
        {"slice_keys": {"part": (np.arange(400) // 10).tolist()}},
        student=[made_up.classifier(truth, changed)],
        baseline=[made_up.classifier(truth, truth)],
    )
    text = html.text(report)
    assert "the 24 of 40 slices that changed most" in text
    assert f"In points: 39 {MINUS}100.0, " in text
