"""The checks of the teacher: accurate, calibrated, informative, not overfit, not too large.

Each check is one function that returns a `Finding`; its thresholds stand above it.
"""

import math

import numpy as np

from keras_kd._utils import statistics
from keras_kd.diagnosis.finding import Finding, percent
from keras_kd.diagnosis.tallies import CalibrationTally, Confusion, ModelTally, PairTally

# Accuracy: above chance, and above the student's.


# Standard deviations: less than 0.2 % of pairs of equal models are this far apart.
STUDENT_DEVIATIONS = 3.0


def check_accuracy(confusion: Confusion) -> Finding:
    """A finding on the teacher's accuracy."""
    chance = 1 / confusion.classes
    values = {
        "accuracy": confusion.accuracy,
        "chance": chance,
        "effective_rows": confusion.effective_rows,
    }
    message = f"The teacher is right in {percent(confusion.accuracy)} of the rows"
    if statistics.is_guessing(*confusion.counts):
        severity, message = "error", f"{message}, and so may be guessing"
    elif statistics.knows_little(*confusion.counts):
        severity, message = "warning", f"{message}, little more than chance"
    elif not statistics.is_above_chance(*confusion.counts):
        severity, message = "note", f"{message}, too few of them to tell that from chance"
    else:
        return Finding("accuracy", "ok", f"{message} (chance: {percent(chance)}).", values=values)
    return Finding(
        "accuracy",
        severity,
        f"{message} (chance: {percent(chance)}).",
        "Are its weights loaded, do its inputs have the range and the order of channels it was "
        "trained on (teacher_preprocess), and are the classes in its order?",
        values,
    )


def check_student(teacher: Confusion, student: Confusion, pair: PairTally) -> Finding:
    """A finding on the student's accuracy beside the teacher's.

    The samples in which only one of them is right decide (McNemar): with equal models each would be
    right in half of those.
    """
    values = {
        "teacher_accuracy": teacher.accuracy,
        "student_accuracy": student.accuracy,
        "student_right_alone": pair.student_only / pair.weight,
        "teacher_right_alone": pair.teacher_only / pair.weight,
    }
    both = f"({percent(student.accuracy)} and {percent(teacher.accuracy)} of the rows)"
    if pair.student_only - pair.teacher_only > STUDENT_DEVIATIONS * math.sqrt(pair.squares):
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


def is_trained(teacher: Confusion, student: Confusion) -> bool:
    """Whether the student has learned something; a heuristic.

    Its lead over chance is at least half of the teacher's. Random networks reach some accuracy too.
    """
    chance = 1 / student.classes
    return student.accuracy - chance >= 0.5 * max(teacher.accuracy - chance, chance)


# Weak classes: those that the teacher does not know.


WEAK_CLASSES_SHOWN = 5
# A class is weak below this share of the mean recall (and below chance).
WEAK_CLASSES_SHARE = 0.5


def check_weak_classes(confusion: Confusion) -> Finding:
    """A finding on the recall of each class.

    A class is weak if its recall is below chance, or below half of the mean recall, and its rows
    suffice: with a teacher without weak classes one would look weak in less than 0.1 % of data.
    """
    recall = confusion.recall
    known = np.flatnonzero(confusion.rows > 0)
    worst = known[np.argsort(recall[known], kind="stable")]
    mean = float(recall[known].mean())
    least = max(1 / confusion.classes, WEAK_CLASSES_SHARE * mean)
    weak = [int(c) for c in worst if _is_below(confusion, c, least, len(known))]
    values = {
        "mean_recall": mean,
        "worst": {int(c): float(recall[c]) for c in worst[:WEAK_CLASSES_SHOWN]},
        "weak": weak,
    }
    if not weak:
        lowest = f"{percent(recall[worst[0]])} (class {worst[0]})"
        message = f"The lowest recall of a class is {lowest}, the mean {percent(mean)}."
        return Finding("weak classes", "ok", message, values=values)
    shown = ", ".join(f"{c} ({percent(recall[c])})" for c in weak[:WEAK_CLASSES_SHOWN])
    shown += ", ..." if len(weak) > WEAK_CLASSES_SHOWN else ""
    return Finding(
        "weak classes",
        "warning",
        f"The teacher knows {len(weak)} of {len(known)} classes badly, and the student will "
        f"inherit that: recall of class {shown}; mean {percent(mean)}.",
        "Train the teacher with more rows, or more weight, of these classes, or let their labels "
        "count more: kd.weighting.ClassShares(recall of each class).",
        values,
    )


def _is_below(confusion, c, least, classes):
    rows = round(float(confusion.class_rows[c]))
    if rows == 0 or not 0 < least < 1:
        return False
    right = round(float(confusion.recall[c]) * rows)
    # One class of many would be below by chance: the probability is divided among them.
    return statistics.binomial_cdf(right, rows, least) < statistics.UNLIKELY / classes


# Calibration: probabilities that match the accuracy.


# Calibrated networks have an error of 1 to 2 %, modern ones without calibration 4 to 16 % (Guo et
# al., 2017, table 1).
CALIBRATION_NOTED, CALIBRATION_TOO_LARGE = 0.05, 0.10
# A calibrated teacher shows an error too, on few samples: `CalibrationTally.noise` is its mean.
CALIBRATION_NOISES = 2.0


def check_calibration(tally: CalibrationTally, where: str) -> tuple[Finding, float | None]:
    """A finding on the calibration at temperature 1, and the temperature that corrects it.

    `ECE = sum_b w_b / w |accuracy_b - confidence_b|` over 15 bins of the confidence (the
    probability of the likeliest class).

    Args:
        tally: A `tallies.CalibrationTally`.
        where: Which data, for the message.

    Returns:
        `(finding, temperature)`; the temperature is `None` where the data do not determine it.
    """
    at_one = tally.at(1.0)
    error, noise = float(tally.calibration_errors()[at_one]), tally.noise()
    confidence, accuracy = float(tally.confidence()[at_one]), tally.accuracy()
    fitted = tally.fit()
    values = {
        "ece": error,
        "ece_of_a_calibrated_model": noise,
        "nll": tally.mean("nll", 1.0),
        "confidence": confidence,
        "accuracy": accuracy,
        "temperature": None if fitted is None else fitted[0],
    }
    message = (
        f"On {where} the teacher's mean confidence is {percent(confidence)} and its accuracy "
        f"{percent(accuracy)}; calibration error (ECE) {error:.3f}, by chance {noise:.3f}; "
        f"negative log-likelihood {values['nll']:.3f}."
    )
    if fitted is None:
        message += " No temperature from 1/8 to 32 is best for it."
    else:
        values["nll_after"], values["ece_after"] = fitted[1:]
        message += (
            f" Divided by the fitted temperature {fitted[0]:.2f}: ECE {fitted[2]:.3f}, negative "
            f"log-likelihood {fitted[1]:.3f}."
        )
    severity = _calibration_severity(error, noise)
    remedy = "" if severity == "ok" else _calibration_remedy(confidence > accuracy, fitted)
    temperature = values["temperature"]
    return Finding("calibration", severity, message, remedy, values), temperature


def _calibration_severity(error, noise):
    if error <= CALIBRATION_NOTED or error <= CALIBRATION_NOISES * noise:
        return "ok"
    return "warning" if error > CALIBRATION_TOO_LARGE else "note"


def _calibration_remedy(is_over, fitted):
    remedy = f"The teacher is {'over' if is_over else 'under'}confident."
    if fitted is None:
        return remedy + " A temperature alone does not correct that: look at its accuracy first."
    return remedy + (
        f" Divide its logits by {fitted[0]:.2f}, or choose the temperature of distillation with "
        f"that in mind: T = {4 * fitted[0]:.2g} softens it as much as T = 4 a calibrated one."
    )


# Soft targets: more information than labels, at the temperature of distillation.


# Heuristics for `(1 - mean largest probability) / (1 - 1 / classes)`: 0 for one-hot targets, 1 for
# uniform ones. Below the first the loss is that of the teacher's answer as a label; above the
# second the gradient hardly depends on the sample.
SOFT_TARGETS_HARD, SOFT_TARGETS_UNIFORM = 0.02, 0.95
# The suggestion: the likeliest class keeps most, and the others remain distinguishable.
SOFT_TARGETS_SUGGESTED = 0.3


def check_soft_targets(tally: CalibrationTally, temperature: float, classes: int) -> Finding:
    """A finding on the mass that the classes other than the likeliest have.

    Args:
        tally: A `tallies.CalibrationTally` of the training data.
        temperature: The temperature of distillation.
        classes: Number of classes.
    """
    others = 1 - tally.confidence()
    softness = others / (1 - 1 / classes)
    now = tally.at(temperature)
    suggestion = suggest_temperature(tally.temperatures, softness)
    values = {
        "temperature": temperature,
        "others": float(others[now]),
        "softness": float(softness[now]),
        "sure_rows": float(tally.sure / tally.weight),
        "entropy": tally.mean("entropy", 1.0),
        "suggested_temperature": suggestion,
    }
    message = (
        f"At T = {temperature:g} the classes other than the likeliest have {percent(others[now])} "
        f"of the probability on average. At T = 1 {percent(values['sure_rows'])} of the rows have "
        f"a probability above 0.99; mean entropy {values['entropy']:.3f} of "
        f"{np.log(classes):.3f} nats."
    )
    if SOFT_TARGETS_HARD <= softness[now] <= SOFT_TARGETS_UNIFORM:
        return Finding("soft targets", "ok", message, values=values)
    kind = "nearly labels" if softness[now] < SOFT_TARGETS_HARD else "nearly uniform"
    remedy = (
        f"The soft targets are {kind}. Try T = {suggestion:.2g} (a heuristic: there the others "
        f"have {percent(SOFT_TARGETS_SUGGESTED * (1 - 1 / classes))})"
    )
    remedy += (
        "; kd.losses.DecoupledKD also reads teachers that are very sure."
        if softness[now] < SOFT_TARGETS_HARD
        else "."
    )
    return Finding("soft targets", "warning", message, remedy, values)


def suggest_temperature(temperatures: np.ndarray, softness: np.ndarray) -> float:
    """The temperature from 1/8 to 32 at which the targets are as soft as suggested, or the end."""
    # Softness rises with the temperature in every row.
    return float(np.exp(np.interp(SOFT_TARGETS_SUGGESTED, softness, np.log(temperatures))))


# Overfitting: a teacher that has memorized the training data.


# The accuracy on the training data is higher by this, and by three standard deviations.
OVERFIT_GAP, OVERFIT_DEVIATIONS = 0.10, 3.0
# From this share of training samples with a probability above 0.99 soft targets are labels.
OVERFIT_SURE_SHARE = 0.9


def check_overfit(train: ModelTally, validation: ModelTally) -> Finding:
    """A finding on the teacher's accuracy on the data it teaches with and on other data.

    Args:
        train: The teacher's `ModelTally` on the data.
        validation: On the validation data.
    """
    accuracy = train.confusion.accuracy, validation.confusion.accuracy
    rows = train.confusion.effective_rows, validation.confusion.effective_rows
    mean = (accuracy[0] * rows[0] + accuracy[1] * rows[1]) / sum(rows)
    deviation = math.sqrt(mean * (1 - mean) * (1 / rows[0] + 1 / rows[1]))
    gap, sure = accuracy[0] - accuracy[1], float(train.calibration.sure / train.calibration.weight)
    values = {"accuracy": accuracy[0], "validation_accuracy": accuracy[1], "sure_rows": sure}
    message = (
        f"The teacher is right in {percent(accuracy[0])} of the data and in "
        f"{percent(accuracy[1])} of the validation data; {percent(sure)} of the data has a "
        "probability above 0.99."
    )
    if gap <= max(OVERFIT_GAP, OVERFIT_DEVIATIONS * deviation):
        return Finding("memorised", "ok", message, values=values)
    if sure < OVERFIT_SURE_SHARE:
        remedy = (
            "The gap is wide, but its soft targets are not one-hot: they still carry information."
        )
        return Finding("memorised", "note", message, remedy, values)
    return Finding(
        "memorised",
        "warning",
        message,
        "The teacher has memorized this data, so that its soft targets here are the labels. "
        "Teach with data it has not seen (kd.data.with_unlabeled), with new views of this data "
        "(kd.data.mixup, cutmix), or at a higher temperature.",
        values,
    )


# Capacity: a teacher too large for the student.


# Heuristics. The gap that hurts depends on task and networks: 23 times the parameters helped in
# this project's demo (README); Mirzadeh et al. (https://arxiv.org/abs/1902.03393) gain by an
# assistant between networks of 10 and 2 convolutions.
CAPACITY_RATIO = 50.0
# A trained student that agrees with the teacher in fewer samples follows it badly.
CAPACITY_AGREEMENT = 0.8


def check_capacity(parameters: tuple[int, int], agreement: float | None) -> Finding:
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
    follows = agreement is not None and agreement >= CAPACITY_AGREEMENT
    if ratio <= CAPACITY_RATIO or follows:
        return Finding("capacity", "ok", message, values=values)
    return Finding(
        "capacity",
        "note",
        message,
        f"Above {CAPACITY_RATIO:.0f} times (a heuristic) a model of a size between the two often "
        "helps as an assistant: distill the teacher into it, and it into the student "
        "(kd.distill_chain).",
        values,
    )
