"""Checks of models: finite logits, the same classes, in the order of the labels."""

import numpy as np

from keras_kd._utils import batches
from keras_kd.diagnosis.finding import Finding, percent

# Are a model's outputs what they are taken for: logits or probabilities, finite, not constant?


# Sums of softmax in bfloat16, of 1000 classes, are off by up to about 0.005.
SUM_TOLERANCE = 0.01
# Relative to the largest output: below it float32 sees no difference.
SAME = 1e-6


class OutputsTally:
    """What is seen of a model's outputs, batch by batch.

    Args:
        classes: Number of outputs of a row.
    """

    def __init__(self, classes):
        self.rows = self.invalid = self.probabilities = self.flat = 0
        self.least, self.most = np.full(classes, np.inf), np.full(classes, -np.inf)

    def add(self, values):
        """Takes outputs in, float64 `[rows, classes]`."""
        finite = values[batches.are_finite(values)]
        self.rows += len(values)
        self.invalid += len(values) - len(finite)
        if not len(finite):
            return
        low, high = finite.min(axis=-1), finite.max(axis=-1)
        is_one = abs(finite.sum(axis=-1) - 1) <= SUM_TOLERANCE
        self.probabilities += int(np.sum((low >= 0) & (high <= 1 + SUM_TOLERANCE) & is_one))
        self.flat += int(np.sum(low == high))
        self.least = np.minimum(self.least, finite.min(axis=0))
        self.most = np.maximum(self.most, finite.max(axis=0))

    @property
    def finite(self):
        """Number of rows that have a distribution."""
        return self.rows - self.invalid

    @property
    def are_probabilities(self):
        """Whether every row that is finite sums to 1 and lies between 0 and 1."""
        return self.finite > 0 and self.probabilities == self.finite

    @property
    def are_constant(self):
        """Whether all rows are the same; one row cannot tell."""
        if self.finite < 2:
            return False
        # A class that is -inf in every row has no spread to speak of.
        with np.errstate(invalid="ignore"):
            spread = np.where(self.most == self.least, 0.0, self.most - self.least)
        finite = np.abs(self.most[np.isfinite(self.most)])
        return bool(spread.max() <= SAME * finite.max(initial=0.0))

    @property
    def range(self):
        """The least and the largest output."""
        return float(self.least.min()), float(self.most.max())


def check_outputs(role, tally, from_logits, differ=True):
    """Findings on the outputs of `"teacher"` or `"student"`.

    Args:
        role: Whose they are.
        tally: An `OutputsTally`.
        from_logits: What they are taken for.
        differ: Whether the inputs are known to differ, so that equal outputs mean something.

    Returns:
        A list of `Finding`, at least one.
    """
    check_name = f"{role}'s outputs"
    found = [_not_finite(role, check_name, tally)]
    if tally.finite:
        found += [_kind(role, check_name, tally, from_logits)]
        found += [_constant(role, check_name, tally)] if differ else []
    found = [finding for finding in found if finding is not None]
    return found or [_fine_outputs(role, check_name, tally, from_logits)]


def _fine_outputs(role, check_name, tally, from_logits):
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


def _kind(role, check_name, tally, from_logits):
    values = {"probability_rows": tally.probabilities, "rows": tally.finite}
    if from_logits and tally.are_probabilities:
        return Finding(
            check_name,
            "error",
            f"The {role} ends in softmax: each of {tally.finite} rows lies between 0 and 1 and "
            "sums to 1, although from_logits=True. A softmax of that is nearly uniform.",
            "Remove the softmax (activation=None in the last layer), or say from_logits=False, "
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
            "If they are logits say from_logits=True, here and in the loss.",
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


# Do teacher, student and labels have the same classes?


def check_classes(measured):
    """Findings on the numbers of classes and on the labels; at least one."""
    found = [_labels(measured), _width(measured), _student(measured), _unlabelled(measured)]
    found = [finding for finding in found if finding is not None]
    return found or [_fine_classes(measured)]


def _fine_classes(measured):
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


# Are the teacher's classes in the order of the labels?


# A class counts as moved if the teacher gives another one to so many of its rows. No two classes
# can claim one that way by chance: random answers to 20 rows of 10 classes never come near.
MOVED = 0.6
LEAST_ROWS = 20
SHOWN = 5


def check_class_order(confusion):
    """A finding on the order of the classes.

    It differs if two classes or more are moved: at least 60 % of the rows of each go to one other
    class, which so many rows of no further class (nor its own) go to.
    """
    if confusion.matrix is None:
        return Finding(
            "class order", "note", f"Not checked: {confusion.classes} classes are too many."
        )
    moved, shares = moved_classes(confusion)
    if len(moved) < 2:
        return _no_fault(confusion)
    shown = [
        f"{label} -> {other} ({percent(share)})"
        for (label, other), share in list(zip(moved.items(), shares, strict=True))[:SHOWN]
    ]
    return Finding(
        "class order",
        "error",
        f"The teacher's classes are in another order than the labels, for {len(moved)} of "
        f"{confusion.classes} classes: label -> teacher's class (share of its rows): "
        f"{', '.join(shown)}{', ...' if len(moved) > SHOWN else ''}.",
        "Number the labels as in the teacher's training, or reorder its outputs: "
        "keras.ops.take(logits, order, axis=-1), where order[label] is the teacher's class.",
        {"order": moved},
    )


def _no_fault(confusion):
    judged = int(np.sum(confusion.class_rows >= LEAST_ROWS))
    enough = f"{judged} of {confusion.classes} classes have the {LEAST_ROWS} rows that it takes"
    if judged < 2:
        return Finding("class order", "note", f"Not known: {enough}.", "Give more data.")
    message = "The teacher's classes are in the order of the labels"
    message += "." if judged == confusion.classes else f", as far as the data tells: {enough}."
    return Finding("class order", "ok", message, values={"judged": judged})


def moved_classes(confusion):
    """`({label: teacher's class}, shares)` of the classes that are moved."""
    rows = confusion.matrix.sum(axis=-1)
    shares = confusion.matrix / np.where(rows > 0, rows, 1)[:, None]
    other, share = shares.argmax(axis=-1), shares.max(axis=-1)
    clear = share >= MOVED
    claims = np.bincount(other[clear], minlength=len(rows))
    moved = clear & (other != np.arange(len(rows))) & (claims[other] == 1)
    moved &= confusion.class_rows >= LEAST_ROWS
    labels = np.flatnonzero(moved)
    return {int(i): int(other[i]) for i in labels}, [float(share[i]) for i in labels]
