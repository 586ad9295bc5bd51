"""Does the teacher know more than chance, and more than the student?"""

import math

from keras_kd.diagnosis import binomial
from keras_kd.diagnosis.finding import Finding, percent

# Standard deviations: less than 0.2 % of pairs of equal models are so far apart.
SURE = 3.0


def check_teacher(confusion):
    """A finding on the teacher's accuracy."""
    chance = 1 / confusion.classes
    values = {
        "accuracy": confusion.accuracy,
        "chance": chance,
        "effective_rows": confusion.effective_rows,
    }
    told = f"The teacher is right in {percent(confusion.accuracy)} of the rows"
    if binomial.is_guessing(*confusion.counts):
        severity, told = "error", f"{told}, and so may be guessing"
    elif binomial.knows_little(*confusion.counts):
        severity, told = "warning", f"{told}, little more than chance"
    elif not binomial.is_above_chance(*confusion.counts):
        severity, told = "note", f"{told}, too few of them to tell that from chance"
    else:
        return Finding("accuracy", "ok", f"{told} (chance: {percent(chance)}).", values=values)
    return Finding(
        "accuracy",
        severity,
        f"{told} (chance: {percent(chance)}).",
        "Are its weights loaded, do its inputs have the range and the order of channels it was "
        "trained on (teacher_preprocess), and are the classes in its order?",
        values,
    )


def check_student(teacher, student, pair):
    """A finding on the student's accuracy beside the teacher's.

    The rows in which only one of them is right decide (McNemar): of equal models each would be the
    one in half of them.
    """
    values = {
        "teacher_accuracy": teacher.accuracy,
        "student_accuracy": student.accuracy,
        "student_right_alone": pair.student_only / pair.weight,
        "teacher_right_alone": pair.teacher_only / pair.weight,
    }
    both = f"({percent(student.accuracy)} and {percent(teacher.accuracy)} of the rows)"
    if pair.student_only - pair.teacher_only > SURE * math.sqrt(pair.squares):
        return Finding(
            "student",
            "warning",
            f"The student is right more often than the teacher {both}.",
            "Train a better teacher, or let the labels count more where it is wrong: "
            "kd.weighting.TeacherCorrectness().",
            values,
        )
    message = f"The student is right no more often than the teacher {both}."
    return Finding("student", "ok", message, values=values)


def is_trained(teacher, student):
    """Whether the student has learnt something; a heuristic.

    Its lead over chance is at least half of the teacher's. Random networks reach some accuracy too.
    """
    chance = 1 / student.classes
    return student.accuracy - chance >= 0.5 * max(teacher.accuracy - chance, chance)
