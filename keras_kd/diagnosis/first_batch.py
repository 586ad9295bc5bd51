"""The cheap checks of one batch, which `fit` may make before it trains."""

import numpy as np

from keras_kd.diagnosis import accuracy, outputs, rows
from keras_kd.diagnosis.confusion import Confusion


def first_batch_findings(teacher_outputs, student_outputs=None, labels=None, from_logits=True):
    """What is wrong with a first batch.

    Probabilities where logits are expected (and the reverse), NaN and infinities, outputs that say
    nothing, and a teacher that may be guessing: one who guesses would be right as often in more
    than 5 % of such batches, and one whose accuracy is `1 / classes + (1 - 1 / classes) / 4` or
    more would be right so rarely in less than 0.1 %. With 10 classes and no right answer that takes
    18 rows. Batches with mostly one label are not asked for accuracy, nor those whose labels are no
    classes.

    Args:
        teacher_outputs: `[batch, ..., classes]`, at least two classes; an array.
        student_outputs: Likewise, or `None`.
        labels: Class indices `[batch, ...]`, or a probability for each class, or `None`.
        from_logits: Whether the outputs are logits; `False`: probabilities.

    Returns:
        A list of `Finding`: warnings and errors only, empty where nothing is wrong.

    Raises:
        ValueError: The outputs are those of several heads, or of fewer than two classes.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    probabilities = np.full((32, 4), 0.25, "float32")
    found = kd.diagnosis.first_batch_findings(probabilities)
    assert "ends in softmax" in found[0].message
    ```
    """
    shape = np.shape(teacher_outputs)
    values = {"teacher": rows.flat_outputs("teacher", teacher_outputs)}
    if student_outputs is not None:
        values["student"] = rows.flat_outputs("student", student_outputs)
    classes = None if labels is None else rows.class_indices(labels, shape)
    labels = None if classes is None else classes[0]
    found = []
    for role, each in values.items():
        tally = outputs.OutputsTally(each.shape[-1])
        tally.add(each)
        # Inputs may be equal; where labels differ they are not.
        differ = labels is not None and len(np.unique(labels)) > 1
        found += outputs.check(role, tally, from_logits, differ)
    if labels is not None:
        found += _accuracy(values["teacher"], labels)
    return [finding for finding in found if finding.is_problem]


def _accuracy(values, labels):
    """The finding on the teacher's accuracy, in a list; none where one label fills the batch."""
    classes = values.shape[-1]
    use = rows.are_finite(values) & (labels >= 0) & (labels < classes)
    values, labels = values[use], labels[use]
    # Sorted data: a batch of one class tells of the teacher's recall of it only.
    counts = np.bincount(labels, minlength=classes)
    if not len(labels) or counts.max() > 0.5 * (1 + 1 / classes) * len(labels):
        return []
    confusion = Confusion(classes)
    confusion.add(labels, values.argmax(axis=-1), np.ones(len(labels)))
    found = accuracy.check_teacher(confusion)
    # That it knows little is no news of a batch: its bound is for the accuracy on all data.
    return [found] if found.severity == "error" else []
