"""The report as Markdown."""

from keras_kd.report import table, terminal


def text(report):
    """Heading, verdict, table, advice, remarks, slices and notes."""
    parts = [f"# {escaped(report.title)}", f"**{escaped(report.verdict)}**"]
    parts.append(grid(table.cells(report.metric, report.rows)))
    parts.append(escaped(table.legend(report.metric, report.rows)))
    for head, sentences in (("To try", report.advice), ("Seen", report.remarks)):
        if sentences:
            parts.append(_section(head, sentences))
    if report.slices:
        parts.append("## Slices\n\n" + grid(terminal.slice_cells(report)))
    if report.notes:
        parts.append(_section("Notes", report.notes))
    return "\n\n".join(filter(None, parts)) + "\n"


def grid(lines):
    """Cells as a table."""
    head, *body = [f"| {' | '.join(map(escaped, line))} |" for line in lines]
    columns = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join([head, f"| {' | '.join(columns)} |", *body])


def _section(head, sentences):
    return f"## {head}\n\n" + "\n".join(f"- {escaped(each)}" for each in sentences)


def escaped(words):
    """Text in which nothing is taken for Markdown or HTML."""
    one_line = " ".join(str(words).split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#" else char for char in one_line)
