"""`FusedLoss`: hard and soft loss from one sweep over the logits, for the usual case."""

import keras
import tensorflow as tf

from keras_kd import ops
from keras_kd.losses import SoftTargets, base
from keras_kd.taps import masks

_TINY = 1e-30


class FusedLoss:
    """Hard and soft loss from one sweep over the logits.

    It applies where the hard loss is sparse cross-entropy from logits with its default reduction,
    and one of the distillation losses is `SoftTargets` on the one output. The others, `others`, are
    computed by themselves.

    Args:
        hard_loss: The `loss` given to `compile`.
        loss_weights: The `loss_weights` given to `compile`.
        distillation_losses: List of losses.
    """

    def __init__(self, hard_loss, loss_weights, distillation_losses):
        found = [loss for loss in distillation_losses if type(loss) is SoftTargets]
        self._soft = found[0] if found else None
        self.others = [loss for loss in distillation_losses if loss is not self._soft]
        self._position = distillation_losses.index(self._soft) if found else None
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
        logits = student.outputs
        (soft_logits,) = keras.tree.flatten(teacher.outputs)  # it may be one in a dict
        labels = self._labels(batch.labels, logits)
        weights = hard_weight, batch.sample_weight
        hard_weight, soft_weight = (_per_row(weight, labels) for weight in weights)
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


def _per_row(sample_weight, labels):
    """Each row's part of the mean over the rows; a scalar where all have the same."""
    weight = tf.math.reciprocal_no_nan(tf.cast(tf.size(labels), tf.float32))
    return weight if sample_weight is None else weight * base.align(sample_weight, labels)


def _is_sparse_cross_entropy(loss):
    return type(loss) is keras.losses.SparseCategoricalCrossentropy
