"""Are a model's outputs what they are taken for: logits or probabilities, finite, not constant?"""

import numpy as np

from keras_kd.diagnosis import rows
from keras_kd.diagnosis.finding import Finding, percent

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
        finite = values[rows.are_finite(values)]
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


def check(role, tally, from_logits, differ=True):
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
    return found or [_fine(role, check_name, tally, from_logits)]


def _fine(role, check_name, tally, from_logits):
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
