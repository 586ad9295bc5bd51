"""The training objective of one step: `alpha * hard + beta * sum_i weight_i * soft_i`.

Averages are Keras' "sum_over_batch_size": the weighted sum over the rows, divided by the number of
rows (of valid rows where the student's output carries a mask).
"""

import dataclasses
import math
from typing import Any

import keras
import tensorflow as tf

from keras_kd import by_output, models, replicas
from keras_kd.losses import base
from keras_kd.ops.sparse_logits import SparseLogits
from keras_kd.taps import masks


@dataclasses.dataclass
class Outputs:
    """What one forward pass of a model gave: its outputs and the tapped layers' outputs."""

    outputs: Any
    taps: dict = dataclasses.field(default_factory=dict)
    names: Any = None
    inputs: Any = None

    def read_by(self, loss, layer):
        """The tensors that a loss reads, as a list (usually of one)."""
        if isinstance(layer, tuple):
            return [[self.taps[each] for each in layer]]
        if layer is not None:
            return [self.taps[layer]]
        if getattr(loss, "reads_structure", False):
            return [self.outputs]
        return models.flat_outputs(self.outputs, loss.output_key, self.names)


@dataclasses.dataclass
class Batch:
    """What the data says of a batch, and whether it is trained on."""

    labels: Any = None
    sample_weight: Any = None
    training: bool = False


@dataclasses.dataclass
class Terms:
    """Scalars of a step: the weighted sum, the hard loss, and each soft loss, unweighted."""

    total: Any
    hard: Any
    soft: list


def rows_of(x):
    """The number of rows of a batch, float32; optional inputs may be `None`."""
    first = next(value for value in keras.tree.flatten(x) if value is not None)
    return tf.cast(tf.shape(first)[0], tf.float32)


def means_of(loss, teacher, student, batch):
    """One distillation loss averaged over the rows, for each output that it reads.

    Args:
        loss: A `DistillationLoss`.
        teacher: `Outputs` of the teacher.
        student: `Outputs` of the student.
        batch: A `Batch`; labels and sample weights are `None`, a tensor, or a structure of them
            like the outputs.

    Returns:
        `(means, counts)`, float32 `[outputs]`: the averages, not yet times the loss's weight, and
        over how many valid values each is taken.
    """
    pairs = list(_pairs(loss, teacher, student))
    weights = _row_weights(loss, student, batch.sample_weight)
    labels = _labels(loss, student, batch.labels, len(pairs))
    means, counts = [], []
    for (teacher_outputs, student_outputs), weight, label in zip(
        pairs, weights, labels, strict=True
    ):
        mask = _mask_for(loss, student, student_outputs)
        _check_takes(loss, teacher_outputs)
        context = {"labels": label, "training": batch.training}
        weighted, count = loss.weighted(teacher_outputs, student_outputs, weight, mask, **context)
        means.append(tf.math.divide_no_nan(tf.reduce_sum(weighted), count))
        counts.append(count)
    return tf.stack(means), tf.stack(counts)


def _check_takes(loss, teacher_outputs):
    if isinstance(teacher_outputs, SparseLogits) and not loss.takes_sparse:
        raise ValueError(
            f"Distillation loss {loss.name!r} needs all logits of the teacher; the cache keeps the "
            "largest ones only. Use SoftTargets, or write the cache without top_k."
        )


def _labels(loss, student, labels, count):
    """The labels of each output the loss reads; `None` for a loss that takes none."""
    if not loss.takes("labels"):
        return [None] * count
    if labels is None and not loss.requires("labels"):
        return [None] * count
    if labels is None:
        raise ValueError(
            f"Distillation loss {loss.name!r} needs labels, and the data has none. Pass (inputs, "
            "labels)."
        )
    if not keras.tree.is_nested(labels):
        return [labels] * count
    found = by_output.of_each(labels, loss.output_key, student.outputs, student.names)
    if loss.requires("labels") and any(each is None for each in found):
        raise ValueError(
            f"Distillation loss {loss.name!r} needs labels of each output that it reads, and the "
            "data has none of some. Choose an output with its argument `output`."
        )
    return found


def _pairs(loss, teacher, student):
    """The teacher's and the student's tensors that a loss compares."""
    of_teacher = teacher.read_by(loss, loss.teacher_layer)
    of_student = student.read_by(loss, loss.student_layer)
    if len(of_teacher) != len(of_student):
        raise ValueError(
            f"Distillation loss {loss.name!r} reads {len(of_teacher)} outputs of the teacher and "
            f"{len(of_student)} of the student. Choose one with its argument `output`, or give the "
            "models the same outputs."
        )
    keys = [sorted(x.outputs) for x in (teacher, student) if isinstance(x.outputs, dict)]
    if len(of_student) > 1 and len(keys) == 2 and keys[0] != keys[1]:
        raise ValueError(
            f"The teacher's outputs are {keys[0]}, the student's {keys[1]}. Give them the same "
            "names."
        )
    return zip(of_teacher, of_student, strict=True)


def _row_weights(loss, student, sample_weight):
    """The sample weights for each output the loss reads."""
    count = len(student.read_by(loss, loss.student_layer))
    if not keras.tree.is_nested(sample_weight):
        return [sample_weight] * count
    if loss.student_layer is not None or getattr(loss, "reads_structure", False):
        if len(keras.tree.flatten(sample_weight)) > 1:
            raise ValueError(
                f"Distillation loss {loss.name!r} reads all outputs or an inner layer, so it "
                "cannot choose among the sample weights of several outputs. Pass one sample_weight."
            )
        return keras.tree.flatten(sample_weight) * count
    return by_output.of_each(sample_weight, loss.output_key, student.outputs, student.names)


def times(sample_weight, factor):
    """Sample weights (`None` for 1, or a structure of them) times a factor for each row."""
    if sample_weight is None:
        return factor
    return keras.tree.map_structure(lambda weight: _product(weight, factor), sample_weight)


def _product(a, b):
    longest = a if len(a.shape) > len(b.shape) else b
    return base.align(a, longest) * base.align(b, longest)


def _mask_for(loss, student, outputs):
    """Which positions of a loss count, `[batch, time]`; `None`: all."""
    if loss.mask_input is None:
        return None if keras.tree.is_nested(outputs) else masks.of(outputs)
    if not isinstance(student.inputs, dict) or loss.mask_input not in student.inputs:
        have = sorted(student.inputs) if isinstance(student.inputs, dict) else "not a dict"
        raise ValueError(
            f"Distillation loss {loss.name!r} reads its mask from input {loss.mask_input!r}. The "
            f"student's inputs are {have}."
        )
    return tf.cast(student.inputs[loss.mask_input], tf.bool)


def hard_divisor(loss, y, outputs, sample_weight):
    """What Keras divides the sum of the hard loss's values by, where that is not their number.

    Returns:
        A float32 scalar, to be compared between replicas only; or `None`: by the number of values
        (and for models with several outputs, which are not looked into).
    """
    if y is None or keras.tree.is_nested(outputs) or keras.tree.is_nested(y):
        return None
    reduction = getattr(loss, "reduction", "sum_over_batch_size")
    if reduction == "sum":
        return tf.ones(())
    parts = [] if masks.of(outputs) is None else [masks.of(outputs)]
    ignored = getattr(loss, "ignore_class", None)
    if ignored is not None:
        labels = y if len(y.shape) < len(outputs.shape) else tf.squeeze(y, -1)
        parts.append(labels != tf.cast(ignored, y.dtype))
    if reduction == "mean_with_sample_weight" and sample_weight is not None:
        parts.append(sample_weight)
    if not parts:
        return None
    longest = max(parts, key=lambda part: len(part.shape))
    return tf.reduce_sum(math.prod(base.align(part, longest) for part in parts))


def hard_balance(loss, y, outputs, sample_weight, rows):
    """The hard loss's part of the global one: see `replicas.balance`."""
    return replicas.balance(hard_divisor(loss, y, outputs, sample_weight), rows)


def separate_parts(hard, losses, teacher, student, batch, alpha):
    """Parts of a step, each distillation loss by itself: see `combined`."""
    means = [means_of(loss, teacher, student, batch) for loss in losses]
    return alpha * hard, hard, tf.zeros(()), means


def parts_without_teacher(hard, losses, student, alpha):
    """As `separate_parts`, where the teacher does not run: nothing is learned from it."""
    counts = [len(student.read_by(loss, loss.student_layer)) for loss in losses]
    return alpha * hard, hard, tf.zeros(()), [(tf.zeros(n), tf.zeros(n)) for n in counts]


def combined(parts, losses, student, beta, rows):
    """The sum of a step's parts, and the value of each loss.

    Args:
        parts: The total so far; the hard loss; the soft loss of the fused path; and of each of
            `losses` what `means_of` gives.
        losses: The distillation losses that are computed by themselves.
        student: `Outputs`.
        beta: Scalar.
        rows: Float32 scalar, the rows of this replica's batch.

    Returns:
        `(total, values)`.
    """
    total, values = parts[0], []
    for loss, (means, counts) in zip(losses, parts[3], strict=True):
        values.append(balanced(loss, means, counts, student, rows))
        factor = beta * keras.ops.convert_to_tensor(loss.weight_variable)
        # A loss of weight 0 does not count, also where it is infinite: 0 * inf is NaN.
        total += tf.math.multiply_no_nan(values[-1], factor)
    return total, values


def balanced(loss, means, counts, student, rows):
    """The value of a loss of which `means_of` gave means and counts; the sum over its outputs.

    A replica's mean counts for its part of what the global one is taken over. That is not the
    same for all losses: padding counts in no loss over positions, and in one of pooled features it
    is not seen.
    """
    balance = replicas.balance(counts if _is_masked(loss, student) else None, rows)
    return tf.reduce_sum(balance * means)


def _is_masked(loss, student):
    read = student.read_by(loss, loss.student_layer)
    tensors = [] if keras.tree.is_nested(read[0]) else read
    return loss.mask_input is not None or any(masks.of(x) is not None for x in tensors)
