"""Which classes gained and lost, and what is mistaken for what."""

import dataclasses

import numpy as np

from keras_kd.report.entrants import mean_and_deviation


@dataclasses.dataclass(frozen=True)
class ClassChange:
    """What distillation changed for one class.

    Attributes:
        label: The class.
        support: How many rows of the test data have it (the sum of their weights).
        baseline: Recall of the student with labels only, mean over seeds.
        student: Recall of the distilled one.
        gain: The difference of both.
        deviation: Its standard deviation over seeds, or `None` of one seed.
        seeds: Their number.
        teacher: The teacher's recall, or `None`.
    """

    label: object
    support: int
    baseline: float
    student: float
    gain: float
    deviation: float | None
    seeds: int
    teacher: float | None

    @property
    def is_clear(self):
        """Whether the change is more than two standard errors, and more than one row.

        Two standard errors of so few seeds are a rule of thumb, and there are many classes: some
        pass it by chance.
        """
        if self.deviation is None or abs(self.gain) * self.support <= 1:
            return False
        return abs(self.gain) > 2 * self.deviation / np.sqrt(self.seeds)


def changes(comparison):
    """A `ClassChange` for each class, in the order of the classes; `[]` where nothing is known."""
    baseline, student = comparison.baseline, comparison.student
    if baseline is None or student is None:
        return []
    tables = [_recalls(each) for each in (baseline, student)]
    if not all(tables):
        return []
    before, after = tables
    teacher = _recalls(comparison.teacher) if comparison.teacher is not None else {}
    support = {row["label"]: row["support"] for row in student.measurements[0].per_class}
    return [
        _change(label, support[label], before[label], after[label], teacher.get(label))
        for label in after
        if label in before and support[label] > 0
    ]


def _recalls(entrant):
    """`{label: recall by seed}`."""
    found: dict = {}
    for measurement in entrant.measurements:
        for row in measurement.per_class or []:
            found.setdefault(row["label"], []).append(row["recall"])
    return found


def _change(label, support, before, after, teacher):
    gain, deviation = mean_and_deviation(np.subtract(after, before))
    return ClassChange(
        label,
        round(support),
        float(np.mean(before)),
        float(np.mean(after)),
        gain,
        deviation,
        len(after),
        None if teacher is None else float(np.mean(teacher)),
    )


def confusion_change(comparison):
    """Distilled minus labels only: what is mistaken for what, more often or less.

    Returns:
        `{"labels": [...], "difference": float64 [classes, classes]}`, rows the truth, columns the
        prediction, in rows of the test data (mean over seeds); or `None`.
    """
    baseline, student = comparison.baseline, comparison.student
    if baseline is None or student is None:
        return None
    before, after = _mean_confusion(baseline), _mean_confusion(student)
    if before is None or after is None or before.shape != after.shape:
        return None
    labels = [row["label"] for row in student.measurements[0].per_class]
    if len(labels) != len(after):
        labels = list(range(len(after)))
    return {"labels": labels, "difference": after - before}


def _mean_confusion(entrant):
    found = [each.confusion for each in entrant.measurements]
    return None if any(each is None for each in found) else np.mean(found, axis=0)
