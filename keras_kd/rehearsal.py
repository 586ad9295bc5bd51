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

    def call(self, inputs):
        distiller = self._distiller.model
        student = distiller.study(inputs, training=False)
        labels = any_labels(student.outputs)
        teacher = distiller.teach(inputs, labels, student)
        losses = distiller.distillation_losses
        batch = objective.Batch(labels)
        values = [objective.mean_of(loss, teacher, student, batch) for loss in losses]
        return keras.ops.stack(values)


def any_labels(outputs):
    """Labels for each output: class 0."""
    return keras.tree.map_structure(_first_class, outputs)


def _first_class(logits):
    return keras.ops.zeros(keras.ops.shape(logits)[:-1], "int32")
