"""`FusedLoss`: hard and soft loss from one sweep over the logits, for the usual case."""

from typing import Any

import keras
import tensorflow as tf

from keras_kd import ops
from keras_kd.losses import SoftTargets, base
from keras_kd.taps import recorder
from keras_kd.training import distribution

TINY = 1e-30
# Keras divides by the number of values that count, by either name.
MEANS = ("sum_over_batch_size", "mean")


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
        self._soft: Any = found[0] if found else None
        self.others = [loss for loss in distillation_losses if loss is not self._soft]
        self._position = distillation_losses.index(self._soft) if found else None
        config = hard_loss.get_config() if _is_sparse_cross_entropy(hard_loss) else {}
        self._ignored = config.get("ignore_class")
        self._possible = (
            config.get("from_logits") is True
            and config.get("reduction") in MEANS
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
        return recorder.mask_of(student.outputs), student.mask(self._soft.reading, student.outputs)

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
        alpha, soft_factor = tf.maximum(alpha, TINY), tf.maximum(soft_factor, TINY)
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
    # `valid_rows` needs the shape of a per-sample loss only.
    weight, count = base.valid_rows(labels, sample_weight, mask)
    share = tf.math.reciprocal_no_nan(count)
    return share if weight is None else weight * share


def _per_label(mask, labels):
    return tf.broadcast_to(base.align_weights(mask, labels) > 0, tf.shape(labels))


def _is_plain(loss):
    return type(loss) is SoftTargets and loss.reading.is_of_plain_logits


def _is_sparse_cross_entropy(loss):
    return type(loss) is keras.losses.SparseCategoricalCrossentropy
