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
from keras_kd.taps import masks

_TINY = 1e-30


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


def mean_of(loss, teacher, student, batch):
    """One distillation loss averaged over the rows, not yet times its weight.

    Args:
        loss: A `DistillationLoss`.
        teacher: `Outputs` of the teacher.
        student: `Outputs` of the student.
        batch: A `Batch`; labels and sample weights are `None`, a tensor, or a structure of them
            like the outputs.

    Returns:
        A float32 scalar; the sum over the outputs where the loss reads several.
    """
    pairs = list(_pairs(loss, teacher, student))
    weights = _row_weights(loss, student, batch.sample_weight)
    labels = _labels(loss, student, batch.labels, len(pairs))
    total = 0.0
    for (teacher_outputs, student_outputs), weight, label in zip(
        pairs, weights, labels, strict=True
    ):
        mask = _mask_for(loss, student, student_outputs)
        context = {"labels": label, "training": batch.training}
        weighted, rows = loss.weighted(teacher_outputs, student_outputs, weight, mask, **context)
        total += tf.math.divide_no_nan(tf.reduce_sum(weighted), rows)
    return total


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
    return models.flat_outputs(labels, loss.output_key, student.names)


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
    return models.flat_outputs(sample_weight, loss.output_key, student.names)


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


def valid_rows(outputs):
    """How many rows of an output its Keras mask leaves; `None` where there is no mask."""
    mask = None if keras.tree.is_nested(outputs) else masks.of(outputs)
    return None if mask is None else tf.reduce_sum(tf.cast(mask, tf.float32))


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


class FusedLoss:
    """Hard and soft loss from one sweep over the logits, for the usual case.

    It applies where the hard loss is sparse cross-entropy from logits with its default reduction,
    and one of the distillation losses is `SoftTargets` on the one output. The others are computed
    by themselves.

    Args:
        hard_loss: The `loss` given to `compile`.
        loss_weights: The `loss_weights` given to `compile`.
        distillation_losses: List of losses.
    """

    def __init__(self, hard_loss, loss_weights, distillation_losses):
        self._losses = distillation_losses
        found = [loss for loss in distillation_losses if type(loss) is SoftTargets]
        self._soft = found[0] if found else None
        config = hard_loss.get_config() if _is_sparse_cross_entropy(hard_loss) else {}
        self._possible = (
            config.get("from_logits") is True
            and config.get("ignore_class") is None
            and config.get("reduction") == "sum_over_batch_size"
            and hard_loss.dtype == "float32"
            and loss_weights is None
            and self._soft is not None
            and self._soft.from_logits
            and self._soft.output_key is None
        )

    def applies(self, y, student, sample_weight):
        """Whether this batch can take the fused path; decided when the step is traced."""
        if not self._possible or keras.tree.is_nested(student.outputs):
            return False
        if keras.tree.is_nested(y) or keras.tree.is_nested(sample_weight):
            return False
        if masks.of(student.outputs) is not None:
            return False
        return self._labels(y, student.outputs) is not None

    def _labels(self, y, logits):
        rank = len(logits.shape) - 1
        if len(y.shape) == rank + 1 and y.shape[-1] == 1:
            y = tf.squeeze(y, -1)
        if len(y.shape) != rank:
            return None
        return y if y.dtype in (tf.int32, tf.int64) else tf.cast(y, tf.int64)

    def terms(self, batch, student, teacher, hard_weight, alpha, beta):
        """The fields of the step's `Terms`.

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
        logits = student.outputs
        labels = self._labels(batch.labels, logits)
        weights = hard_weight, batch.sample_weight
        hard_weight, soft_weight = (_per_row(weight, labels) for weight in weights)
        soft_factor = beta * keras.ops.convert_to_tensor(self._soft.weight_variable)
        alpha, soft_factor = tf.maximum(alpha, _TINY), tf.maximum(soft_factor, _TINY)
        total, hard, soft = ops.combined_loss(
            logits,
            teacher.outputs,
            labels,
            alpha * hard_weight,
            soft_factor * soft_weight,
            self._soft.temperature_variable,
            self._soft.divergence,
            mixing_weight=self._soft.mixing_weight,
        )
        means = tf.reduce_sum(hard * hard_weight), tf.reduce_sum(soft * soft_weight)
        others = [loss for loss in self._losses if loss is not self._soft]
        rest, _, values = separate_terms(0.0, others, teacher, student, batch, 0.0, beta, 1.0)
        values.insert(self._losses.index(self._soft), means[1])
        return tf.reduce_sum(total) + rest, means[0], values


def _per_row(sample_weight, labels):
    """Each row's part of the mean over the rows; a scalar where all have the same."""
    weight = tf.math.reciprocal_no_nan(tf.cast(tf.size(labels), tf.float32))
    return weight if sample_weight is None else weight * base.align(sample_weight, labels)


def _is_sparse_cross_entropy(loss):
    return type(loss) is keras.losses.SparseCategoricalCrossentropy


def separate_terms(hard, losses, teacher, student, batch, alpha, beta, balance):
    """The fields of the step's `Terms`, each distillation loss by itself, times `balance`."""
    soft = [balance * mean_of(loss, teacher, student, batch) for loss in losses]
    total = alpha * hard
    for loss, value in zip(losses, soft, strict=True):
        total += beta * keras.ops.convert_to_tensor(loss.weight_variable) * value
    return total, hard, soft
