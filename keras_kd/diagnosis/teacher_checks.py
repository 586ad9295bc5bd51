"""Checks of the teacher: accurate, calibrated, informative, not overfit, not too large."""

import math

import numpy as np

from keras_kd._utils import statistics
from keras_kd.diagnosis.finding import Finding, percent

# Does the teacher know more than chance, and more than the student?


# Standard deviations: less than 0.2 % of pairs of equal models are so far apart.
DEVIATIONS = 3.0


def check_teacher(confusion):
    """A finding on the teacher's accuracy."""
    chance = 1 / confusion.classes
    values = {
        "accuracy": confusion.accuracy,
        "chance": chance,
        "effective_rows": confusion.effective_rows,
    }
    told = f"The teacher is right in {percent(confusion.accuracy)} of the rows"
    if statistics.is_guessing(*confusion.counts):
        severity, told = "error", f"{told}, and so may be guessing"
    elif statistics.knows_little(*confusion.counts):
        severity, told = "warning", f"{told}, little more than chance"
    elif not statistics.is_above_chance(*confusion.counts):
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
    if pair.student_only - pair.teacher_only > DEVIATIONS * math.sqrt(pair.squares):
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


# Are the teacher's probabilities what they say?


# Calibrated networks have an error of 1 to 2 %, modern ones without calibration 4 to 16 % (Guo et
# al., 2017, table 1).
NOTED, TOO_LARGE = 0.05, 0.10
# A calibrated teacher looks so bad on few rows only: `TemperatureSweep.noise` is the mean of the
# error that it would show.
NOISES = 2.0


def check_calibration(sweep, where):
    """A finding on the calibration at temperature 1, and the temperature that mends it.

    `ECE = sum_b w_b / w |accuracy_b - confidence_b|` over 15 bins of the confidence (the
    probability of the likeliest class).

    Args:
        sweep: A `TemperatureSweep`.
        where: Which data, for the message.

    Returns:
        `(finding, temperature)`; the temperature is `None` where the data cannot tell it.
    """
    at_one = sweep.at(1.0)
    error, noise = float(sweep.calibration_errors()[at_one]), sweep.noise()
    confidence, accuracy = float(sweep.confidence()[at_one]), sweep.accuracy()
    fitted = sweep.fit()
    values = {
        "ece": error,
        "ece_of_a_calibrated_model": noise,
        "nll": sweep.mean("nll", 1.0),
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
    severity = _severity(error, noise)
    remedy = "" if severity == "ok" else _remedy(confidence > accuracy, fitted)
    temperature = values["temperature"]
    return Finding("calibration", severity, message, remedy, values), temperature


def _severity(error, noise):
    if error <= NOTED or error <= NOISES * noise:
        return "ok"
    return "warning" if error > TOO_LARGE else "note"


def _remedy(is_over, fitted):
    remedy = f"The teacher is {'over' if is_over else 'under'}confident."
    if fitted is None:
        return remedy + " A temperature alone does not mend it: look at its accuracy first."
    return remedy + (
        f" Divide its logits by {fitted[0]:.2f}, or choose the temperature of distillation with "
        f"that in mind: T = {4 * fitted[0]:.2g} softens it as much as T = 4 a calibrated one."
    )


# Which classes does the teacher not know?


SHOWN = 5
# A class is weak below this part of the mean recall (and below chance).
FAR_BELOW = 0.5


def check_weak_classes(confusion):
    """A finding on the recall of each class.

    A class is weak if its recall is below chance, or below half of the mean recall, and its rows
    suffice: of a teacher without such classes one would look like this in less than 0.1 % of data.
    """
    recall = confusion.recall
    known = np.flatnonzero(confusion.rows > 0)
    worst = known[np.argsort(recall[known], kind="stable")]
    mean = float(recall[known].mean())
    least = max(1 / confusion.classes, FAR_BELOW * mean)
    weak = [int(c) for c in worst if _is_below(confusion, c, least, len(known))]
    values = {
        "mean_recall": mean,
        "worst": {int(c): float(recall[c]) for c in worst[:SHOWN]},
        "weak": weak,
    }
    if not weak:
        lowest = f"{percent(recall[worst[0]])} (class {worst[0]})"
        message = f"The lowest recall of a class is {lowest}, the mean {percent(mean)}."
        return Finding("weak classes", "ok", message, values=values)
    shown = ", ".join(f"{c} ({percent(recall[c])})" for c in weak[:SHOWN])
    return Finding(
        "weak classes",
        "warning",
        f"The teacher knows {len(weak)} of {len(known)} classes badly, and the student will "
        f"inherit that: recall of class {shown}{', ...' if len(weak) > SHOWN else ''}; mean "
        f"{percent(mean)}.",
        "Train the teacher with more rows, or more weight, of these classes, or let their labels "
        "count more: kd.weighting.ClassShares(recall of each class).",
        values,
    )


def _is_below(confusion, c, least, classes):
    rows = round(float(confusion.class_rows[c]))
    if rows == 0 or not 0 < least < 1:
        return False
    right = round(float(confusion.recall[c]) * rows)
    # One class of many would be below by chance: each gets its part of what is unlikely.
    return statistics.at_most(right, rows, least) < statistics.UNLIKELY / classes


# Did the teacher learn the training data by heart?


# The accuracy on the training data is higher by this, and by three standard deviations.
GAP, DEVIATIONS_OF_GAP = 0.10, 3.0
# Share of training rows with a probability above 0.99 from which soft targets are labels.
ONE_HOT = 0.9


def check_overfit(train, validation):
    """A finding on the teacher's accuracy on the data it teaches with and on other data.

    Args:
        train: The teacher's `ModelTally` on the data.
        validation: On the validation data.
    """
    of = train.confusion.accuracy, validation.confusion.accuracy
    rows = train.confusion.effective_rows, validation.confusion.effective_rows
    mean = (of[0] * rows[0] + of[1] * rows[1]) / sum(rows)
    deviation = math.sqrt(mean * (1 - mean) * (1 / rows[0] + 1 / rows[1]))
    gap, sure = of[0] - of[1], float(train.sweep.sure / train.sweep.weight)
    values = {"accuracy": of[0], "validation_accuracy": of[1], "sure_rows": sure}
    message = (
        f"The teacher is right in {percent(of[0])} of the data and in {percent(of[1])} of the "
        f"validation data; {percent(sure)} of the data has a probability above 0.99."
    )
    if gap <= max(GAP, DEVIATIONS_OF_GAP * deviation):
        return Finding("memorised", "ok", message, values=values)
    if sure < ONE_HOT:
        remedy = "The gap is wide, but its soft targets are not one-hot: they still say something."
        return Finding("memorised", "note", message, remedy, values)
    return Finding(
        "memorised",
        "warning",
        message,
        "The teacher has learnt this data by heart, so that on it its soft targets are the labels. "
        "Teach with data it has not seen (kd.data.with_unlabelled), with views that it has not "
        "(kd.data.mixup, cutmix), or at a higher temperature.",
        values,
    )


# Do the soft targets say more than the labels, at the temperature of distillation?


# Heuristics, of `(1 - mean largest probability) / (1 - 1 / classes)`: 0 for one-hot targets, 1 for
# uniform ones. Below: the loss is that of the teacher's answer as a label. Above: the
# gradient hardly depends on the row.
HARD, UNIFORM = 0.02, 0.95
# What is suggested: the likeliest class keeps most, and the others can be told apart.
SUGGESTED = 0.3


def check_soft_targets(sweep, temperature, classes):
    """A finding on the mass that the classes other than the likeliest have.

    Args:
        sweep: A `TemperatureSweep` of the data that is trained on.
        temperature: Of distillation.
        classes: Number of classes.
    """
    others = 1 - sweep.confidence()
    softness = others / (1 - 1 / classes)
    now = sweep.at(temperature)
    suggestion = suggested(sweep.temperatures, softness)
    values = {
        "temperature": temperature,
        "others": float(others[now]),
        "softness": float(softness[now]),
        "sure_rows": float(sweep.sure / sweep.weight),
        "entropy": sweep.mean("entropy", 1.0),
        "suggested_temperature": suggestion,
    }
    message = (
        f"At T = {temperature:g} the classes other than the likeliest have {percent(others[now])} "
        f"of the probability on average. At T = 1 {percent(values['sure_rows'])} of the rows have "
        f"a probability above 0.99; mean entropy {values['entropy']:.3f} of "
        f"{np.log(classes):.3f} nats."
    )
    if HARD <= softness[now] <= UNIFORM:
        return Finding("soft targets", "ok", message, values=values)
    kind = "nearly labels" if softness[now] < HARD else "nearly uniform"
    remedy = (
        f"The soft targets are {kind}. Try T = {suggestion:.2g} (a heuristic: there the others "
        f"have {percent(SUGGESTED * (1 - 1 / classes))})"
    )
    remedy += (
        "; kd.losses.DecoupledKD also reads teachers that are very sure."
        if softness[now] < HARD
        else "."
    )
    return Finding("soft targets", "warning", message, remedy, values)


def suggested(temperatures, softness):
    """The temperature from 1/8 to 32 at which the targets are as soft as suggested, or the end."""
    # Softness rises with the temperature in every row.
    return float(np.exp(np.interp(SUGGESTED, softness, np.log(temperatures))))


# Is the teacher too large for the student?


# Heuristics. The gap that hurts depends on task and networks: 23 times the parameters helped in
# this project's demo (README); Mirzadeh et al. (https://arxiv.org/abs/1902.03393) gain by an
# assistant between networks of 10 and 2 convolutions.
RATIO = 50.0
# A trained student that agrees with the teacher in fewer rows follows it badly.
AGREEMENT = 0.8


def check_capacity(parameters, agreement):
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
