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
        teacher = distiller.teach(inputs, any_labels(student.outputs), student)
        losses = distiller.distillation_losses
        return keras.ops.concatenate([means(loss, teacher, student) for loss in losses])


def means(loss, teacher, student):
    """The means of a loss with any labels."""
    batch = objective.Batch(_labels(loss, student.outputs))
    try:
        return objective.means_of(loss, teacher, student, batch)[0]
    except Exception as error:
        is_own = type(loss).__module__.partition(".")[0] == "keras_kd"
        if is_own or not loss.takes("labels") or loss.labels_are_numbers:
            raise
        raise ValueError(
            f"Distillation loss {loss.name!r} failed with labels that are class indices: {error} "
            "If its labels have the shape of the outputs, give its class the attribute "
            "`labels_are_numbers = True`."
        ) from error


def _labels(loss, outputs):
    """Labels for each output: number 0, or class 0."""
    if loss.labels_are_numbers:
        return keras.tree.map_structure(keras.ops.zeros_like, outputs)
    return any_labels(outputs)


def any_labels(outputs):
    """Labels for each output: class 0."""
    return keras.tree.map_structure(_first_class, outputs)


def _first_class(logits):
    return keras.ops.zeros(keras.ops.shape(logits)[:-1], "int32")
