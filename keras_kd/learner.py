"""`Learner`: trains a model from labels and leaves no trace of `compile` in it."""

import keras

from keras_kd import hooks, models, padded_outputs, resuming
from keras_kd.hard_loss import HardLoss
from keras_kd.persistence import OwnVariables


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
        hooks.check(model, "model", hooks.OF_LEARNER)
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
        padding = self._padding.model
        if not padding:
            return outputs
        names = models.output_names(self.model, outputs)
        named = models.named_inputs(self.model, inputs)
        return padded_outputs.with_masks(outputs, names, named, padding)
