"""The main table: one row a model, as numbers and as text."""

from keras_kd.report import entrants as roles
from keras_kd.report import numbers, paired
from keras_kd.report.entrants import mean_and_deviation


def rows(comparison):
    """A dict for each model, as `Report.rows`."""
    return [_row(comparison, each) for each in comparison.entrants]


def _row(comparison, entrant):
    values = entrant.scores(comparison.metric)
    mean, deviation = mean_and_deviation(values)
    gain = _gain(comparison, entrant)
    kept = next((each.share for each in comparison.kept if each.entrant is entrant), None)
    return {
        "name": entrant.name,
        "role": entrant.role,
        "seeds": len(values),
        "values": [float(value) for value in values],
        "mean": mean,
        "deviation": deviation,
        "gain": None if gain is None else gain.mean,
        "gain_deviation": None if gain is None else gain.deviation,
        "p": None if gain is None else gain.p,
        "test": None if gain is None else gain.test,
        "kept": kept,
        "agreement": entrant.mean("teacher", "agreement"),
        "ece": entrant.mean("quality", "ece"),
        **{key: entrant.mean("size", key) for key in ("parameters", "bytes", "gzip_bytes", "macs")},
        **{key: entrant.first("latency", key) for key in ("median_us", "p95_us")},
        **{key: entrant.first("latency", key) for key in ("runtime", "threads")},
    }


def _gain(comparison, entrant):
    baseline = comparison.baseline
    if baseline is None or entrant.role in (roles.TEACHER, roles.BASELINE):
        return None
    if entrant is comparison.student:
        return comparison.difference
    return paired.compare(comparison.metric, entrant, baseline)


def cells(metric, rows):
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
        ("p", ("p", lambda row: numbers.p_value(row["p"]).removeprefix("p ").removeprefix("= "))),
        ("gain kept", ("kept", lambda row: numbers.percent(row["kept"]))),
        ("agreement", ("agreement", lambda row: numbers.percent(row["agreement"], 1))),
        ("ECE", ("ece", lambda row: numbers.fixed(row["ece"], 3))),
        ("parameters", ("parameters", lambda row: f"{row['parameters']:,.0f}")),
        ("size", ("bytes", lambda row: numbers.size(row["bytes"]))),
        ("MACs", ("macs", lambda row: numbers.count(row["macs"]))),
        ("latency", ("median_us", lambda row: numbers.microseconds(row["median_us"]))),
        ("runtime", ("runtime", lambda row: str(row["runtime"]))),
    ]


def legend(metric, rows):
    """What the columns mean, in a sentence or two."""
    seeds = max(row["seeds"] for row in rows)
    parts = [f"±: standard deviation over {numbers.plural(seeds, 'seed')}"] if seeds > 1 else []
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
