"""Did the teacher learn the training data by heart?"""

import math

from keras_kd.diagnosis.finding import Finding, percent

# The accuracy on the training data is higher by this, and by three standard deviations.
GAP, SURE = 0.10, 3.0
# Share of training rows with a probability above 0.99 from which soft targets are labels.
ONE_HOT = 0.9


def check(train, validation):
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
    if gap <= max(GAP, SURE * deviation):
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
