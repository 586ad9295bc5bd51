"""The pictures of the page with their captions."""

from keras_kd.report import numbers
from keras_kd.report.markup import element
from keras_kd.report.page import overview
from keras_kd.report.plots import bars, by_seed, confusion, pareto, reliability

# More classes than that are shown by those that changed most.
_MOST_BARS = 24


def section(report):
    """All pictures that the measurements allow."""
    made = [figure for figure in (make(report) for make in _FIGURES) if figure is not None]
    return element(
        "section",
        element("h2", "Pictures"),
        overview.legend(report),
        element("div", made, class_="figures"),
    )


def _figure(title, picture, caption):
    """A picture under its title; `None` without a picture."""
    if picture is None:
        return None
    return element("figure", element("h3", title), picture, element("figcaption", caption))


def _by_seed(report):
    caption = (
        "One dot a seed; a line joins the models of one seed. The gain is tested on these pairs."
    )
    if max(row["seeds"] for row in report.rows) == 1:
        caption = "One seed: nothing tells how much of a difference is luck of the training."
    return _figure("Each seed", by_seed.draw(report.comparison), caption)


def _size(report):
    better = "Higher" if report.metric.higher_is_better else "Lower"
    return _figure(
        f"{_capital(report.metric.label)} against size",
        pareto.draw(report.comparison, report.rows, "bytes"),
        f"{better} and further left is better; the dashed line joins the models that none beats in "
        "both.",
    )


def _latency(report):
    found = dict.fromkeys(str(row["runtime"]) for row in report.rows if row["runtime"])
    threads = dict.fromkeys(row["threads"] for row in report.rows if row["threads"])
    caption = f"Median of one batch, {', '.join(found)}"
    if len(threads) == 1:
        caption += f", {numbers.plural(next(iter(threads)), 'thread')}"
    return _figure(
        f"{_capital(report.metric.label)} against latency",
        pareto.draw(report.comparison, report.rows, "median_us"),
        f"{caption}. Keras' own time includes its Python call.",
    )


def _calibration(report):
    caption = (
        "Below the diagonal a model is surer than it is right. Confidences that fewer than "
        f"{reliability.FEWEST} rows have are left out."
    )
    return _figure("Reliability", reliability.draw(report.comparison), caption)


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
    told = ", ".join(f"{bar.label} {numbers.fixed(bar.value, 1, '+')}" for bar in drawn)
    return _figure(title, bars.changes(title, drawn, f"In points: {told}"), f"{caption}.")


def _class_bar(change):
    deviation = None if change.deviation is None else 100 * change.deviation
    words = (
        f"{change.label}: {100 * change.baseline:.1f} to {100 * change.student:.1f} % of "
        f"{change.support:,} rows"
    )
    return bars.Change(str(change.label), 100 * change.gain, deviation, words)


def _confusion(report):
    change = report.confusion
    if change is None:
        return None
    title = "Confusion, distilled minus labels only"
    if len(change["labels"]) > confusion.MOST_CLASSES:
        return None
    caption = "Rows of the test data, mean over seeds: blue is better, orange is worse. "
    return _figure(title, confusion.draw(change), caption + confusion.told(change, 3))


def _mistakes(report):
    found = report.mistakes
    if found is None:
        return None
    drawn = [("distilled student repeats", found.student, "c-student")]
    if found.baseline is not None:
        drawn.append(("labels only, never saw the teacher", found.baseline, "c-baseline"))
    drawn.append(("distilled student gets right", found.corrected, "better"))
    title = "The teacher's mistakes"
    told = "; ".join(f"{label} {numbers.percent(share)}" for label, share, _ in drawn)
    caption = (
        f"Of {numbers.plural(found.teacher_mistakes, 'mistake')} on the test data; repeated: the "
        "same wrong class."
    )
    return _figure(title, bars.shares(title, drawn, told), caption)


def _slices(report):
    rows = [row for row in report.slices if row["gain"] is not None]
    first = report.comparison.entrants[0].measurements[0]
    if not rows or first.task == "regression":
        return None
    names = {row["slice"] for row in rows}
    title = f"Gain by {next(iter(names))}" if len(names) == 1 else "Gain by slice"
    caption = "Distilled minus labels only, in points of right rows"
    if len(rows) > _MOST_BARS:
        caption += f"; the {_MOST_BARS} of {len(rows)} slices that changed most"
        rows = sorted(rows, key=lambda row: -abs(row["gain"]))[:_MOST_BARS]
    drawn = [
        bars.Change(
            str(row["value"]) if len(names) == 1 else f"{row['slice']} = {row['value']}",
            100 * row["gain"],
            None if row["deviation"] is None else 100 * row["deviation"],
        )
        for row in rows
    ]
    told = ", ".join(f"{bar.label} {numbers.fixed(bar.value, 1, '+')}" for bar in drawn)
    return _figure(title, bars.changes(title, drawn, f"In points: {told}"), f"{caption}.")


def _capital(words):
    return words[:1].upper() + words[1:]


_FIGURES = (_by_seed, _size, _latency, _classes, _confusion, _calibration, _mistakes, _slices)
