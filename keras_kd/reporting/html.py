"""The report as one HTML page that needs no other file and no network."""

import importlib.resources
import xml.etree.ElementTree as ET
from typing import Any

from keras_kd import version
from keras_kd._utils import formatting
from keras_kd._utils.markup import document, element
from keras_kd._utils.tables import inline, sentences
from keras_kd._utils.tables import table as cells_of
from keras_kd.reporting import axes, charts, tables
from keras_kd.reporting import comparison as findings

# The top of the page: what was compared, the verdict, the way from teacher to device.

_CHIPS = {
    findings.GAIN: "Gain",
    findings.LOSS: "Loss",
    findings.NO_GAIN: "No gain",
    findings.UNCLEAR: "Not enough evidence",
    findings.NOTHING: "Nothing to compare",
}


def header(report: Any) -> ET.Element:
    """Title, and what was measured."""
    first = report.comparison.candidates[0].measurements[0]
    seeds = max(row["seeds"] for row in report.rows)
    facts = [
        f"{formatting.plural(first.samples, 'test sample')}",
        report.metric.label,
        formatting.plural(seeds, "seed"),
    ]
    if first.per_class:
        facts.insert(1, formatting.plural(len(first.per_class), "class"))
    return element(
        "header",
        element("p", "Knowledge distillation", class_="eyebrow"),
        element("h1", report.title),
        element("p", " · ".join(facts), class_="facts"),
    )


def verdict(report: Any) -> ET.Element:
    """The finding: one large number, and the words."""
    kind = report.finding.replace(" ", "-")
    return element(
        "section",
        element("p", _CHIPS[report.finding], class_="chip"),
        _large(report),
        element("h2", "Verdict", class_="hidden"),
        element("p", report.verdict, class_="words"),
        class_=f"verdict is-{kind}",
    )


def _large(report):
    difference, metric = report.difference, report.metric
    if difference is None:
        return None
    if metric.higher_is_better:
        number = metric.number(difference.mean, difference.deviation, "+")
        unit = "points" if metric.is_fraction else metric.label
    else:
        number = metric.number(abs(difference.mean), difference.deviation)
        unit = f"{'lower' if difference.mean >= 0 else 'higher'} {metric.label}"
    return element("p", element("strong", number), f" {unit}", class_="large")


def route(report: Any) -> ET.Element:
    """A card for each model, in the order in which one comes from the other."""
    styles = axes.styles(report.comparison.candidates)
    cards = [_card(report, row, styles[row["name"]]) for row in report.rows]
    return element(
        "section",
        element("h2", "From teacher to device", class_="hidden"),
        element("ol", cards, class_="route"),
    )


def _card(report, row, style):
    metric = report.metric
    facts = [_size(row), _latency(row)]
    return element(
        "li",
        element("p", _swatch(style), row["name"], class_="card-name"),
        element("p", metric.text(row["mean"], row["deviation"]), class_="card-score"),
        element("p", " · ".join(fact for fact in facts if fact) or "size not measured"),
        _note(report, row),
        class_=f"card {style.class_}",
    )


def _size(row):
    return None if row["bytes"] is None else formatting.size(row["bytes"])


def _latency(row):
    return None if row["median_us"] is None else formatting.microseconds(row["median_us"])


def _note(report, row):
    if row["kept"] is not None:
        return element("p", f"keeps {formatting.percent(row['kept'])} of the gain", class_="badge")
    if row["gain"] is not None:
        gain = report.metric.difference(row["gain"], row["gain_deviation"])
        return element("p", gain, class_="badge")
    return None


def _swatch(style):
    return element(
        "svg",
        style.mark(8, 8, radius=5.5),
        viewBox="0 0 16 16",
        class_="swatch",
        aria_hidden="true",
        focusable="false",
    )


def legend(report: Any) -> ET.Element:
    """The models' markers and names."""
    styles = axes.styles(report.comparison.candidates)
    items = [element("li", _swatch(style), name) for name, style in styles.items()]
    return element("ul", items, class_="legend")


def advice(report: Any) -> ET.Element | None:
    """What to try, or nothing."""
    if not report.advice:
        return None
    return element(
        "section",
        element("h2", "To try"),
        element("ul", [element("li", each) for each in report.advice]),
        class_="panel",
    )


# The tables of the page. On a narrow screen each row is a block, its heads beside the cells.


def _table(lines, caption, class_=None):
    return cells_of(lines, caption, class_, empty="-", unnamed="model")


def main(report: Any) -> ET.Element:
    """All models side by side."""
    lines = tables.cells(report.metric, report.rows)
    legend = tables.legend(report.metric, report.rows)
    remarks = [element("li", each) for each in report.remarks]
    return element(
        "section",
        element("h2", "Side by side"),
        _table(lines, legend, "main"),
        element("ul", remarks, class_="remarks") if remarks else None,
        class_="panel",
    )


def classes(report: Any) -> ET.Element | None:
    """What changed for each class, folded away."""
    if not report.classes:
        return None
    heads = ["class", "samples", "teacher, %", "labels only, %", "distilled, %", "gain, points"]
    lines = [heads, *(_class(each) for each in report.classes)]
    if report.classes[0].teacher is None:
        lines = [line[:2] + line[3:] for line in lines]
    return _folded(
        "Recall of each class", _table(lines, "Recall; ±: standard deviation over seeds.")
    )


def _class(change):
    deviation = None if change.deviation is None else 100 * change.deviation
    teacher = "" if change.teacher is None else formatting.fixed(100 * change.teacher, 1)
    return [
        str(change.label),
        f"{change.support:,}",
        teacher,
        formatting.fixed(100 * change.baseline, 1),
        formatting.fixed(100 * change.student, 1),
        formatting.spread(100 * change.gain, deviation, 1, "+"),
    ]


def slices(report: Any) -> ET.Element | None:
    """The models on parts of the test data."""
    if not report.slices:
        return None
    lines = tables.slice_cells(report)
    return element(
        "section", element("h2", "Slices"), _table(lines, "Means over seeds."), class_="panel"
    )


def notes(report: Any) -> ET.Element | None:
    """What could not be measured, and with what the rest was."""
    facts = [
        [element("dt", name), element("dd", words)] for name, words in report.environment.items()
    ]
    listed = [element("li", note) for note in report.notes]
    if not facts and not listed:
        return None
    return _folded(
        "How this was measured",
        element("ul", listed) if listed else None,
        element("dl", facts) if facts else None,
    )


def _folded(head, *children):
    return element("details", element("summary", head), *children, class_="panel")


# The pictures of the page with their captions.


# Of more classes only those that changed most are shown.
_MOST_BARS = 24


def section(report: Any) -> ET.Element:
    """All pictures that the measurements allow."""
    made = [figure for figure in (make(report) for make in _FIGURES) if figure is not None]
    return element(
        "section",
        element("h2", "Pictures"),
        legend(report),
        element("div", made, class_="figures"),
    )


def _figure(title, picture, caption):
    """A picture under its title; `None` without a picture."""
    if picture is None:
        return None
    return element("figure", element("h3", title), picture, element("figcaption", caption))


def _by_seed(report):
    caption = (
        "One dot for each seed; a line joins the models of one seed. The gain is tested on these "
        "pairs."
    )
    if max(row["seeds"] for row in report.rows) == 1:
        caption = "One seed: nothing shows how much of a difference is luck of the training."
    return _figure("Each seed", charts.draw_by_seed(report.comparison), caption)


def _size_figure(report):
    better = "Higher" if report.metric.higher_is_better else "Lower"
    return _figure(
        f"{_capital(report.metric.label)} against size",
        charts.draw_pareto(report.comparison, report.rows, "bytes"),
        f"{better} and further left is better; the dashed line joins the models that none beats in "
        "both.",
    )


def _latency_figure(report):
    found = dict.fromkeys(str(row["runtime"]) for row in report.rows if row["runtime"])
    threads = dict.fromkeys(row["threads"] for row in report.rows if row["threads"])
    caption = f"Median of one batch, {', '.join(found)}"
    if len(threads) == 1:
        caption += f", {formatting.plural(next(iter(threads)), 'thread')}"
    return _figure(
        f"{_capital(report.metric.label)} against latency",
        charts.draw_pareto(report.comparison, report.rows, "median_us"),
        f"{caption}. Keras' own time includes its Python call.",
    )


def _calibration(report):
    caption = (
        "Below the diagonal a model is surer than it is right. Confidences that fewer than "
        f"{charts.FEWEST} samples have are left out."
    )
    return _figure("Reliability", charts.draw_reliability(report.comparison), caption)


def _classes(report):
    changes = report.classes
    if not changes:
        return None
    title, caption = "Recall by class", "Distilled minus labels only, in points"
    if len(changes) > _MOST_BARS:
        changes = sorted(changes, key=lambda each: -abs(each.gain))[:_MOST_BARS]
        caption += f"; the {_MOST_BARS} of {len(report.classes)} classes that changed most"
    if changes[0].deviation is not None:
        caption += "; whiskers: standard deviation over seeds"
    drawn = [_class_bar(each) for each in changes]
    words = ", ".join(f"{bar.label} {formatting.fixed(bar.value, 1, '+')}" for bar in drawn)
    return _figure(title, charts.changes(title, drawn, f"In points: {words}"), f"{caption}.")


def _class_bar(change):
    deviation = None if change.deviation is None else 100 * change.deviation
    words = (
        f"{change.label}: {100 * change.baseline:.1f} to {100 * change.student:.1f} % of "
        f"{change.support:,} samples"
    )
    return charts.Change(str(change.label), 100 * change.gain, deviation, words)


def _confusion(report):
    change = report.confusion
    if change is None:
        return None
    title = "Confusion, distilled minus labels only"
    if len(change["labels"]) > charts.MOST_CLASSES:
        return None
    caption = "Samples of the test data, mean over seeds: blue is better, orange is worse. "
    return _figure(
        title, charts.draw_confusion(change), caption + charts.describe_confusion(change, 3)
    )


def _mistakes(report):
    found = report.mistakes
    if found is None:
        return None
    drawn = [("distilled student repeats", found.student, "c-student")]
    if found.baseline is not None:
        drawn.append(("labels only, never saw the teacher", found.baseline, "c-baseline"))
    drawn.append(("distilled student gets right", found.corrected, "better"))
    title = "The teacher's mistakes"
    words = "; ".join(f"{label} {formatting.percent(share)}" for label, share, _ in drawn)
    caption = (
        f"Of {formatting.plural(found.teacher_mistakes, 'mistake')} on the test data; repeated: "
        "the same wrong class."
    )
    return _figure(title, charts.shares(title, drawn, words), caption)


def _slices(report):
    rows = [row for row in report.slices if row["gain"] is not None]
    first = report.comparison.candidates[0].measurements[0]
    by_metric = report.metric.key in first.sample_scores
    if not rows or first.task == "regression" or (by_metric and not report.metric.is_fraction):
        return None
    names = {row["slice"] for row in rows}
    title = f"Gain by {next(iter(names))}" if len(names) == 1 else "Gain by slice"
    of = report.metric.label if by_metric else "right samples"
    caption = f"Distilled against labels only, in points of {of}; positive is better"
    if len(rows) > _MOST_BARS:
        caption += f"; the {_MOST_BARS} of {len(rows)} slices that changed most"
        rows = sorted(rows, key=lambda row: -abs(row["gain"]))[:_MOST_BARS]
    drawn = [
        charts.Change(
            str(row["value"]) if len(names) == 1 else f"{row['slice']} = {row['value']}",
            100 * row["gain"],
            None if row["deviation"] is None else 100 * row["deviation"],
        )
        for row in rows
    ]
    words = ", ".join(f"{bar.label} {formatting.fixed(bar.value, 1, '+')}" for bar in drawn)
    return _figure(title, charts.changes(title, drawn, f"In points: {words}"), f"{caption}.")


def _capital(words):
    return words[:1].upper() + words[1:]


_FIGURES = (
    _by_seed,
    _size_figure,
    _latency_figure,
    _classes,
    _confusion,
    _calibration,
    _mistakes,
    _slices,
)


# The whole page.


# How many characters of a title a tab or a search engine shows.
_TITLE = 70


def text(report: Any) -> str:
    """The page as text: HTML with its style sheet and pictures inside."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", _shortened(report.title)),
        element("style", style_sheet()),
    )
    body = element(
        "body",
        header(report),
        element(
            "main",
            verdict(report),
            route(report),
            advice(report),
            section(report),
            main(report),
            classes(report),
            slices(report),
            notes(report),
        ),
        element("footer", element("p", f"Made by keras_kd {version.__version__}.")),
    )
    return document(element("html", head, body, lang="en"))


def _shortened(title):
    return title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…"


def style_sheet() -> str:
    """The text of `style.css`."""
    return importlib.resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")


# What a notebook shows: the words and tables of the report, without its pictures.


_MARKS = {findings.GAIN: " kd-good", findings.LOSS: " kd-bad", findings.NO_GAIN: " kd-bad"}


def compact(report: Any) -> str:
    """The report as a fragment: what `print` shows, below its title."""
    metric, rows = report.metric, report.rows
    chip = element(
        "span", _CHIPS[report.finding], class_=f"kd-chip{_MARKS.get(report.finding, '')}"
    )
    legend = tables.legend(metric, rows)
    main = cells_of(tables.cells(metric, rows), legend or None, "kd-numbers")
    return inline(
        element("p", report.title, " ", chip, class_="kd-title"),
        element("p", report.verdict),
        main,
        sentences("To try", report.advice),
        [element("p", each) for each in report.remarks],
        cells_of(tables.slice_cells(report), class_="kd-numbers") if report.slices else None,
        sentences("Notes", report.notes),
    )
