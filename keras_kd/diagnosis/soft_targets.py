"""Do the soft targets say more than the labels, at the temperature of distillation?"""

import numpy as np

from keras_kd.diagnosis.finding import Finding, percent

# Heuristics, of `(1 - mean largest probability) / (1 - 1 / classes)`: 0 for one-hot targets, 1 for
# uniform ones. Below: the loss is that of the teacher's answer as a label. Above: the
# gradient hardly depends on the row.
HARD, UNIFORM = 0.02, 0.95
# What is suggested: the likeliest class keeps most, and the others can be told apart.
SUGGESTED = 0.3


def check(sweep, temperature, classes):
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
