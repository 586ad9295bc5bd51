"""`HardLoss`: the loss of the labels alone."""

import keras
import tensorflow as tf

from keras_kd import hooks, replicas


class HardLoss:
    """Mixin of a `keras.Model`: its compiled loss, apart from its regularisers."""

    _hard_loss_only = False

    @staticmethod
    def sums_of(losses):
        """The regularisers as float32 scalars: they come in the types of what they penalise."""
        return [keras.ops.cast(keras.ops.sum(loss), "float32") for loss in losses]

    @property
    def losses(self):
        return [] if self._hard_loss_only else super().losses

    def hard_loss(self, y, y_pred, sample_weight):
        """The compiled loss without regularisers; zero where there is none."""
        if y is None or self.loss is None:
            return tf.zeros(())
        self._hard_loss_only = True
        try:
            # Past a subclass's `compute_loss`: that is the loss of the whole step.
            loss = keras.Model.compute_loss(self, None, y, y_pred, sample_weight)
            return _whole(loss)
        finally:
            self._hard_loss_only = False


def own_loss_of(student, x, y, y_pred, sample_weight, training):
    """What a student's own `compute_loss` gives: its loss of the labels and its regularisers."""
    loss = hooks.call_compute_loss(student, x, y, y_pred, sample_weight, training)
    if loss is None or len(loss.shape) > 0:
        shape = None if loss is None else tuple(loss.shape)
        raise ValueError(
            f"`compute_loss` of the student's class {type(student).__name__} must return a scalar. "
            f"Received: {'None' if shape is None else f'shape {shape}'}. Average over the batch."
        )
    return _whole(loss)


def _whole(loss):
    # Keras has divided it by the number of replicas. In float32, as all terms: `floatx` may be
    # another.
    return replicas.count() * tf.cast(loss, tf.float32)
