"""What to try, by what the figures show. Each piece of advice gives the figure it rests on."""

import numpy as np

from keras_kd.report import comparison as findings
from keras_kd.report import numbers, paired

# Points of a fraction, or this part of another metric's value: there is hardly a gap to close.
SMALL_GAP = 0.01
# Far enough for a student to be too small to follow.
LARGE_GAP = 0.10
# A file that keeps less of the gain is worth a word on why.
KEPT_WELL = 0.9
# A student that follows its teacher agrees with it by so much more than one that never met it.
FOLLOWS = 0.01


def on_training(comparison):
    """What to try where no gain is clear, or where it cannot be told.

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
    """On what the teacher knows more than the student with labels only."""
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
    """On a student that does not do as its teacher does."""
    sides = [
        each.mean("teacher", "agreement") for each in (comparison.student, comparison.baseline)
    ]
    if None in sides or sides[0] - sides[1] >= FOLLOWS:
        return []
    return [
        f"The distilled student agrees with the teacher in {numbers.percent(sides[0], 1)} of the "
        f"rows, the one with labels only in {numbers.percent(sides[1], 1)}: it hardly followed the "
        "teacher. Try more weight of the teacher (alpha=0.1, beta=0.9), a higher temperature, or "
        "longer training."
    ]


def _seeds(comparison):
    """On seeds that are too few to tell."""
    difference, metric = comparison.difference, comparison.metric
    if difference.seeds == 1:
        return ["One seed cannot tell a gain from luck: train three or more."]
    if difference.mean <= 0 or difference.test != paired.T_TEST:
        return []  # seeds that all differ by the same have no spread
    if difference.p < paired.SIGNIFICANT:
        return []
    smallest = paired.smallest_clear(difference.deviation, difference.seeds)
    needed = paired.seeds_needed(difference.mean, difference.deviation)
    more = f"about {needed} would show it" if needed else "it would take more than 50 to show it"
    return [
        f"The seeds spread: {difference.seeds} of them show only gains above "
        f"{metric.difference(smallest, sign='')}. If the gain is real, {more}."
    ]


def _rows(comparison):
    """On test data that are too few to tell."""
    difference, metric = comparison.difference, comparison.metric
    noise = difference.row_noise
    if noise is None or noise.excludes_zero or difference.mean <= 0:
        return []
    return [
        f"The test data are few: {noise.rows:,} rows show only differences above "
        f"{metric.difference(noise.visible, sign='')}. For one as small as this use about "
        f"{noise.rows_needed():,}."
    ]


def on_exports(comparison):
    """Why exported files lose much of the gain, as far as the figures show it.

    Args:
        comparison: A `Comparison`.

    Returns:
        A list of sentences, `[]` where all files keep most of it.
    """
    lossy = [kept for kept in comparison.kept if kept.share is not None and kept.share < KEPT_WELL]
    if not lossy:
        return []
    told = [_loss(comparison, kept) for kept in lossy]
    return [
        *told,
        "To lose less: more representative data, 16-bit activations or float16, or training with "
        "quantization (kd.quantization_aware).",
    ]


def _loss(comparison, kept):
    drop, metric = kept.difference, comparison.metric
    change = metric.better_by(drop.mean, drop.deviation)
    text = f"{kept.entrant.name} has {change} against its student"
    if kept.agreement is not None:
        text += f", answers otherwise in {numbers.percent(1 - kept.agreement, 1)} of the rows"
    worst = _worst_class(kept.entrant, comparison.student)
    if worst is not None:
        label, loss = worst
        text += f", and loses most in class {label} ({numbers.fixed(100 * loss, 1, '+')} points)"
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
