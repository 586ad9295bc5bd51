"""`TokenLoss`: hard and soft loss of language models from hidden states, in chunks of positions.

Beside the losses the same chunks give what is reported of language models: how likely and how often
right the student's next token is.
"""

import dataclasses
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_kd.losses import TokenKD, base, shapes
from keras_kd.taps import recorder
from keras_kd.training import distribution
from keras_kd.training.fused_loss import MEANS, TINY


class TokenSums(NamedTuple):
    """Sums over the positions of a batch that count, weighted as the hard loss is.

    Attributes:
        cross_entropy: Float32 scalar, nats.
        correct: Float32 scalar.
        weight: Float32 scalar.
    """

    cross_entropy: Any
    correct: Any
    weight: Any


@dataclasses.dataclass(frozen=True)
class _Rows:
    """What counts in a batch, found outside of any condition: replicas agree on it.

    Attributes:
        labels: Integers `[batch, ...]`, or `None`.
        hard: Each position's part of the mean hard loss, float32 `[batch, ...]`.
        soft: The same of the soft loss.
        weight: Each position's weight in what is reported, float32 `[batch, ...]`.
    """

    labels: Any
    hard: Any
    soft: Any
    weight: Any


class TokenLoss:
    """Hard and soft loss from hidden states.

    Args:
        hard_loss: The `loss` given to `compile`.
        loss_weights: The `loss_weights` given to `compile`.
        distillation_losses: List of losses; one is a `TokenKD`.

    Attributes:
        others: The other losses.

    Raises:
        ValueError: A loss needs the logits as a whole.
    """

    def __init__(self, hard_loss: Any, loss_weights: Any, distillation_losses: list):
        self._soft = next(loss for loss in distillation_losses if isinstance(loss, TokenKD))
        self.others = [loss for loss in distillation_losses if loss is not self._soft]
        self._position = distillation_losses.index(self._soft)
        self._ignored = [] if self._soft.ignore_class is None else [self._soft.ignore_class]
        if loss_weights is not None:
            raise ValueError(
                "`loss_weights` of compile is for models with several outputs; a TokenKD trains "
                f"one. Leave it out. Received: loss_weights={loss_weights!r}"
            )
        self.has_hard = hard_loss is not None
        if self.has_hard:
            self._check(hard_loss)
            ignored = hard_loss.get_config().get("ignore_class")
            self._ignored_by_hard = [] if ignored is None else [ignored]
        else:
            self._ignored_by_hard = []

    def _check(self, loss: Any) -> None:
        kind = keras.losses.SparseCategoricalCrossentropy
        config = loss.get_config() if type(loss) is kind else {}
        fits = config.get("from_logits") is True and config.get("reduction") in MEANS
        if not fits:
            raise ValueError(
                "With a TokenKD the hard loss is computed in chunks, without the logits. Expected: "
                "keras.losses.SparseCategoricalCrossentropy(from_logits=True), averaged, or None. "
                f"Received: loss={loss!r}. Another loss needs keras_kd.losses.SoftTargets."
            )

    def check_batch(self, y: Any, sample_weight: Any) -> None:
        """Raises unless labels and sample weights are those of one output."""
        for name, value in (("labels", y), ("sample weights", sample_weight)):
            if keras.tree.is_nested(value):
                raise ValueError(
                    f"The {name} of a language model are one tensor [batch, time]. Received: "
                    f"{type(value).__name__}"
                )

    def rows(
        self, y: Any, student: Any, sample_weight: Any, rows: Any, hard_factor: Any = 1.0
    ) -> _Rows:
        """What counts in a batch.

        Args:
            y: Labels, or `None`.
            student: `Outputs`, with `DeferredLogits`.
            sample_weight: Sample weights, or `None`.
            rows: Float32 scalar, the samples of the batch.
            hard_factor: Scalar, times which the hard loss and what is reported count.
        """
        outputs = student.outputs
        positions = tf.zeros(tf.shape(outputs.hidden)[:-1])
        positions.set_shape(outputs.hidden.shape[:-1])
        labels = None if y is None else shapes.class_indices(y, outputs)
        soft_mask = self._counting(labels, student.mask(self._soft.reading, outputs), self._ignored)
        everywhere = [*self._ignored, *self._ignored_by_hard]
        hard_mask = self._counting(labels, recorder.mask_of(outputs), everywhere)
        weights = []
        for mask in (hard_mask, soft_mask):
            weight, count = base.valid_rows(positions, sample_weight, mask)
            weight = tf.ones_like(positions) if weight is None else weight + positions
            balance = distribution.balance(None if mask is None else count, rows)
            weights.append((weight, weight * balance * tf.math.reciprocal_no_nan(count)))
        if labels is None:
            weights[0] = positions, positions
        reported, hard = (hard_factor * each for each in weights[0])
        return _Rows(labels, hard, weights[1][1], reported)

    def _counting(self, labels: Any, mask: Any, ignored: list) -> Any:
        """Which positions count, boolean, or `None` for all."""
        parts = [] if mask is None else [tf.cast(mask, tf.bool)]
        if labels is not None:
            parts += [labels != tf.cast(each, labels.dtype) for each in ignored]
        return tf.reduce_all(tf.stack(parts), axis=0) if parts else None

    def of_both(self, rows: _Rows, student: Any, teacher: Any, alpha: Any, beta: Any) -> tuple:
        """`(weighted sum, hard loss, soft loss, TokenSums)`; a gradient flows from the first.

        Factors of zero are taken for 1e-30: see `FusedLoss.losses_of`.
        """
        factor = beta * keras.ops.convert_to_tensor(self._soft.weight_variable)
        (outputs,) = teacher.read(self._soft.reading)
        found = self._soft.losses(
            outputs,
            student.outputs,
            labels=rows.labels,
            hard_weight=self._hard_factor(alpha) * rows.hard,
            soft_weight=tf.maximum(factor, TINY) * rows.soft,
            reduction="sum",
        )
        return self._parts(found, rows, found.loss)

    def of_labels(self, rows: _Rows, student: Any, alpha: Any, training: bool) -> tuple:
        """The same without the teacher: the soft loss is zero."""
        if rows.labels is None:
            zero = tf.zeros(())
            return zero, zero, zero, TokenSums(zero, zero, zero)
        found = self._soft.losses(
            None,
            student.outputs,
            labels=rows.labels,
            hard_weight=self._hard_factor(alpha) * rows.hard,
            reduction="sum",
            differentiable=training,
        )
        return self._parts(found, rows, found.loss)

    def _hard_factor(self, alpha: Any) -> Any:
        # Without a loss in `compile` the cross-entropy is reported only.
        return tf.maximum(alpha, TINY) if self.has_hard else tf.constant(TINY)

    def _parts(self, found: Any, rows: _Rows, total: Any) -> tuple:
        hard = tf.reduce_sum(found.hard * rows.hard) if self.has_hard else tf.zeros(())
        correct = tf.cast(found.is_correct, tf.float32) * rows.weight
        sums = TokenSums(
            tf.reduce_sum(found.hard * rows.weight),
            tf.reduce_sum(correct),
            tf.reduce_sum(rows.weight),
        )
        return total, hard, tf.reduce_sum(found.soft * rows.soft), sums

    def insert(self, values: list, soft: Any) -> list:
        """Puts the value of the `TokenKD` among those of the others."""
        return [*values[: self._position], soft, *values[self._position :]]


@keras.saving.register_keras_serializable(package="keras_kd")
class Perplexity(keras.metrics.Mean):
    """The exponential of a mean cross-entropy in nats; 0 of no tokens, as Keras' means are."""

    def result(self) -> Any:
        found = keras.ops.exp(super().result())
        return keras.ops.where(self.count > 0, found, keras.ops.zeros_like(found))


class TokenMetrics(keras.layers.Layer):
    """What is reported of a language model beside its losses.

    A layer, so that Keras finds its metrics, resets and saves them.
    """

    def __init__(self) -> None:
        super().__init__(name="token_metrics", dtype="float32", autocast=False)
        self.accuracy = keras.metrics.Mean(name="token_accuracy")
        self.perplexity = Perplexity(name="perplexity")
        self.built = True

    def update(self, sums: TokenSums) -> None:
        """Updates the metrics with a batch."""
        for metric, total in (
            (self.accuracy, sums.correct),
            (self.perplexity, sums.cross_entropy),
        ):
            mean = tf.math.divide_no_nan(total, sums.weight)
            metric.update_state(mean, sample_weight=sums.weight)

    def call(self, inputs: Any) -> Any:
        return inputs
