"""The checks of outputs and classes: `check_outputs`, `check_classes`, `check_class_order`."""

import numpy as np

from keras_kd.diagnosis.finding import Finding, percent
from keras_kd.diagnosis.tallies import Confusion, OutputsTally, Tallies

# Outputs: logits or probabilities as expected, finite, not constant.


def check_outputs(
    role: str, tally: OutputsTally, from_logits: bool, differ: bool = True
) -> list[Finding]:
    """Findings on the outputs of the teacher or the student.

    Args:
        role: `"teacher"` or `"student"`.
        tally: A `tallies.OutputsTally`.
        from_logits: Whether logits are expected.
        differ: Whether the inputs are known to differ, so that equal outputs are a fault.

    Returns:
        A list of `Finding`, at least one.
    """
    check_name = f"{role}'s outputs"
    found = [_not_finite(role, check_name, tally)]
    if tally.finite:
        found += [_wrong_kind(role, check_name, tally, from_logits)]
        found += [_constant(role, check_name, tally)] if differ else []
    found = [finding for finding in found if finding is not None]
    return found or [_good_outputs(role, check_name, tally, from_logits)]


def _good_outputs(role, check_name, tally, from_logits):
    low, high = tally.range
    what = "logits" if from_logits else "probabilities"
    message = f"The {role} returns {what}, from {low:.3g} to {high:.3g}."
    return Finding(check_name, "ok", message, values={"least": low, "largest": high})


def _not_finite(role, check_name, tally):
    if not tally.invalid:
        return None
    return Finding(
        check_name,
        "error",
        f"{tally.invalid} of {tally.rows} rows of the {role}'s outputs hold NaN or +inf.",
        "Look for overflow (float16) in the model, and for NaN in its weights or in the data. "
        "These rows are left out of all other checks.",
        {"rows": tally.rows, "not_finite": tally.invalid},
    )


def _wrong_kind(role, check_name, tally, from_logits):
    values = {"probability_rows": tally.probabilities, "rows": tally.finite}
    if from_logits and tally.are_probabilities:
        return Finding(
            check_name,
            "error",
            f"The {role} ends in softmax: each of {tally.finite} rows lies between 0 and 1 and "
            "sums to 1, although from_logits=True. A softmax of that is nearly uniform.",
            "Remove the softmax (activation=None in the last layer), or pass from_logits=False, "
            "here and in the loss: SoftTargets(from_logits=False); of the teacher alone: "
            "SoftTargets(teacher_from_logits=False).",
            values,
        )
    if not from_logits and not tally.are_probabilities:
        low, high = tally.range
        return Finding(
            check_name,
            "error",
            f"The {role} returns no probabilities, although from_logits=False: "
            f"{tally.finite - tally.probabilities} of {tally.finite} rows do not lie between 0 and "
            f"1 or do not sum to 1 (outputs from {low:.3g} to {high:.3g}).",
            "If they are logits pass from_logits=True, here and in the loss.",
            values,
        )
    return None


def _constant(role, check_name, tally):
    # A student whose last layer begins at zero is constant too, and learns.
    severity = "error" if role == "teacher" else "note"
    values = {"rows": tally.finite, "flat_rows": tally.flat}
    if tally.are_constant:
        message = f"The {role} gives the same outputs for all {tally.finite} rows."
    elif tally.flat == tally.finite:
        message = f"The {role} gives all classes the same value, in each of {tally.finite} rows."
    elif tally.flat:
        message = (
            f"The {role} gives all classes the same value in {percent(tally.flat / tally.finite)} "
            "of the rows."
        )
        severity = "warning" if role == "teacher" else "note"
    else:
        return None
    remedy = "Were its weights loaded? Are the inputs in the range it was trained on?"
    return Finding(check_name, severity, message, remedy, values)


# Classes: the same for teacher, student and labels.


def check_classes(tallies: Tallies) -> list[Finding]:
    """Findings on the numbers of classes and on the labels; at least one."""
    found = [
        _labels_out_of_range(tallies),
        _label_width(tallies),
        _student_classes(tallies),
        _unlabeled(tallies),
    ]
    found = [finding for finding in found if finding is not None]
    return found or [_good_classes(tallies)]


def _good_classes(tallies):
    classes, seen = tallies.teacher.classes, int(tallies.labels.seen.sum())
    message = f"Teacher and labels have {classes} classes."
    if tallies.student is not None:
        message = f"Teacher, student and labels have {classes} classes."
    if seen < classes:
        message += f" {classes - seen} of them never occur in the data."
    values = {"classes": classes, "classes_in_data": seen}
    return Finding("classes", "ok" if seen == classes else "note", message, values=values)


def _labels_out_of_range(tallies):
    labels, classes = tallies.labels, tallies.teacher.classes
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


def _label_width(tallies):
    width, classes = tallies.labels.width, tallies.teacher.classes
    if width in (None, classes):
        return None
    return Finding(
        "classes",
        "error",
        f"The labels have a number for each of {width} classes, and the teacher has {classes}.",
        "Use labels of the teacher's classes.",
        {"label_classes": width, "teacher_classes": classes},
    )


def _student_classes(tallies):
    teacher, student = tallies.teacher, tallies.student
    if student is None or student.classes == teacher.classes:
        return None
    return Finding(
        "classes",
        "error",
        f"The teacher has {teacher.classes} classes and the student {student.classes}.",
        "Give the student the teacher's classes. If it needs more, or only some, of them: "
        "kd.losses.LearningWithoutForgetting(student_classes=..., teacher_classes=...).",
        {"teacher_classes": teacher.classes, "student_classes": student.classes},
    )


def _unlabeled(tallies):
    labels = tallies.labels
    if not labels.unlabeled:
        return None
    return Finding(
        "classes",
        "note",
        f"{labels.unlabeled} of {labels.rows} rows have no label (a negative class); only the "
        "check of the outputs counts them.",
        values={"unlabelled": labels.unlabeled, "rows": labels.rows},
    )


# Class order: the teacher's classes in the order of the labels.


# A class counts as moved if the teacher assigns this share of its samples to another one. No two
# classes can claim one that way by chance: random answers to 20 samples of 10 classes never come
# close.
CLASS_ORDER_MOVED = 0.6
CLASS_ORDER_LEAST_ROWS = 20
CLASS_ORDER_SHOWN = 5


def check_class_order(confusion: Confusion) -> Finding:
    """A finding on the order of the classes.

    It differs if two classes or more are moved: the teacher assigns at least 60 % of the samples of
    each to one other class, and as many of no other class (nor its own) to that one.
    """
    if confusion.matrix is None:
        return Finding(
            "class order", "note", f"Not checked: {confusion.classes} classes are too many."
        )
    moved, shares = _moved_classes(confusion)
    if len(moved) < 2:
        return _good_class_order(confusion)
    shown = [
        f"{label} -> {other} ({percent(share)})"
        for (label, other), share in list(zip(moved.items(), shares, strict=True))[
            :CLASS_ORDER_SHOWN
        ]
    ]
    return Finding(
        "class order",
        "error",
        f"The teacher's classes are in another order than the labels, for {len(moved)} of "
        f"{confusion.classes} classes: label -> teacher's class (share of its rows): "
        f"{', '.join(shown)}{', ...' if len(moved) > CLASS_ORDER_SHOWN else ''}.",
        "Number the labels as in the teacher's training, or reorder its outputs: "
        "keras.ops.take(logits, order, axis=-1), where order[label] is the teacher's class.",
        {"order": moved},
    )


def _good_class_order(confusion):
    judged = int(np.sum(confusion.class_rows >= CLASS_ORDER_LEAST_ROWS))
    rows = f"the {CLASS_ORDER_LEAST_ROWS} rows that it takes"
    enough = f"{judged} of {confusion.classes} classes have {rows}"
    if judged < 2:
        return Finding("class order", "note", f"Not known: {enough}.", "Give more data.")
    message = "The teacher's classes are in the order of the labels"
    message += "." if judged == confusion.classes else f", as far as the data tells: {enough}."
    return Finding("class order", "ok", message, values={"judged": judged})


def _moved_classes(confusion):
    """`({label: teacher's class}, shares)` of the classes that are moved."""
    rows = confusion.matrix.sum(axis=-1)
    shares = confusion.matrix / np.where(rows > 0, rows, 1)[:, None]
    other, share = shares.argmax(axis=-1), shares.max(axis=-1)
    clear = share >= CLASS_ORDER_MOVED
    claims = np.bincount(other[clear], minlength=len(rows))
    moved = clear & (other != np.arange(len(rows))) & (claims[other] == 1)
    moved &= confusion.class_rows >= CLASS_ORDER_LEAST_ROWS
    labels = np.flatnonzero(moved)
    return {int(i): int(other[i]) for i in labels}, [float(share[i]) for i in labels]
