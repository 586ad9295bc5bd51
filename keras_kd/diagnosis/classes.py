"""Do teacher, student and labels have the same classes?"""

from keras_kd.diagnosis.finding import Finding


def check(measured):
    """Findings on the numbers of classes and on the labels; at least one."""
    found = [_labels(measured), _width(measured), _student(measured), _unlabelled(measured)]
    found = [finding for finding in found if finding is not None]
    return found or [_fine(measured)]


def _fine(measured):
    classes, seen = measured.teacher.classes, int(measured.labels.seen.sum())
    message = f"Teacher and labels have {classes} classes."
    if measured.student is not None:
        message = f"Teacher, student and labels have {classes} classes."
    if seen < classes:
        message += f" {classes - seen} of them never occur in the data."
    values = {"classes": classes, "classes_in_data": seen}
    return Finding("classes", "ok" if seen == classes else "note", message, values=values)


def _labels(measured):
    labels, classes = measured.labels, measured.teacher.classes
    if not labels.too_large:
        return None
    remedy = "Give the teacher's classes the indices 0, 1, ... in the labels."
    if labels.least == 1 and labels.largest == classes:
        remedy = "They seem to count from 1: subtract 1."
    return Finding(
        "classes",
        "error",
        f"{labels.too_large} of {labels.rows} labels are no class of the teacher, which has "
        f"{classes} (0 to {classes - 1}): labels go up to {labels.largest}.",
        remedy,
        {"out_of_range": labels.too_large, "largest": labels.largest, "classes": classes},
    )


def _width(measured):
    width, classes = measured.labels.width, measured.teacher.classes
    if width in (None, classes):
        return None
    return Finding(
        "classes",
        "error",
        f"The labels have a number for each of {width} classes, and the teacher has {classes}.",
        "Use labels of the teacher's classes.",
        {"label_classes": width, "teacher_classes": classes},
    )


def _student(measured):
    teacher, student = measured.teacher, measured.student
    if student is None or student.classes == teacher.classes:
        return None
    return Finding(
        "classes",
        "error",
        f"The teacher has {teacher.classes} classes and the student {student.classes}.",
        "Give the student the teacher's classes. If it shall have more, or some, of them: "
        "kd.losses.LearningWithoutForgetting(student_classes=..., teacher_classes=...).",
        {"teacher_classes": teacher.classes, "student_classes": student.classes},
    )


def _unlabelled(measured):
    labels = measured.labels
    if not labels.unlabelled:
        return None
    return Finding(
        "classes",
        "note",
        f"{labels.unlabelled} of {labels.rows} rows have no label (a negative class); only the "
        "check of the outputs counts them.",
        values={"unlabelled": labels.unlabelled, "rows": labels.rows},
    )
