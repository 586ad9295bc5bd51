"""Which classes does the teacher not know?"""

import numpy as np

from keras_kd.diagnosis import binomial
from keras_kd.diagnosis.finding import Finding, percent

SHOWN = 5
# A class is weak below this part of the mean recall (and below chance).
FAR_BELOW = 0.5


def check(confusion):
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
    return binomial.at_most(right, rows, least) < binomial.UNLIKELY / classes
