"""`HardLoss`: the loss of the labels alone."""

import keras
import tensorflow as tf

from keras_kd import replicas


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
            # Keras has divided it by the number of replicas.
            loss = super().compute_loss(None, y, y_pred, sample_weight)
            # In float32, as all terms: `floatx` may be another.
            return replicas.count() * tf.cast(loss, tf.float32)
        finally:
            self._hard_loss_only = False
