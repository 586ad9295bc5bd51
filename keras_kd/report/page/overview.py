"""The top of the page: what was compared, the verdict, the way from teacher to device."""

from keras_kd.report import comparison as findings
from keras_kd.report import numbers
from keras_kd.report.markup import element
from keras_kd.report.plots import markers

_CHIPS = {
    findings.GAIN: "Gain",
    findings.LOSS: "Loss",
    findings.NO_GAIN: "No gain",
    findings.UNCLEAR: "Not enough evidence",
    findings.NOTHING: "Nothing to compare",
}


def header(report):
    """Title, and what was measured."""
    first = report.comparison.entrants[0].measurements[0]
    seeds = max(row["seeds"] for row in report.rows)
    facts = [
        f"{numbers.plural(first.samples, 'test row')}",
        report.metric.label,
        numbers.plural(seeds, "seed"),
    ]
    if first.per_class:
        facts.insert(1, numbers.plural(len(first.per_class), "class"))
    return element(
        "header",
        element("p", "Knowledge distillation", class_="eyebrow"),
        element("h1", report.title),
        element("p", " · ".join(facts), class_="facts"),
    )


def verdict(report):
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


def route(report):
    """A card for each model, in the order in which one comes from the other."""
    styles = markers.styles(report.comparison.entrants)
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
    return None if row["bytes"] is None else numbers.size(row["bytes"])


def _latency(row):
    return None if row["median_us"] is None else numbers.microseconds(row["median_us"])


def _note(report, row):
    if row["kept"] is not None:
        return element("p", f"keeps {numbers.percent(row['kept'])} of the gain", class_="badge")
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


def legend(report):
    """The models' markers and names."""
    styles = markers.styles(report.comparison.entrants)
    items = [element("li", _swatch(style), name) for name, style in styles.items()]
    return element("ul", items, class_="legend")


def advice(report):
    """What to try, or nothing."""
    if not report.advice:
        return None
    return element(
        "section",
        element("h2", "To try"),
        element("ul", [element("li", each) for each in report.advice]),
        class_="panel",
    )
