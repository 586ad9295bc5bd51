"""The cheap checks of one batch, which `fit` runs in its first step."""

from typing import Any

import numpy as np

from keras_kd._utils import statistics, validation
from keras_kd._utils.validation import invalid
from keras_kd.diagnosis import model_checks, teacher_checks
from keras_kd.diagnosis.finding import Finding
from keras_kd.diagnosis.tallies import Confusion, OutputsTally

# This many logits do not all lie between 0 and 1 by chance.
_LEAST_VALUES = 32


def first_batch_findings(
    teacher_outputs: Any,
    student_outputs: Any = None,
    labels: Any = None,
    from_logits: bool = True,
    teacher_from_logits: bool | None = None,
    counts: Any = None,
) -> list[Finding]:
    """What is wrong with a first batch.

    Probabilities where logits are expected (and the reverse), NaN and infinities, constant outputs,
    and a teacher that may be guessing: a guessing one would be right as often in more than 5 % of
    such batches, and one whose accuracy is `1 / classes + (1 - 1 / classes) / 4` or more would be
    right so rarely in less than 0.1 %. With 10 classes and no right answer that takes 18 samples.
    Accuracy is not checked in batches with mostly one label, nor where the labels are no classes.

    Args:
        teacher_outputs: `[batch, ..., classes]`, at least two classes; an array.
        student_outputs: The same for the student, or `None`.
        labels: Class indices `[batch, ...]`, or a probability for each class, or `None`.
        from_logits: Whether the outputs are logits; `False`: probabilities.
        teacher_from_logits: The same for the teacher alone; default: `from_logits`.
        counts: Boolean `[batch, ...]`: which positions count, such as those that are not padding;
            `None`: all.

    Returns:
        A list of `Finding`: warnings and errors only, empty where nothing is wrong.

    Raises:
        ValueError: There are several outputs, or fewer than two classes.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    probabilities = np.full((32, 4), 0.25, "float32")
    found = kd.diagnosis.first_batch_findings(probabilities)
    assert "ends in softmax" in found[0].message
    ```
    """
    validation.boolean("from_logits", from_logits)
    if teacher_from_logits is not None:
        validation.boolean("teacher_from_logits", teacher_from_logits)
    shape = np.shape(teacher_outputs)
    values = {"teacher": statistics.flat_outputs("teacher", teacher_outputs)}
    if student_outputs is not None:
        values["student"] = statistics.flat_outputs("student", student_outputs)
    classes = None if labels is None else statistics.class_indices(labels, shape)
    labels = None if classes is None else classes[0]
    if counts is not None:
        _check_counts(counts, shape[:-1])
        counts = np.broadcast_to(counts, shape[:-1]).reshape(-1)
        values = {role: each[counts] for role, each in values.items()}
        labels = None if labels is None else labels[counts]
    are_logits = {"student": from_logits, "teacher": from_logits}
    if teacher_from_logits is not None:
        are_logits["teacher"] = teacher_from_logits
    found: list[Finding] = []
    for role, each in values.items():
        tally = OutputsTally(each.shape[-1])
        tally.add(each)
        # Inputs may be equal; where labels differ they are not.
        differ = labels is not None and len(np.unique(labels)) > 1
        found += model_checks.check_outputs(role, tally, are_logits[role], differ)
    if labels is not None:
        found += _accuracy_findings(values["teacher"], labels)
    return [finding for finding in found if finding.is_problem]


def _check_counts(counts, shape):
    counts = np.asarray(counts)
    fits = counts.ndim <= len(shape) and all(
        size in (1, of) for size, of in zip(counts.shape[::-1], shape[::-1], strict=False)
    )
    if counts.dtype.kind != "b" or not fits:
        received = f"shape {counts.shape}, {counts.dtype}"
        raise invalid("counts", f"booleans of shape {tuple(shape)}", received)


def _accuracy_findings(values, labels):
    """The finding on the teacher's accuracy, in a list; none where one label fills the batch."""
    classes = values.shape[-1]
    use = statistics.are_finite(values) & (labels >= 0) & (labels < classes)
    values, labels = values[use], labels[use]
    # Sorted data: a batch of one class only shows the teacher's recall of it.
    counts = np.bincount(labels, minlength=classes)
    if not len(labels) or counts.max() > 0.5 * (1 + 1 / classes) * len(labels):
        return []
    confusion = Confusion(classes)
    confusion.add(labels, values.argmax(axis=-1), np.ones(len(labels)))
    found = teacher_checks.check_accuracy(confusion)
    # A warning that it knows little is not for one batch: its bound is for all data.
    return [found] if found.severity == "error" else []


def yes_or_no_findings(role: str, values: Any, from_logits: bool) -> list[Finding]:
    """What is wrong with outputs whose classes are a yes or no each.

    Args:
        role: `"teacher"` or `"student"`.
        values: An array.
        from_logits: Whether they are logits; `False`: probabilities.

    Returns:
        A list of `Finding`, warnings and errors.
    """
    values = np.asarray(values, np.float64).reshape(-1)
    values = values[np.isfinite(values)]
    inside = (values >= 0) & (values <= 1)
    figures = {"values": len(values), "between_0_and_1": int(inside.sum())}
    name = "teacher_from_logits" if role == "teacher" else "from_logits"
    if from_logits and len(values) >= _LEAST_VALUES and inside.all():
        return [
            Finding(
                f"{role}'s outputs",
                "error",
                f"The {role} seems to end in sigmoid: all of its {len(values)} values lie between "
                "0 and 1, although logits are expected. Their sigmoid lies between 0.5 and 0.73.",
                f"Remove the sigmoid (activation=None in the last layer), or pass {name}=False.",
                figures,
            )
        ]
    if not from_logits and not inside.all():
        return [
            Finding(
                f"{role}'s outputs",
                "error",
                f"The {role} returns no probabilities, although {name}=False: "
                f"{len(values) - inside.sum()} of {len(values)} values do not lie between 0 and 1.",
                f"If they are logits pass {name}=True.",
                figures,
            )
        ]
    return []


def padding_that_counts(
    mask: Any, shape: Any, weight: Any = None, counts: Any = None
) -> int | None:
    """How many padded positions count in a loss.

    Args:
        mask: An input, 0 where a position is padding.
        shape: The shape of what the loss reads, `[batch, ...]`; it may begin with the mask's.
        weight: Sample weights, or `None`: padding of weight 0 does not count.
        counts: Which positions the loss counts, of the mask's shape, or `None`: all.

    Returns:
        A number; `None` where there are no such positions, or no padding.
    """
    padded = np.asarray(mask) == 0
    rank = padded.ndim
    if rank < 2 or len(shape) <= rank or tuple(shape[:rank]) != padded.shape or not padded.any():
        return None
    weight = np.ones(padded.shape) if weight is None else np.asarray(weight)
    weight = weight.reshape(weight.shape[:rank])
    if weight.shape != padded.shape[: weight.ndim]:
        return None
    weight = weight.reshape(weight.shape + (1,) * (rank - weight.ndim))
    return int((padded & (weight != 0) & (True if counts is None else counts)).sum())


def padding_finding(name: str, positions: int, padded: int, layer_losses: Any = ()) -> Finding:
    """The finding that padding counts.

    Args:
        name: Name of the input that marks it.
        positions: The number of positions.
        padded: How many of them are padding and count.
        layer_losses: Names of the losses on inner layers in which they count; empty: they count in
            the losses on outputs.
    """
    if layer_losses:
        listed = ", ".join(repr(each) for each in layer_losses)
        where = f"in the losses of inner layers {listed}."
        remedy = f"Pass mask_input={name!r} to losses that keep positions, such as HiddenStates."
    else:
        where = "in the losses: the outputs carry no Keras mask."
        remedy = f"Pass mask_input={name!r} to Distiller, or give padding a sample_weight of 0."
    return Finding(
        "padding",
        "warning",
        f"Input {name!r} says that {padded} of {positions} positions are padding, and they "
        f"count {where}",
        remedy,
        {"padded": padded, "positions": positions},
    )
