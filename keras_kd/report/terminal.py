"""The report as plain text, for a terminal."""

import textwrap

from keras_kd.report import numbers, table

WIDTH = 100


def text(report):
    """Verdict, table, advice, remarks and notes, lines of at most 100 characters but for tables."""
    parts = [_wrapped(report.verdict), grid(table.cells(report.metric, report.rows))]
    parts.append(_wrapped(table.legend(report.metric, report.rows)))
    if report.advice:
        parts.append(_listed("To try", report.advice))
    if report.remarks:
        parts.append("\n".join(_wrapped(each) for each in report.remarks))
    if report.slices:
        parts.append(grid(slice_cells(report)))
    if report.notes:
        parts.append(_listed("Notes", report.notes))
    return "\n\n".join(filter(None, parts))


def grid(lines):
    """Cells as columns: the first one to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    made = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([made[0], "  ".join("-" * width for width in widths), *made[1:]])


def slice_cells(report):
    """The slices as cells: a list of lines, the heads first."""
    names = list(report.slices[0]["scores"])
    first = report.comparison.entrants[0].measurements[0]
    is_error = first.task == "regression"
    unit = "mean absolute error" if is_error else "% right"
    has_gain = any(row["gain"] is not None for row in report.slices)
    lines = [["slice", "rows", *(f"{name}, {unit}" for name in names)]]
    lines[0] += ["gain"] if has_gain else []
    for row in report.slices:
        scores = [_score(row["scores"][name], is_error) for name in names]
        line = [f"{row['slice']} = {row['value']}", f"{row['samples']:,}", *scores]
        lines.append(line + ([_gain(row, is_error)] if has_gain else []))
    return lines


def _score(value, is_error):
    return f"{value:.3g}" if is_error else numbers.fixed(100 * value, 1)


def _gain(row, is_error):
    factor = 1 if is_error else 100
    deviation = None if row["deviation"] is None else factor * row["deviation"]
    return numbers.spread(factor * row["gain"], deviation, 3 if is_error else 1, "+")


def _wrapped(sentence, indent=""):
    return textwrap.fill(sentence, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _listed(head, sentences):
    return "\n".join([f"{head}:", *(_wrapped(f"- {each}", "  ") for each in sentences)])
