"""Runs the losses once on symbolic tensors, so that what does not fit is told before training."""

import keras

from keras_kd import models, objective


class Rehearsal(keras.layers.Layer):
    """A throw-away layer around teacher, student and losses.

    Called on symbolic inputs, Keras traces it without data: losses with weights (projectors) are
    built, in the scope of the strategy, and shapes that do not fit raise.

    Args:
        distiller: A `Distiller`.
    """

    def __init__(self, distiller):
        super().__init__(autocast=False)
        self._distiller = models.Untracked(distiller)
        self.error = None

    def run(self, inputs):
        """Calls it; what does not fit is told in its own words, without Keras' around them."""
        try:
            self(inputs)
        except Exception as error:
            if self.error is None:
                raise
            raise self.error from error.__cause__

    def call(self, inputs):
        try:
            return self._values(inputs)
        except Exception as error:
            self.error = error
            raise

    def _values(self, inputs):
        distiller = self._distiller.model
        student = distiller.study(inputs, training=False)
        # Of any labels: class 0, or the number 0.
        classes = any_labels(student.outputs)
        numbers = keras.tree.map_structure(keras.ops.zeros_like, student.outputs)
        teacher = distiller.teach(inputs, classes, student)
        means = [
            objective.means_of(
                loss,
                teacher,
                student,
                objective.Batch(numbers if loss.labels_are_numbers else classes),
            )[0]
            for loss in distiller.distillation_losses
        ]
        return keras.ops.concatenate(means)


def any_labels(outputs):
    """Labels for each output: class 0."""
    return keras.tree.map_structure(_first_class, outputs)


def _first_class(logits):
    return keras.ops.zeros(keras.ops.shape(logits)[:-1], "int32")
