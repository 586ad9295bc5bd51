"""Shape checks: losses run once on symbolic tensors, so that what does not fit raises early."""

from typing import Any

import keras

from keras_kd import models
from keras_kd.ops import dispatch
from keras_kd.training import objective


class ShapeChecks:
    """When a distiller's losses are run on symbolic tensors: as early as shapes are known.

    Args:
        distiller: The `Distiller`.

    Attributes:
        is_done: Whether all losses have run; a batch of data need not be looked at.
        has_unbuilt_loss: Whether a loss may make weights in the next check.
    """

    def __init__(self, distiller: Any):
        self._distiller = distiller
        self.is_done = self.has_unbuilt_loss = False

    def reset(self, has_unbuilt_loss: bool = False) -> None:
        """Losses or teacher have changed."""
        self.is_done, self.has_unbuilt_loss = False, has_unbuilt_loss

    @property
    def may_read_more(self) -> bool:
        """Whether the teacher may read inputs of the data that nothing names before it comes."""
        distiller = self._distiller
        has_preprocess = distiller.teacher_preprocess is not None
        return has_preprocess or distiller.source.input_specs() is None

    def on_specs(self) -> None:
        """Checks what the models tell of their inputs; the first batch decides the rest."""
        distiller, may_read_more = self._distiller, self.may_read_more
        inputs = models.input_specs(distiller.student)
        of_teacher = None if may_read_more else distiller.source.input_specs()
        if of_teacher is not None and models.reads_more(of_teacher, inputs):
            # The data is a dict that has the inputs of both.
            inputs = {**of_teacher, **models.named_inputs(distiller.student, inputs)}
        self._try(inputs, is_made_up=True, may_read_more=may_read_more)

    def on_call(self, inputs: Any) -> None:
        """Builds what a call outside of a step finds unbuilt, if its inputs do for the teacher."""
        if not self.is_done and not self._distiller.forward_passes.is_symbolic:
            self._try(inputs, may_read_more=True)

    def on_batch(self, x: Any, y: Any) -> None:
        """Checks the first batch of the data, where the models did not tell enough before."""
        if not self.is_done:
            self._run(x, y)

    def _try(self, inputs, **options):
        try:
            self._run(inputs, **options)
        except TeacherFailed:
            self.has_unbuilt_loss = True

    def _run(self, inputs, labels=None, **options):
        check = ShapeCheck(self._distiller, **{"is_made_up": False, **options})
        with self._distiller.forward_passes.symbolic():
            check.run(inputs, labels)
        self.is_done, self.has_unbuilt_loss = not check.waiting, False


class TeacherFailed(Exception):  # noqa: N818 what failed, not how
    """The teacher cannot take a batch that was made up from the student's inputs.

    The data may hold more than these: its first batch tells.
    """


class ShapeCheck(keras.layers.Layer):
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
        """Calls it; what does not fit raises its own error, without Keras' words around it.

        Args:
            inputs: Of a batch, or `keras.KerasTensor`s like them.
            labels: Of the batch, or `None`: they are made up.
        """
        symbolic = keras.tree.map_structure(models.symbolic, (inputs, labels))
        try:
            with dispatch.without_gradients():
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
        distiller = self._distiller.value
        student = distiller.student_forward(inputs, training=False)
        teacher = self._taught(inputs, labels, student)
        losses = distiller.distillation_losses
        return keras.ops.concatenate(
            [self._means(loss, teacher, student, labels) for loss in losses]
        )

    def _taught(self, inputs, labels, student):
        distiller = self._distiller.value
        labels = any_labels(student.outputs) if labels is None else labels
        try:
            teacher = distiller.teacher_forward(inputs, labels, student)
            distiller.keep_teacher_shapes(teacher)
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
