"""The report as text: one table, for terminals and Markdown."""

import textwrap
from typing import Any

from keras_kd._utils import formatting
from keras_kd.reporting import statistics
from keras_kd.reporting.comparison import BASELINE, TEACHER, Comparison
from keras_kd.reporting.statistics import Metric, mean_and_deviation

# The main table: one row for each model, as numbers and as text.


def main_rows(comparison: Comparison) -> list[dict]:
    """A dict for each model, as `Report.rows`."""
    return [_row(comparison, each) for each in comparison.candidates]


def _row(comparison, candidate):
    values = candidate.scores(comparison.metric)
    mean, deviation = mean_and_deviation(values)
    gain = _gain(comparison, candidate)
    kept = next((each.share for each in comparison.kept if each.candidate is candidate), None)
    return {
        "name": candidate.name,
        "role": candidate.role,
        "seeds": len(values),
        "values": [float(value) for value in values],
        "mean": mean,
        "deviation": deviation,
        "gain": None if gain is None else gain.mean,
        "gain_deviation": None if gain is None else gain.deviation,
        "p": None if gain is None else gain.p,
        "test": None if gain is None else gain.test,
        "kept": kept,
        "agreement": candidate.mean("teacher", "agreement"),
        "ece": candidate.mean("quality", "ece"),
        **{
            key: candidate.mean("size", key)
            for key in ("parameters", "bytes", "gzip_bytes", "macs")
        },
        **{key: candidate.first("latency", key) for key in ("median_us", "p95_us")},
        **{key: candidate.first("latency", key) for key in ("runtime", "threads")},
    }


def _gain(comparison, candidate):
    baseline = comparison.baseline
    if baseline is None or candidate.role in (TEACHER, BASELINE):
        return None
    if candidate is comparison.student:
        return comparison.difference
    return statistics.compare_paired(comparison.metric, candidate, baseline)


def scalars(metric: Metric, rows: list[dict]) -> dict[str, float]:
    """The numbers of the main table, `{"<model>/<column>": number}`, as `Report.scalars`."""
    renamed = {"mean": metric.key, "deviation": f"{metric.key}_deviation"}
    return {
        f"{row['name']}/{renamed.get(column, column)}": value
        for row in rows
        for column, value in row.items()
        if isinstance(value, (int, float))
    }


def cells(metric: Metric, rows: list[dict]) -> list[list[str]]:
    """The table as text: a list of lines, the heads first; columns without any number left out.

    The first column is the name. All others hold numbers, but for the last one, the runtime.
    """
    columns = [("", [row["name"] for row in rows])]
    columns += [
        (head, texts)
        for head, texts in (
            (head, [_text(row, show) for row in rows]) for head, show in _shown(metric)
        )
        if any(texts)
    ]
    return [list(line) for line in zip(*([head, *texts] for head, texts in columns), strict=True)]


def _text(row, show):
    key, to_text = show
    return "" if row[key] is None else to_text(row)


def _shown(metric):
    """`(head, (key, text of a row))` of each column."""
    unit = ", %" if metric.is_fraction else ""
    gain_unit = ", points" if metric.is_fraction else ""
    return [
        (
            f"{metric.label}{unit}",
            ("mean", lambda row: metric.number(row["mean"], row["deviation"])),
        ),
        (
            f"gain{gain_unit}",
            ("gain", lambda row: metric.number(row["gain"], row["gain_deviation"], "+")),
        ),
        (
            "p",
            ("p", lambda row: formatting.p_value(row["p"]).removeprefix("p ").removeprefix("= ")),
        ),
        ("gain kept", ("kept", lambda row: formatting.percent(row["kept"]))),
        ("agreement", ("agreement", lambda row: formatting.percent(row["agreement"], 1))),
        ("ECE", ("ece", lambda row: formatting.fixed(row["ece"], 3))),
        ("parameters", ("parameters", lambda row: f"{row['parameters']:,.0f}")),
        ("size", ("bytes", lambda row: formatting.size(row["bytes"]))),
        ("MACs", ("macs", lambda row: formatting.count(row["macs"]))),
        ("latency", ("median_us", lambda row: formatting.microseconds(row["median_us"]))),
        ("runtime", ("runtime", lambda row: str(row["runtime"]))),
    ]


def legend(metric: Metric, rows: list[dict]) -> str:
    """What the columns mean, in a sentence or two."""
    seeds = max(row["seeds"] for row in rows)
    parts = [f"±: standard deviation over {formatting.plural(seeds, 'seed')}"] if seeds > 1 else []
    if any(row["gain"] is not None for row in rows):
        text = "gain: over the student with labels only"
        text += ", seed by seed" if seeds > 1 else ""
        parts.append(text + ("" if metric.higher_is_better else ", + is better"))
    tests = dict.fromkeys(row["test"] for row in rows if row["test"] is not None)
    if tests:
        parts.append(f"p: {' or '.join(tests)}")
    columns = {
        "kept": "gain kept: the share of the distilled student's gain",
        "agreement": "agreement: the same answer as the teacher's",
        "ece": "ECE: expected calibration error",
        "median_us": "latency: median of one batch on this machine",
    }
    parts += [words for key, words in columns.items() if any(row[key] is not None for row in rows)]
    return f"{'; '.join(parts)}." if parts else ""


# The report as plain text, for a terminal.


WIDTH = 100


def terminal_text(report: Any) -> str:
    """Verdict, table, advice, remarks and notes, lines of at most 100 characters but for tables."""
    parts = [_wrapped(report.verdict), terminal_grid(cells(report.metric, report.rows))]
    parts.append(_wrapped(legend(report.metric, report.rows)))
    if report.advice:
        parts.append(_listed("To try", report.advice))
    if report.remarks:
        parts.append("\n".join(_wrapped(each) for each in report.remarks))
    if report.slices:
        parts.append(terminal_grid(slice_cells(report)))
    if report.notes:
        parts.append(_listed("Notes", report.notes))
    return "\n\n".join(filter(None, parts))


def terminal_grid(lines: list[list[str]]) -> str:
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


def slice_cells(report: Any) -> list[list[str]]:
    """The slices as cells: a list of lines, the heads first."""
    names = list(report.slices[0]["scores"])
    first = report.comparison.candidates[0].measurements[0]
    if report.metric.key in first.sample_scores:
        return _slices_by_metric(report, names)
    is_error = first.task == "regression"
    unit = "mean absolute error" if is_error else "% right"
    has_gain = any(row["gain"] is not None for row in report.slices)
    lines = [["slice", "samples", *(f"{name}, {unit}" for name in names)]]
    lines[0] += ["gain"] if has_gain else []
    for row in report.slices:
        scores = [_score(row["scores"][name], is_error) for name in names]
        line = [f"{row['slice']} = {row['value']}", f"{row['samples']:,}", *scores]
        lines.append(line + ([_gain_text(row, is_error)] if has_gain else []))
    return lines


def _slices_by_metric(report, names):
    metric = report.metric
    unit = f"{metric.label}{', %' if metric.is_fraction else ''}"
    has_gain = any(row["gain"] is not None for row in report.slices)
    lines = [["slice", "samples", *(f"{name}, {unit}" for name in names)]]
    lines[0] += ["gain"] if has_gain else []
    for row in report.slices:
        scores = [metric.number(row["scores"][name]) for name in names]
        line = [f"{row['slice']} = {row['value']}", f"{row['samples']:,}", *scores]
        gain = [metric.number(row["gain"], row["deviation"], "+")] if has_gain else []
        lines.append(line + gain)
    return lines


def _score(value, is_error):
    return f"{value:.3g}" if is_error else formatting.fixed(100 * value, 1)


def _gain_text(row, is_error):
    factor = 1 if is_error else 100
    deviation = None if row["deviation"] is None else factor * row["deviation"]
    return formatting.spread(factor * row["gain"], deviation, 3 if is_error else 1, "+")


def _wrapped(sentence, indent=""):
    return textwrap.fill(sentence, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def _listed(head, sentences):
    return "\n".join([f"{head}:", *(_wrapped(f"- {each}", "  ") for each in sentences)])


# The report as Markdown.


def markdown_text(report: Any) -> str:
    """Heading, verdict, table, advice, remarks, slices and notes."""
    parts = [f"# {escaped(report.title)}", f"**{escaped(report.verdict)}**"]
    parts.append(markdown_grid(cells(report.metric, report.rows)))
    parts.append(escaped(legend(report.metric, report.rows)))
    for head, sentences in (("To try", report.advice), ("Seen", report.remarks)):
        if sentences:
            parts.append(_section(head, sentences))
    if report.slices:
        parts.append("## Slices\n\n" + markdown_grid(slice_cells(report)))
    if report.notes:
        parts.append(_section("Notes", report.notes))
    return "\n\n".join(filter(None, parts)) + "\n"


def markdown_grid(lines: list[list[str]]) -> str:
    """Cells as a table."""
    head, *body = [f"| {' | '.join(map(escaped, line))} |" for line in lines]
    columns = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join([head, f"| {' | '.join(columns)} |", *body])


def _section(head, sentences):
    return f"## {head}\n\n" + "\n".join(f"- {escaped(each)}" for each in sentences)


def escaped(words: Any) -> str:
    """Text in which nothing is taken for Markdown or HTML."""
    one_line = " ".join(str(words).split())
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#" else char for char in one_line)
