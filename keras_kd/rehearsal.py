"""Runs the losses once on symbolic tensors, so that what does not fit is told before training."""

import keras

from keras_kd import models, objective
from keras_kd.ops import gradients


class TeacherFailed(Exception):  # noqa: N818 what failed, not how
    """The teacher cannot take a batch that was made up from the student's inputs.

    The data may hold more than these: its first batch tells.
    """


class Rehearsal(keras.layers.Layer):
    """A throw-away layer around teacher, student and losses.

    Called on symbolic inputs, Keras traces it without data: losses with weights (projectors) are
    built, in the scope of the strategy, and shapes that do not fit raise. No state moves.

    Args:
        distiller: A `Distiller`.
        is_made_up: Whether the inputs are made up from what the models say of them.
        may_read_more: Whether the teacher may read inputs that these are not: if it fails on them
            `TeacherFailed` is raised.

    Attributes:
        waiting: Names of losses of a user's own that failed with labels that were made up, class
            indices: those of the data may have another shape.
    """

    def __init__(self, distiller, is_made_up, may_read_more=False):
        super().__init__(autocast=False)
        self._distiller = models.Untracked(distiller)
        self._is_made_up, self._may_read_more = is_made_up, may_read_more
        self.error = None
        self.waiting = []

    def run(self, inputs, labels=None):
        """Calls it; what does not fit is told in its own words, without Keras' around them.

        Args:
            inputs: Of a batch, or `keras.KerasTensor`s like them.
            labels: Likewise, or `None`: they are made up.
        """
        symbolic = keras.tree.map_structure(models.symbolic, (inputs, labels))
        try:
            with gradients.not_needed():
                self(*symbolic)
        except Exception as error:
            if self.error is None:
                raise
            raise self.error from error.__cause__

    def call(self, inputs, labels=None):
        try:
            return self._values(inputs, labels)
        except Exception as error:
            self.error = error
            raise

    def _values(self, inputs, labels):
        distiller = self._distiller.model
        student = distiller.study(inputs, training=False)
        teacher = self._taught(inputs, labels, student)
        losses = distiller.distillation_losses
        return keras.ops.concatenate(
            [self._means(loss, teacher, student, labels) for loss in losses]
        )

    def _taught(self, inputs, labels, student):
        distiller = self._distiller.model
        labels = any_labels(student.outputs) if labels is None else labels
        try:
            teacher = distiller.teach(inputs, labels, student)
            distiller.hear(teacher)
            return teacher
        except Exception as error:
            if self._may_read_more:
                raise TeacherFailed from error
            if self._is_made_up and isinstance(error, ValueError):
                raise ValueError(
                    f"The teacher fails on inputs like the student's: {error}\nIf it expects "
                    "another size, range or structure, give the distiller a `teacher_preprocess`, "
                    "a function from the student's inputs to the teacher's."
                ) from error
            raise

    def _means(self, loss, teacher, student, labels):
        if labels is not None:
            return means(loss, teacher, student, labels)
        try:
            return means(loss, teacher, student)
        except Exception:
            reading = loss.reading
            if reading.is_exact or reading.labels is None or reading.has_numbers:
                raise
            self.waiting.append(loss.name)
            return keras.ops.zeros((1,))


def means(loss, teacher, student, labels=None):
    """The means of a loss; with any labels, where none are given."""
    labels = made_up_labels(loss.reading, student.outputs) if labels is None else labels
    return objective.means_of(loss, teacher, student, objective.Batch(labels))[0]


def made_up_labels(reading, outputs):
    """Labels for each output: number 0, or class 0."""
    if reading.has_numbers:
        return keras.tree.map_structure(keras.ops.zeros_like, outputs)
    return any_labels(outputs)


def any_labels(outputs):
    """Labels for each output: class 0."""
    return keras.tree.map_structure(_first_class, outputs)


def _first_class(logits):
    return keras.ops.zeros(keras.ops.shape(logits)[:-1], "int32")
