"""Are the teacher's probabilities what they say?"""

from keras_kd.diagnosis.finding import Finding, percent

# Calibrated networks have an error of 1 to 2 %, modern ones without calibration 4 to 16 % (Guo et
# al., 2017, table 1).
NOTED, TOO_LARGE = 0.05, 0.10
# A calibrated teacher looks so bad on few rows only: `TemperatureSweep.noise` is the mean of the
# error that it would show.
NOISES = 2.0


def check(sweep, where):
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
