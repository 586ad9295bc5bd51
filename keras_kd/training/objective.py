"""The training objective of one step: `alpha * hard + beta * sum_i weight_i * soft_i`.

Averages are Keras' "sum_over_batch_size": the weighted sum over the rows, divided by the number of
rows (of valid rows where the student's output carries a mask).
"""

import dataclasses
import math
from typing import Any

import keras
import tensorflow as tf

from keras_kd import models, ops
from keras_kd.losses import SoftTargets, base
from keras_kd.models import matching
from keras_kd.ops.sparse_logits import SparseLogits
from keras_kd.taps import recorder
from keras_kd.training import distribution, padding_masks


@dataclasses.dataclass
class Outputs:
    """What one forward pass of a model gave.

    Attributes:
        outputs: A tensor, or a structure of them.
        taps: What the tapped layers gave, `{layer: value}`.
        names: What outputs in a list are called, or `None`.
        inputs: The batch's inputs; a dict by their names, where they have any.
        role: `"teacher"` or `"student"`.
        padding: The mask of the distiller's `mask_input`, `[batch, time]`, or `None`.
    """

    outputs: Any
    taps: dict = dataclasses.field(default_factory=dict)
    names: Any = None
    inputs: Any = None
    role: str = "student"
    padding: Any = None

    def read(self, reading):
        """The tensors that a loss reads, as a list (usually of one)."""
        layer = reading.layer(self.role)
        if isinstance(layer, tuple):
            return [[self.taps[each] for each in layer]]
        if layer is not None:
            return [self.taps[layer]]
        if reading.is_structure:
            return [self.outputs]
        if self.role == "teacher" and reading.teacher_output is None:
            flat = keras.tree.flatten(self.outputs)
            # Whatever the student calls it: one output can teach one head only.
            if len(flat) == 1:
                return flat
        return models.flat_outputs(self.outputs, reading.key(self.role), self.names, self.role)

    def mask(self, reading, values):
        """Which positions of what is read count, `[batch, time]`; `None`: all.

        The loss's own `mask_input` tells, else the Keras mask of the tensor, else the distiller's
        `mask_input`, where the tensor has its positions. That of attention says which pairs may
        attend, and not which queries are padding: it joins what the inputs tell.
        """
        carried = None if keras.tree.is_nested(values) else recorder.of(values)
        told = self._told(reading, values)
        if reading.is_attention and told is not None:
            return recorder.of_attention(carried, told, values.shape)
        return told if reading.mask_input is not None or carried is None else carried

    def _told(self, reading, values):
        """Which positions of what is read count, as an input tells."""
        if reading.mask_input is not None:
            return padding_masks.mask_of(self.inputs, reading.mask_input)
        if self.padding is None or keras.tree.is_nested(values):
            return None
        return self.padding if padding_masks.has_positions(reading, values, self.padding) else None


@dataclasses.dataclass
class Batch:
    """What the data says of a batch, and whether it is trained on."""

    labels: Any = None
    sample_weight: Any = None
    training: bool = False
    inputs: Any = None


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
    reading = loss.reading
    pairs = list(_pairs(loss.name, reading, teacher, student))
    weights = _sample_weights(reading, student, batch.sample_weight, len(pairs))
    labels = _labels(loss.name, reading, student, batch.labels, len(pairs))
    means, counts = [], []
    for (teacher_outputs, student_outputs), weight, label in zip(
        pairs, weights, labels, strict=True
    ):
        mask = student.mask(reading, student_outputs)
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


def _labels(name, reading, student, labels, count):
    """The labels of each output the loss reads; `None` for a loss that takes none."""
    if reading.labels is None or (labels is None and reading.labels == "optional"):
        return [None] * count
    if labels is None:
        raise ValueError(
            f"Distillation loss {name!r} needs labels, and the data has none. Pass (inputs, "
            "labels)."
        )
    if not keras.tree.is_nested(labels):
        return [labels] * count
    found = matching.of_each(labels, reading.output, student.outputs, student.names)
    if reading.labels == "required" and any(each is None for each in found):
        raise ValueError(
            f"Distillation loss {name!r} needs labels of each output that it reads, and the "
            "data has none of some. Choose an output with its argument `output`."
        )
    return found


def _pairs(name, reading, teacher, student):
    """The teacher's and the student's tensors that a loss compares."""
    of_teacher, of_student = teacher.read(reading), student.read(reading)
    if len(of_teacher) != len(of_student):
        raise ValueError(
            f"Distillation loss {name!r} reads {len(of_teacher)} outputs of the teacher and "
            f"{len(of_student)} of the student. Choose one of each: its argument `output` names "
            "the student's, `teacher_output` the teacher's where that is called otherwise."
        )
    # Of several outputs each must be compared with its own: `matching.aligned` found out which.
    if len(of_student) > 1 and not matching.is_aligned(teacher.outputs, student.outputs):
        have = [_called(each) for each in (teacher, student)]
        raise ValueError(
            f"The teacher's outputs are {have[0]}, the student's {have[1]}: which belong together "
            "cannot be told. Give them the same names, or one loss for each: its arguments "
            "`output` and `teacher_output` name them."
        )
    return zip(of_teacher, of_student, strict=True)


def _called(model):
    """The outputs of a model, for a message."""
    outputs = model.outputs
    names = matching.names_of(outputs, model.names)
    return sorted(names) if names else f"{len(keras.tree.flatten(outputs))} without names"


def _sample_weights(reading, student, sample_weight, count):
    """The sample weights for each output the loss reads."""
    if not keras.tree.is_nested(sample_weight):
        return [sample_weight] * count
    found = matching.of_each(sample_weight, reading.output, student.outputs, student.names)
    if reading.student_layer is None and not reading.is_structure:
        return found
    # One value a row for several heads: the mean of their weights, of 1 for a head without.
    if all(each is None for each in found):
        return [None] * count
    if len(found) == 1:
        return found * count
    rows = next(tf.shape(each)[:1] for each in found if each is not None)
    of_rows = [tf.ones(rows) if each is None else base.mean_of_row(each) for each in found]
    return [tf.add_n(of_rows) / len(of_rows)] * count


def times(sample_weight, factor):
    """Sample weights (`None` for 1, or a structure of them) times a factor for each row."""
    if sample_weight is None:
        return factor
    return keras.tree.map_structure(lambda weight: _product(weight, factor), sample_weight)


def _product(a, b):
    longest = a if len(a.shape) > len(b.shape) else b
    return base.align(a, longest) * base.align(b, longest)


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
    parts = [] if recorder.of(outputs) is None else [recorder.of(outputs)]
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
    return distribution.balance(hard_divisor(loss, y, outputs, sample_weight), rows)


def separate_parts(hard, losses, teacher, student, batch, alpha):
    """Parts of a step, each distillation loss by itself: see `combined`."""
    means = [means_of(loss, teacher, student, batch) for loss in losses]
    return alpha * hard, hard, tf.zeros(()), means


def parts_without_teacher(hard, losses, student, alpha):
    """As `separate_parts`, where the teacher does not run: nothing is learned from it."""
    counts = [len(student.read(loss.reading)) for loss in losses]
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
    balance = distribution.balance(counts if _is_masked(loss, student) else None, rows)
    return tf.reduce_sum(balance * means)


def _is_masked(loss, student):
    reading = loss.reading
    return any(student.mask(reading, values) is not None for values in student.read(reading))


# `FusedLoss`: hard and soft loss from one sweep over the logits, for the usual case.


_TINY = 1e-30
# Keras divides by the number of values that count, by either name.
_MEANS = ("sum_over_batch_size", "mean")


class FusedLoss:
    """Hard and soft loss from one sweep over the logits.

    It applies where the hard loss is sparse cross-entropy from logits, averaged, and one of the
    distillation losses is `SoftTargets` that reads the student's one output as plain logits: its
    `reading` says so. Sample weights, masks and `ignore_class` are weights of the rows. The other
    losses, `others`, are computed by themselves.

    Args:
        hard_loss: The `loss` given to `compile`.
        loss_weights: The `loss_weights` given to `compile`.
        distillation_losses: List of losses.
    """

    def __init__(self, hard_loss, loss_weights, distillation_losses):
        found = [loss for loss in distillation_losses if _is_plain(loss)]
        self._soft = found[0] if found else None
        self.others = [loss for loss in distillation_losses if loss is not self._soft]
        self._position = distillation_losses.index(self._soft) if found else None
        config = hard_loss.get_config() if _is_sparse_cross_entropy(hard_loss) else {}
        self._ignored = config.get("ignore_class")
        self._possible = (
            config.get("from_logits") is True
            and config.get("reduction") in _MEANS
            and hard_loss.dtype == "float32"
            and loss_weights is None
            and self._soft is not None
        )

    def applies(self, y, student, sample_weight):
        """Whether this batch can take the fused path; decided when the step is traced."""
        if not self._possible or keras.tree.is_nested(student.outputs):
            return False
        if keras.tree.is_nested(y) or keras.tree.is_nested(sample_weight):
            return False
        labels = self._labels(y, student.outputs)
        if labels is None or not self._fit(labels, student):
            return False
        # Replicas with other shares of valid positions are balanced loss by loss.
        is_masked = self._ignored is not None or any(x is not None for x in self._masks(student))
        return not (is_masked and distribution.count() > 1)

    def _masks(self, student):
        """The masks of hard and of soft loss."""
        return recorder.of(student.outputs), student.mask(self._soft.reading, student.outputs)

    def _fit(self, labels, student):
        """Whether the masks are those of positions that have a label."""
        ranks = [len(mask.shape) for mask in self._masks(student) if mask is not None]
        return all(rank <= len(labels.shape) for rank in ranks)

    def _labels(self, y, logits):
        rank = len(logits.shape) - 1
        if len(y.shape) == rank + 1 and y.shape[-1] == 1:
            y = tf.squeeze(y, -1)
        if len(y.shape) != rank:
            return None
        return y if y.dtype in (tf.int32, tf.int64) else tf.cast(y, tf.int64)

    def losses_of(self, batch, student, teacher, hard_weight, alpha, beta):
        """The weighted sum of both losses, the hard one and the soft one, all scalars.

        Where a factor is zero it is taken for 1e-30, because the kernel computes no loss whose
        weight is zero, and a loss of zero would be reported; against any gradient that a float
        can be added to, 1e-30 is nothing.

        Args:
            batch: A `Batch` with the sample weights of the distillation losses.
            student: `Outputs`.
            teacher: `Outputs`.
            hard_weight: Sample weights of the hard loss, or `None`.
            alpha: Scalar.
            beta: Scalar.
        """
        reading = self._soft.reading
        (logits,), (soft_logits,) = student.read(reading), teacher.read(reading)
        labels = self._labels(batch.labels, logits)
        hard_mask, soft_mask = self._masks(student)
        if self._ignored is not None:
            counts = tf.cast(labels, tf.float32) != float(self._ignored)  # as Keras compares
            hard_mask = counts if hard_mask is None else counts & _per_label(hard_mask, labels)
        hard_weight = _per_row(hard_weight, hard_mask, labels)
        soft_weight = _per_row(batch.sample_weight, soft_mask, labels)
        soft_factor = beta * keras.ops.convert_to_tensor(self._soft.weight_variable)
        alpha, soft_factor = tf.maximum(alpha, _TINY), tf.maximum(soft_factor, _TINY)
        total, hard, soft = ops.combined_loss(
            logits,
            soft_logits,
            labels,
            alpha * hard_weight,
            soft_factor * soft_weight,
            self._soft.temperature_variable,
            self._soft.divergence,
            mixing_weight=self._soft.mixing_weight,
        )
        means = tf.reduce_sum(hard * hard_weight), tf.reduce_sum(soft * soft_weight)
        return tf.reduce_sum(total), means[0], means[1]

    def insert(self, values, soft):
        """Puts the value of the loss that is fused among those of the others."""
        return [*values[: self._position], soft, *values[self._position :]]


def _per_row(sample_weight, mask, labels):
    """Each row's part of the mean over the valid rows; a scalar where all have the same."""
    # `valid_rows` asks for the shape of a loss a row only.
    weight, count = base.valid_rows(labels, sample_weight, mask)
    share = tf.math.reciprocal_no_nan(count)
    return share if weight is None else weight * share


def _per_label(mask, labels):
    return tf.broadcast_to(base.align(mask, labels) > 0, tf.shape(labels))


def _is_plain(loss):
    return type(loss) is SoftTargets and loss.reading.is_of_plain_logits


def _is_sparse_cross_entropy(loss):
    return type(loss) is keras.losses.SparseCategoricalCrossentropy
