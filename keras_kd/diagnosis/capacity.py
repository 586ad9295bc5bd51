"""Is the teacher too large for the student?"""

from keras_kd.diagnosis.finding import Finding, percent

# Heuristics. The gap that hurts depends on task and networks: 23 times the parameters helped in
# this project's demo (README); Mirzadeh et al. (https://arxiv.org/abs/1902.03393) gain by an
# assistant between networks of 10 and 2 convolutions.
RATIO = 50.0
# A trained student that agrees with the teacher in fewer rows follows it badly.
AGREEMENT = 0.8


def check(parameters, agreement):
    """A finding on the sizes of teacher and student.

    Args:
        parameters: `(teacher's, student's)` numbers of parameters.
        agreement: Share of rows in which both give the same class, or `None`: the student is not
            trained.
    """
    of_teacher, of_student = parameters
    ratio = of_teacher / max(of_student, 1)
    values = {
        "teacher_parameters": of_teacher,
        "student_parameters": of_student,
        "ratio": ratio,
        "agreement": agreement,
    }
    message = (
        f"The teacher has {of_teacher:,} parameters, {ratio:.3g} times the student's "
        f"{of_student:,}."
    )
    if agreement is not None:
        message += f" They agree in {percent(agreement)} of the rows."
    follows = agreement is not None and agreement >= AGREEMENT
    if ratio <= RATIO or follows:
        return Finding("capacity", "ok", message, values=values)
    return Finding(
        "capacity",
        "note",
        message,
        f"Above {RATIO:.0f} times (a heuristic) a model of a size between the two often helps as "
        "an assistant: distil the teacher into it, and it into the student (kd.distill_chain).",
        values,
    )
