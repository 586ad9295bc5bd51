"""The words of a report: its verdict, and what to try next."""

from collections.abc import Sequence

import numpy as np

from keras_kd._utils import formatting
from keras_kd.reporting import comparison as findings
from keras_kd.reporting import statistics
from keras_kd.reporting.breakdowns import ClassChange, Inherited
from keras_kd.reporting.comparison import Comparison


def verdict(comparison: Comparison, budgets: Sequence[str] = ()) -> str:
    """The verdict: what the numbers show, in a few sentences, and no more than that.

    Args:
        comparison: The candidates.
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
    parts = [f"{sides[0]} to {sides[1]}{unit}; {formatting.plural(difference.seeds, 'seed')}"]
    if difference.interval is not None:
        parts.append(f"95 % interval {metric.interval(*difference.interval)}")
    if difference.p is None:
        parts.append("not tested")
    else:
        parts.append(f"{difference.test} {formatting.p_value(difference.p)}")
    return ", ".join(parts)


def _nothing(comparison):
    have = ", ".join(
        f"{each.name} {comparison.metric.text(comparison.score(each))}"
        for each in comparison.candidates
    )
    missing = "baseline" if comparison.baseline is None else "student"
    what = "the same student trained with labels only" if missing == "baseline" else "the student"
    return (
        f"Nothing to compare: {have}. Whether distillation helped only shows beside {what}: "
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
                f"It closes {formatting.percent(share)} of the gap to the teacher ({teacher})."
            )
    if comparison.finding == findings.GAIN and difference.seeds == 1:
        parts.append("That is one pair of models: only more seeds can show how much was luck.")
    return parts


def _kept(comparison):
    """A sentence on what the exported files keep of the gain, in a list."""
    if not comparison.kept:
        return []
    names = [kept.candidate.name for kept in comparison.kept]
    if comparison.finding == findings.GAIN:
        shares = [formatting.percent(kept.share) for kept in comparison.kept]
        sentences = [f"{names[0]} keeps {shares[0]} of it"]
    else:
        metric, drops = comparison.metric, [kept.difference for kept in comparison.kept]
        shares = [f"by {metric.better_by(drop.mean, drop.deviation)}" for drop in drops]
        sentences = [f"{names[0]} differs from the float student {shares[0]}"]
    sentences += [f"{name} {share}" for name, share in zip(names[1:], shares[1:], strict=True)]
    return [f"{', '.join(sentences)}."]


def remark(
    changes: list[ClassChange], inherited: Inherited | None, slices: list[dict]
) -> list[str]:
    """Sentences on classes, on the teacher's mistakes and on slices.

    Args:
        changes: A list of `ClassChange`.
        inherited: `Inherited`, or `None`.
        slices: The rows of `breakdowns.compare_slices`.

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
    places = formatting.decimals(0.0, deviation)
    return f"{change.label} {formatting.spread(100 * change.gain, deviation, places, '+')}"


def _mistakes(inherited):
    if inherited is None:
        return []
    text = (
        f"Of the teacher's {formatting.plural(inherited.teacher_mistakes, 'mistake')} the "
        f"distilled student repeats {formatting.percent(inherited.student)}"
    )
    if inherited.baseline is not None:
        text += f" (labels only, without a teacher: {formatting.percent(inherited.baseline)})"
    return [f"{text} and gets {formatting.percent(inherited.corrected)} right."]


def _slices(rows):
    compared = [row for row in rows if row["gain"] is not None]
    if not compared:
        return []
    worst = min(compared, key=lambda row: row["gain"])
    if worst["gain"] >= 0:
        return ["No slice is worse after distillation."]
    return [
        f"The slice that lost most: {worst['slice']} = {worst['value']} "
        f"({formatting.plural(worst['samples'], 'sample')})."
    ]


# What to try. Each piece of advice gives the figure that it rests on.

# Points of a fraction, or this part of another metric's value: there is hardly a gap to close.
SMALL_GAP = 0.01
# Far enough for a student to be too small to follow.
LARGE_GAP = 0.10
# A file that keeps less of the gain is worth a word on why.
KEPT_WELL = 0.9
# A student that follows its teacher agrees with it by so much more than one that never met it.
FOLLOWS = 0.01


def advise_training(comparison: Comparison) -> list[str]:
    """What to try where no gain is clear.

    Args:
        comparison: A `Comparison`.

    Returns:
        A list of sentences, the most likely reason first; `[]` where the gain is clear.
    """
    finding = comparison.finding
    if finding in (findings.GAIN, findings.NOTHING):
        return _single_seed(comparison) if finding == findings.GAIN else []
    found = [*_teacher(comparison), *_follows(comparison)]
    if finding != findings.LOSS:
        found += [*_seeds(comparison), *_rows(comparison)]
    if not found:
        found.append(
            "Try another temperature, more weight of the teacher (alpha=0.1, beta=0.9) or longer "
            "training; kd.diagnose(teacher, student, data) looks for faults in them."
        )
    return found


def _single_seed(comparison):
    if comparison.difference.seeds > 1:
        return []
    return ["One seed: train three or more to learn how much of the gain is luck."]


def _teacher(comparison):
    """On what the teacher knows beyond the student with labels only."""
    teacher, metric = comparison.teacher, comparison.metric
    if teacher is None:
        return ["Pass teacher= to learn whether it knows more than the student."]
    scores = [comparison.score(each) for each in (teacher, comparison.baseline)]
    gap = metric.gain(*scores)
    unit = 1.0 if metric.is_fraction else max(abs(scores[1]), 1e-12)
    shown = [metric.text(score) for score in scores]
    if gap <= 0:
        return [
            f"The teacher ({shown[0]}) is no better than the student with labels only "
            f"({shown[1]}): there is nothing to learn from it. Try a better teacher, such as "
            "kd.teachers.Ensemble, or ask kd.diagnose what is wrong with this one."
        ]
    if gap < SMALL_GAP * unit:
        return [
            f"Labels alone bring the student ({shown[1]}) close to the teacher ({shown[0]}): there "
            "is little to gain. Try a smaller student, fewer labels, or a better teacher."
        ]
    if gap > LARGE_GAP * unit:
        where = "above" if metric.higher_is_better else "below"
        return [
            f"The teacher ({shown[0]}) is far {where} the student ({shown[1]}), which may be too "
            "small to follow it. Try an assistant between them (kd.distill_chain), "
            "kd.losses.DIST, or a larger student."
        ]
    return []


def _follows(comparison):
    """On a student that does not follow its teacher."""
    sides = [
        each.mean("teacher", "agreement") for each in (comparison.student, comparison.baseline)
    ]
    if None in sides or sides[0] - sides[1] >= FOLLOWS:
        return []
    return [
        f"The distilled student agrees with the teacher in {formatting.percent(sides[0], 1)} of "
        f"the samples, the one with labels only in {formatting.percent(sides[1], 1)}: it hardly "
        "followed the teacher. Try more weight of the teacher (alpha=0.1, beta=0.9), a higher "
        "temperature, or longer training."
    ]


def _seeds(comparison):
    """On seeds that are too few to show a gain."""
    difference, metric = comparison.difference, comparison.metric
    if difference.seeds == 1:
        return ["One seed cannot separate a gain from luck: train three or more."]
    if difference.mean <= 0 or difference.test != statistics.T_TEST:
        return []  # seeds that all differ by the same have no spread
    if difference.p < statistics.SIGNIFICANT:
        return []
    smallest = statistics.smallest_clear(difference.deviation, difference.seeds)
    needed = statistics.seeds_needed(difference.mean, difference.deviation)
    more = f"about {needed} would show it" if needed else "it would take more than 50 to show it"
    return [
        f"The seeds spread: {difference.seeds} of them show only gains above "
        f"{metric.difference(smallest, sign='')}. If the gain is real, {more}."
    ]


def _rows(comparison):
    """On test data that are too few to show a gain."""
    difference, metric = comparison.difference, comparison.metric
    noise = difference.row_noise
    if noise is None or noise.excludes_zero or difference.mean <= 0:
        return []
    return [
        f"The test data are few: {noise.rows:,} samples show only differences above "
        f"{metric.difference(noise.visible, sign='')}. For one as small as this use about "
        f"{noise.rows_needed():,}."
    ]


def advise_exports(comparison: Comparison) -> list[str]:
    """Why exported files lose much of the gain, as far as the figures show it.

    Args:
        comparison: A `Comparison`.

    Returns:
        A list of sentences, `[]` where all files keep most of it.
    """
    lossy = [kept for kept in comparison.kept if kept.share is not None and kept.share < KEPT_WELL]
    if not lossy:
        return []
    losses = [_loss(comparison, kept) for kept in lossy]
    return [
        *losses,
        "To lose less: more representative data, 16-bit activations or float16, or training with "
        "quantization (kd.quantization_aware).",
    ]


def _loss(comparison, kept):
    drop, metric = kept.difference, comparison.metric
    change = metric.better_by(drop.mean, drop.deviation)
    text = f"{kept.candidate.name} has {change} against its student"
    if kept.agreement is not None:
        text += f", answers otherwise in {formatting.percent(1 - kept.agreement, 1)} of the samples"
    worst = _worst_class(kept.candidate, comparison.student)
    if worst is not None:
        label, loss = worst
        text += f", and loses most in class {label} ({formatting.fixed(100 * loss, 1, '+')} points)"
    return f"{text}."


def _worst_class(export, student):
    """`(label, change of its recall)` of the class that the file loses most of, or `None`."""
    changes: dict = {}
    for new, old in zip(export.measurements, student.measurements, strict=True):
        before = {row["label"]: row["recall"] for row in old.per_class or []}
        for row in new.per_class or []:
            if row["label"] in before and row["support"] > 0:
                changes.setdefault(row["label"], []).append(row["recall"] - before[row["label"]])
    means = {label: float(np.mean(found)) for label, found in changes.items()}
    worst = min(means.items(), key=lambda pair: pair[1], default=(None, 0.0))
    return worst if worst[1] < 0 else None
