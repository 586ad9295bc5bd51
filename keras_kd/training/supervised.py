"""Training from labels alone."""

import keras
import tensorflow as tf

from keras_kd import models
from keras_kd.training import arguments, distribution, padding_masks, resuming
from keras_kd.training.saving import OwnVariables

# `HardLoss`: the loss of the labels alone.


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
    loss = arguments.call_compute_loss(student, x, y, y_pred, sample_weight, training)
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
    return distribution.count() * tf.cast(loss, tf.float32)


# `Learner`: trains a model from labels and leaves no trace of `compile` in it.


class Learner(OwnVariables, HardLoss, keras.Model):
    """A model around a model, which has the optimizer, the loss and the metrics.

    Args:
        model: A `keras.Model`. Its weights are trained; how it is compiled is not changed.
        name: Name of this model.
        padding: `{output: input}`: the inputs that tell what is padding in which outputs, `None`
            for all. It counts neither in the loss nor in metrics.

    Raises:
        ValueError: The model's class overrides what would never be called.
    """

    def __init__(self, model, name="learner", padding=None):
        arguments.check(model, "model", arguments.OF_LEARNER)
        # The inputs reach the model as its own `fit` would give them: nothing is cast here.
        super().__init__(name=name, autocast=False, dtype=models.dtype_policy(model))
        self.model = model
        self._padding = models.Untracked(padding or {})
        self.fit_progress = resuming.Progress(self)
        self.built = True

    def own_numbers(self):
        return {}

    @property
    def output_names(self):
        """The model's, so that `compile` takes losses and metrics by output name."""
        return self.model.output_names

    def build(self, input_shape=None):
        del input_shape  # the model builds itself

    def call(self, inputs, training=None, mask=None):
        given = {} if not models.is_masked(mask) else {"mask": mask}  # it may not take any
        outputs = self.model(models.own_inputs(self.model, inputs), training=training, **given)
        return self._with_masks(outputs, inputs)

    def _with_masks(self, outputs, inputs):
        padding = self._padding.value
        if not padding:
            return outputs
        names = models.output_names(self.model, outputs)
        named = models.named_inputs(self.model, inputs)
        return padding_masks.with_masks(outputs, names, named, padding)
