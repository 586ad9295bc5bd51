"""The verdict: what the numbers show, in a few sentences, and no more than that."""

from keras_kd.report import comparison as findings
from keras_kd.report import numbers


def words(comparison, budgets=()):
    """The verdict.

    Args:
        comparison: A `Comparison`.
        budgets: Sentences about trainings of unequal length.

    Returns:
        Text of several sentences, the finding first.
    """
    parts = [_headline(comparison), *_context(comparison), *budgets]
    parts += _kept(comparison)
    return " ".join(parts)


def _headline(comparison):
    difference, metric = comparison.difference, comparison.metric
    if difference is None:
        return _nothing(comparison)
    evidence = _evidence(comparison)
    if comparison.finding == findings.GAIN or comparison.finding == findings.LOSS:
        changed = metric.changed(difference.mean, difference.deviation)
        start = "Distillation" if comparison.finding == findings.GAIN else "Loss: distillation"
        return f"{start} {changed} ({evidence})."
    start = "No gain" if comparison.finding == findings.NO_GAIN else "Not enough evidence of a gain"
    return f"{start}: {metric.better_by(difference.mean, difference.deviation)} ({evidence})."


def _evidence(comparison):
    difference, metric = comparison.difference, comparison.metric
    sides = [
        metric.number(comparison.score(each)) for each in (comparison.baseline, comparison.student)
    ]
    unit = " %" if metric.is_fraction else ""
    parts = [f"{sides[0]} to {sides[1]}{unit}; {numbers.plural(difference.seeds, 'seed')}"]
    if difference.interval is not None:
        parts.append(f"95 % interval {metric.interval(*difference.interval)}")
    if difference.p is None:
        parts.append("not tested")
    else:
        parts.append(f"{difference.test} {numbers.p_value(difference.p)}")
    return ", ".join(parts)


def _nothing(comparison):
    have = ", ".join(
        f"{each.name} {comparison.metric.text(comparison.score(each))}"
        for each in comparison.entrants
    )
    missing = "baseline" if comparison.baseline is None else "student"
    what = "the same student trained with labels only" if missing == "baseline" else "the student"
    return (
        f"Nothing to compare: {have}. Whether distillation helped can only be told beside {what}: "
        f"pass {missing}=."
    )


def _context(comparison):
    difference, metric = comparison.difference, comparison.metric
    if difference is None:
        return []
    parts = []
    share = comparison.share_of_gap()
    if share is not None:
        teacher = metric.text(comparison.score(comparison.teacher))
        if share >= 1:
            parts.append(f"The student is as good as its teacher ({teacher}) or better.")
        else:
            parts.append(
                f"It closes {numbers.percent(share)} of the gap to the teacher ({teacher})."
            )
    if comparison.finding == findings.GAIN and difference.seeds == 1:
        parts.append("That is one pair of models: how much was luck only more seeds can tell.")
    return parts


def _kept(comparison):
    """A sentence on what the exported files keep of the gain, in a list."""
    if not comparison.kept:
        return []
    names = [kept.entrant.name for kept in comparison.kept]
    if comparison.finding == findings.GAIN:
        shares = [numbers.percent(kept.share) for kept in comparison.kept]
        told = [f"{names[0]} keeps {shares[0]} of it"]
    else:
        metric, drops = comparison.metric, [kept.difference for kept in comparison.kept]
        shares = [f"by {metric.better_by(drop.mean, drop.deviation)}" for drop in drops]
        told = [f"{names[0]} differs from the float student {shares[0]}"]
    told += [f"{name} {share}" for name, share in zip(names[1:], shares[1:], strict=True)]
    return [f"{', '.join(told)}."]


def remarks(changes, inherited, slices):
    """Sentences on classes, on the teacher's mistakes and on slices.

    Args:
        changes: A list of `ClassChange`.
        inherited: `Inherited`, or `None`.
        slices: The rows of `slices.table`.

    Returns:
        A list of sentences.
    """
    return [*_classes(changes), *_mistakes(inherited), *_slices(slices)]


def _classes(changes):
    if not changes:
        return []
    up = [each for each in changes if each.is_clear and each.gain > 0]
    down = [each for each in changes if each.is_clear and each.gain < 0]
    found = []
    for what, those in (("gained", up), ("lost", down)):
        if those:
            listed = ", ".join(_class(each) for each in _largest(those))
            found.append(f"Classes that {what} most, in points of recall: {listed}.")
    if changes[0].deviation is not None and not down:
        found.append("No class lost more than the seeds' noise.")
    return found


def _largest(changes):
    return sorted(changes, key=lambda each: -abs(each.gain))[:3]


def _class(change):
    deviation = 100 * change.deviation
    places = numbers.decimals(0.0, deviation)
    return f"{change.label} {numbers.spread(100 * change.gain, deviation, places, '+')}"


def _mistakes(inherited):
    if inherited is None:
        return []
    text = (
        f"Of the teacher's {numbers.plural(inherited.teacher_mistakes, 'mistake')} the distilled "
        f"student repeats {numbers.percent(inherited.student)}"
    )
    if inherited.baseline is not None:
        text += f" (labels only, without a teacher: {numbers.percent(inherited.baseline)})"
    return [f"{text} and gets {numbers.percent(inherited.corrected)} right."]


def _slices(rows):
    told = [row for row in rows if row["gain"] is not None]
    if not told:
        return []
    worst = min(told, key=lambda row: row["gain"])
    if worst["gain"] >= 0:
        return ["No slice is worse after distillation."]
    return [
        f"The slice that lost most: {worst['slice']} = {worst['value']} "
        f"({numbers.plural(worst['samples'], 'row')})."
    ]
