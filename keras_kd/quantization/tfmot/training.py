"""Distillation of a tf_keras model. `Distiller` cannot: it would train none of its variables."""

import math

import keras
import tensorflow as tf

from keras_kd import ops
from keras_kd.teachers.base import Lesson


class Trainer:
    """Trains a tf_keras model with labels and a teacher.

        loss = alpha * CE(labels) + beta * T^2 KL(teacher || student) + regularisers

    by Adam and a learning rate that decays to 0 along a cosine: with a constant one training for
    integers was measured to be worse than none.

    Args:
        teacher: A `keras_kd.teachers.Teacher`.
        model: A tf_keras model of one output, logits.
        tf_keras: The library.
        weights: `(alpha, beta)`.
        temperature: `T`.
        learning_rate: The rate of the first step.
        steps: How many steps there will be.
    """

    def __init__(self, teacher, model, tf_keras, weights, temperature, learning_rate, steps):
        self._teacher, self._model = teacher, model
        self._alpha, self._beta = weights
        self._temperature = temperature
        rate = tf_keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        self._optimizer = tf_keras.optimizers.Adam(rate)
        self._step = tf.function(self._one_step, reduce_retracing=True)

    def epoch(self, batches):
        """Trains on each batch once; returns the mean loss of a batch."""
        losses = [self._step(inputs, labels, weights) for inputs, labels, weights in batches]
        mean = float(tf.reduce_mean(losses))
        if not math.isfinite(mean):
            raise ValueError(
                f"The loss is {mean}: the learning rate is too high, or a label wrong."
            )
        return mean

    def _one_step(self, inputs, labels, weights):
        soft = self._teacher.answer(Lesson(inputs, labels)) if self._beta else None
        with tf.GradientTape() as tape:
            logits = self._model(keras.tree.flatten(inputs), training=True)
            loss = tf.add_n([self._of_rows(logits, soft, labels, weights), *self._model.losses])
        variables = self._model.trainable_variables
        self._optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def _of_rows(self, logits, soft, labels, weights):
        rows = tf.zeros(tf.shape(logits)[:-1])
        if self._alpha:
            rows += self._alpha * _cross_entropy(labels, logits)
        if self._beta:
            rows += self._beta * ops.soft_target_loss(logits, soft, self._temperature)
        if weights is not None:  # [batch] or [batch, 1]
            rows *= tf.reshape(tf.cast(weights, rows.dtype), tf.shape(rows))
        return tf.reduce_mean(rows)


def _cross_entropy(labels, logits):
    if labels.shape.rank == logits.shape.rank and labels.shape[-1] == logits.shape[-1]:
        return tf.nn.softmax_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits)
    labels = tf.reshape(tf.cast(labels, tf.int32), tf.shape(logits)[:-1])
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
