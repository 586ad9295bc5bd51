"""Does the student inherit the teacher's mistakes?"""

import dataclasses

import numpy as np

from keras_kd.report import row_scores
from keras_kd.report.entrants import mean_and_deviation


@dataclasses.dataclass(frozen=True)
class Inherited:
    """How often each model repeats a mistake of the teacher: says the same wrong class.

    Attributes:
        teacher_mistakes: In how many rows the teacher is wrong.
        student: The share of these in which the distilled student says what the teacher says, mean
            over seeds.
        student_deviation: Its standard deviation over seeds, or `None`.
        baseline: The same of the student with labels only, which never saw the teacher: some
            mistakes lie in the data. `None` without one.
        baseline_deviation: Its standard deviation over seeds, or `None`.
        corrected: The share of the teacher's mistakes that the distilled student gets right.
    """

    teacher_mistakes: int
    student: float
    student_deviation: float | None
    baseline: float | None
    baseline_deviation: float | None
    corrected: float


def inherited(comparison):
    """`Inherited`, or `None`: no classes, no teacher, or a teacher that is always right."""
    teacher, student = comparison.teacher, comparison.student
    if teacher is None or student is None or not _has_classes(teacher, student):
        return None
    said = np.asarray(teacher.measurements[0].predictions)
    truth = np.asarray(teacher.measurements[0].labels)
    wrong = said != truth
    if not wrong.any():
        return None
    baseline = None, None
    if comparison.baseline is not None and _has_classes(comparison.baseline):
        baseline = mean_and_deviation(_shares(comparison.baseline, wrong, said))
    return Inherited(
        int(wrong.sum()),
        *mean_and_deviation(_shares(student, wrong, said)),
        *baseline,
        float(np.mean(_shares(student, wrong, truth))),
    )


def _has_classes(*entrants):
    found = [each for entrant in entrants for each in entrant.measurements]
    return all(each.task in ("multiclass", "binary") for each in found) and not any(
        each.predictions is None or each.labels is None for each in found
    )


def _shares(entrant, rows, said):
    """By seed: in which share of some rows a model says this."""
    return [row_scores.share_that_says(each, said, rows) for each in entrant.measurements]
