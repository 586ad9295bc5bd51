"""Training from labels alone: what the library's own models and a student's `compute_loss` add."""

from collections.abc import Iterable

import keras

from keras_kd import models
from keras_kd.training import arguments, distribution, padding_masks
from keras_kd.training.base import TrainedModel


def sums_of(losses: Iterable) -> list:
    """Regularizers as float32 scalars: they come in the types of what they penalize."""
    return [keras.ops.cast(keras.ops.sum(loss), "float32") for loss in losses]


def own_loss_of(student, x, y, y_pred, sample_weight, training):
    """What a student's own `compute_loss` gives: its loss of the labels and its regularizers."""
    loss = arguments.call_compute_loss(student, x, y, y_pred, sample_weight, training)
    if loss is None or len(loss.shape) > 0:
        shape = None if loss is None else tuple(loss.shape)
        raise ValueError(
            f"`compute_loss` of the student's class {type(student).__name__} must return a scalar. "
            f"Received: {'None' if shape is None else f'shape {shape}'}. Average over the batch."
        )
    return distribution.undivided(loss)


class SupervisedModel(TrainedModel):
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
        super().__init__(name=name, dtype=models.dtype_policy(model))
        self.model = model
        self._padding = models.Untracked(padding or {})
        self.built = True

    @property
    def output_names(self):
        """The model's, so that `compile` takes losses and metrics by output name."""
        return self.model.output_names

    def build(self, input_shape=None):
        del input_shape  # the model builds itself

    def call(self, inputs, training=None, mask=None):
        given = {} if not models.is_masked(mask) else {"mask": mask}  # it may not take any
        outputs = self.model(models.own_inputs(self.model, inputs), training=training, **given)
        return self.with_masks(outputs, inputs)

    def with_masks(self, outputs, inputs):
        """Outputs that carry the padding of the inputs as Keras masks."""
        padding = self._padding.value
        if not padding:
            return outputs
        names = models.output_names(self.model, outputs)
        named = models.named_inputs(self.model, inputs)
        return padding_masks.with_masks(outputs, names, named, padding)
