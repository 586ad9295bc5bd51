"""Are the teacher's classes in the order of the labels?"""

import numpy as np

from keras_kd.diagnosis.finding import Finding, percent

# A class counts as moved if the teacher gives another one to so many of its rows. No two classes
# can claim one that way by chance: random answers to 20 rows of 10 classes never come near.
MOVED = 0.6
LEAST_ROWS = 20
SHOWN = 5


def check(confusion):
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
