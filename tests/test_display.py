"""What a notebook shows of a result: what `print` shows, as HTML that touches nothing else."""

import copy
import html.parser
import json
import pickle
import re

import keras
import pytest

import keras_kd as kd
from keras_kd import pairing
from keras_kd._utils import tables
from tests.report import browser, made_up, samples

NASTY = samples.NASTY


def network(units, prefix="dense"):
    hidden = [keras.layers.Dense(n, name=f"{prefix}_{i}") for i, n in enumerate(units)]
    return keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(3, name=f"{prefix}_3")])


def measurement(**changes):
    known = {
        "quality": {"accuracy": 0.9125, NASTY: 0.5},
        "teacher": {"agreement": 0.875},
        "size": {"parameters": 1234, "bytes": 4936},
        "latency": {
            "runtime": "keras",
            "threads": 1,
            "median_us": 1234.5,
            "p95_us": 2000.0,
        },
        "notes": ["MACs are unknown: the model has a loop.", NASTY],
    }
    return kd.measurement.Measurement(NASTY, "keras", "multiclass", 1000, **{**known, **changes})


def diagnosis():
    finding = kd.diagnosis.Finding
    found = [
        finding("outputs", "ok", "The teacher gives logits."),
        finding(NASTY, "warning", f"It says {NASTY}.", f"Write {NASTY} -> nothing, as of now."),
        finding("accuracy", "error", "No better than chance.", "Train it."),
        finding("capacity", "note", "10 times fewer parameters."),
    ]
    return kd.diagnosis.Diagnosis(found)


def plain_report():
    truth = made_up.labels(100)
    return made_up.report(student=made_up.with_errors(truth, [5]))


def hostile_report():
    options = {"title": NASTY, "slice_keys": {NASTY: [NASTY, "b"] * 1000}, "notes": [NASTY]}
    return made_up.Report(samples.full(exports=[NASTY]).comparison, **options)


def pairs():
    # TensorFlow takes no other character of markup in names of layers.
    return kd.pair_layers(network([8, 8, 8], "t>t"), network([4], "s>s"), print_fn=None)


def hostile_pairs():
    shape, tap = (None, 4), kd.taps.Tap(NASTY, index=NASTY)
    names = ("teacher", "teacher_shape", "student", "student_shape", "score")
    return pairing.LayerPairs([dict(zip(names, (NASTY, shape, tap, shape, 0.5), strict=True))])


MADE = {
    "a measurement": measurement,
    "a bare measurement": lambda: measurement(
        quality={}, teacher=None, size={}, latency=None, notes=[]
    ),
    "a diagnosis": diagnosis,
    "a report": samples.full,
    "a plain report": plain_report,
    "a hostile report": hostile_report,
    "pairs": pairs,
    "hostile pairs": hostile_pairs,
    "a summary": lambda: kd.taps.summary(network([8], "a>b"), print_fn=None),
    "a plan": lambda: kd.students.plan(network([4, 4], "a>b"), depth=0.5, width=0.5),
    "hostile rows": lambda: tables.Rows([{NASTY: NASTY, "a": None}], (NASTY, "a"), str),
}


@pytest.fixture(scope="module", params=MADE)
def made(request):
    return MADE[request.param]()


class Reader(html.parser.HTMLParser):
    """Reads a fragment: its text outside of styles, its tags and attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.attributes, self.texts, self.roots = [], [], [], [], 0
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.roots += not self.open
        self.seen.append(tag)
        self.attributes += attributes
        if tag == "br":
            self.texts.append(" ")
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag not in ("span", "b", "i"):
            self.texts.append(" ")

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)


def test_it_is_one_element_without_scripts_or_resources(made):
    read = Reader(made._repr_html_())
    assert read.roots == 1
    known = {"div", "style", "p", "span", "br", "ul", "li"}
    known |= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert set(read.seen) <= known
    assert {name for name, _ in read.attributes} <= {"class", "scope", "data-label"}


def words(text):
    return [word for word in text.split() if word.strip("-")]


def test_it_says_what_print_says(made):
    """The words are the same, and no others; a title and the finding stand above a report."""
    printed = words(str(made))
    shown = words("".join(Reader(made._repr_html_()).texts))
    if isinstance(made, kd.Report):
        top = len(words(made.title))
        assert shown[:top] == words(made.title)
        chips = {"gain": "Gain", "nothing to compare": "Nothing to compare"}
        chip = words(chips[made.finding])
        assert shown[top : top + len(chip)] == chip
        shown = shown[top + len(chip) :]
        printed = [word for word in printed if word not in ("To", "try:", "Notes:")]
        shown = [word for word in shown if word not in ("To", "try", "Notes")]
    if isinstance(made, kd.diagnosis.Diagnosis):
        shown = shown[3:]  # the heads
        printed = [word for word in printed if word != "->"]
        shown = [word for word in shown if word != "->"]
    assert sorted(shown) == sorted(printed)


def test_the_style_holds_for_the_fragment_alone():
    assert not re.search(r"url\(|@import|//|!important", tables.STYLE)
    for rule in tables.STYLE.split("}")[:-1]:
        for selector in rule.split("{")[0].split(","):
            assert re.match(r"\s*\.keras-kd\b", selector), selector


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", [tables.GOOD, tables.BAD])
@pytest.mark.parametrize("back", ["#ffffff", "#f8f8f8", "#383838", "#1e1e1e", "#111111"])
def test_marks_are_seen_on_light_and_on_dark_pages(color, back):
    """WCAG 2.1 asks for 3 to 1 between marks and the page; text has the color of the page's own."""
    low, high = sorted([luminance(color), luminance(back)])
    assert (high + 0.05) / (low + 0.05) >= (3 if back != "#383838" else 2.5)
    assert not re.search(r"(?<![\w-])(color|background(-color)?):", tables.STYLE)


def test_rows_are_a_list():
    rows = kd.students.plan(network([8]), width=0.5)
    assert isinstance(rows, list)
    assert json.loads(json.dumps(rows))[0]["how"] == "sliced"
    for again in (pickle.loads(pickle.dumps(rows)), copy.deepcopy(rows)):
        assert again == rows
    assert repr(rows) == repr(list(rows))
    assert str(rows).splitlines()[0].split() == list(rows[0])


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>A notebook</title>
<style>:root {{ color-scheme: light dark }} body {{ font: 14px sans-serif }}</style></head>
<body><main><h1>Results</h1>{}</main></body></html>
"""


def test_a_browser_shows_it_on_light_and_on_dark_pages(tmp_path):
    browser.needed()
    path = tmp_path / "page.html"
    fragments = [f"<div>{make()._repr_html_()}</div>" for make in MADE.values()]
    path.write_text(PAGE.format("".join(fragments)), encoding="utf-8")
    for view in browser.look(path, [(1280, "light", True), (1280, "dark", True)]):
        assert view["requests"] == [path.as_uri()]
        assert view["errors"] == []
        assert view["scrollWidth"] <= view["innerWidth"]
        # Wide tables are scrolled where they are.
        faults = [each for each in view["faults"] if "scrollable-region" not in each]
        assert faults == []
    # A style sheet that comes with a fragment is all that HTML itself has against it.
    found = [line for line in browser.html_faults(path) if ": error" in line]
    assert [line for line in found if "<style> element is not permitted" not in line] == []
