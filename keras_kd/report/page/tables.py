"""The tables of the page. On a narrow screen each row is a block, its heads beside the cells."""

from keras_kd.report import numbers, table, terminal
from keras_kd.report.markup import element


def _table(lines, caption, class_=None):
    """A table of cells; the first column names the row."""
    heads, *rows = lines
    head = element("tr", [element("th", text or "model", scope="col") for text in heads])
    body = [
        element(
            "tr",
            element("th", line[0], scope="row"),
            [
                element("td", text or "-", data_label=label, class_=None if text else "none")
                for label, text in zip(heads[1:], line[1:], strict=True)
            ],
        )
        for line in rows
    ]
    return element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", body),
        class_=class_,
    )


def main(report):
    """All models side by side."""
    lines = table.cells(report.metric, report.rows)
    legend = table.legend(report.metric, report.rows)
    remarks = [element("li", each) for each in report.remarks]
    return element(
        "section",
        element("h2", "Side by side"),
        _table(lines, legend, "main"),
        element("ul", remarks, class_="remarks") if remarks else None,
        class_="panel",
    )


def classes(report):
    """What changed for each class, folded away."""
    if not report.classes:
        return None
    heads = ["class", "rows", "teacher, %", "labels only, %", "distilled, %", "gain, points"]
    lines = [heads, *(_class(each) for each in report.classes)]
    if report.classes[0].teacher is None:
        lines = [line[:2] + line[3:] for line in lines]
    return _folded(
        "Recall of each class", _table(lines, "Recall; ±: standard deviation over seeds.")
    )


def _class(change):
    deviation = None if change.deviation is None else 100 * change.deviation
    teacher = "" if change.teacher is None else numbers.fixed(100 * change.teacher, 1)
    return [
        str(change.label),
        f"{change.support:,}",
        teacher,
        numbers.fixed(100 * change.baseline, 1),
        numbers.fixed(100 * change.student, 1),
        numbers.spread(100 * change.gain, deviation, 1, "+"),
    ]


def slices(report):
    """The models on parts of the test data."""
    if not report.slices:
        return None
    lines = terminal.slice_cells(report)
    return element(
        "section", element("h2", "Slices"), _table(lines, "Means over seeds."), class_="panel"
    )


def notes(report):
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
