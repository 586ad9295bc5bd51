"""`ForwardPasses`: the one forward pass of teacher and of student, with what the losses tap."""

import dataclasses
import functools
from typing import Any

import keras
import tensorflow as tf

from keras_kd import models
from keras_kd.models import matching
from keras_kd.ops import dispatch
from keras_kd.taps import tap
from keras_kd.taps.recorder import Taps
from keras_kd.teachers import protocol
from keras_kd.teachers.protocol import TeacherInputs
from keras_kd.training import objective, padding_masks
from keras_kd.training.objective import Outputs


@dataclasses.dataclass
class Listening:
    """How teacher and student are run while some layers are listened to.

    Attributes:
        teach: From a `TeacherInputs` to the teacher's `(outputs, {layer: value})`.
        teacher_layers: The layers it gives.
        student: `Taps` of the student, or `None`.
    """

    teach: Any
    teacher_layers: list
    student: Any


class ForwardPasses:
    """Mixin of the distiller: `teacher_forward` and `student_forward`, with taps."""

    def _listen(self):
        losses, source = self.distillation_losses, self._source.value
        of_teacher = [x for x in losses if x.teacher_layer is not None]
        of_student = [x for x in losses if x.student_layer is not None]
        for loss in of_teacher:
            loss.teacher_layer = tap.resolve_each(source.resolve, loss.teacher_layer)
        for loss in of_student:
            loss.student_layer = tap.resolve_all(self.student, loss.student_layer)
        teacher_layers = tap.each(loss.teacher_layer for loss in of_teacher)
        student_layers = tap.each(loss.student_layer for loss in of_student)
        self._taps = models.Untracked(self._listening(teacher_layers, student_layers))

    def _listening(self, teacher_layers, student_layers):
        source = self._source.value
        teacher_layers = list(dict.fromkeys(teacher_layers))
        student_layers = [*student_layers, *source.student_layers(teacher_layers)]
        taps = Taps(self.student, student_layers) if student_layers else None
        return Listening(source.with_taps(teacher_layers), teacher_layers, taps)

    def resolve_pair(self, teacher_layer, student_layer):
        """A layer of each model, by its path; raises where there is none."""
        return (
            self._source.value.resolve(tap.check("teacher_layer", teacher_layer)),
            tap.resolve(self.student, tap.check("student_layer", student_layer))[0],
        )

    def comparison(self, pairs):
        """A function from inputs to both models' `Outputs` in inference, with taps of `pairs`.

        Nothing of the models changes by it.
        """
        listening = self._listening(*([pair[which] for pair in pairs] for which in (0, 1)))

        def compare(inputs):
            with models.looking(inputs):
                student = self._study(inputs, False, listening)
                return self._teach(inputs, None, student, listening), student

        return compare

    def teacher_forward(self, x, y=None, student=None):
        """The teacher's `Outputs` for a batch; no gradient flows to it.

        Args:
            x: The inputs of a batch, which may carry the teacher's outputs.
            y: Its labels, or `None`.
            student: The student's `Outputs` for it, or `None`.
        """
        return self._teach(x, y, student, self._taps.value)

    def _teach(self, x, y, student, listening):
        inputs, said = protocol.split(x)
        source = self._source.value
        if said is not None and not (source.runs_on_host or source.needs_carried):
            raise ValueError(
                "The batch carries the outputs of a cached teacher, but this distiller's teacher "
                "runs itself. Use Distiller(keras_kd.teachers.Cached(path), student), or the "
                "dataset without load_cache."
            )
        if said is not None and source.runs_on_host:
            layers = listening.teacher_layers
            answer = said.outputs, {layer: said.taps[str(layer)] for layer in layers}
        else:
            if self.teacher_preprocess is not None:
                inputs = self.teacher_preprocess(inputs)
            answer = listening.teach(TeacherInputs(inputs, y, student, said, self.is_symbolic))
        outputs, tapped = keras.tree.map_structure(_detached, answer)
        names = source.output_names
        if keras.tree.is_nested(outputs) and student is not None:
            given = matching.given_names(self.student)
            outputs = matching.aligned(outputs, names, student.outputs, given)
            if matching.is_aligned(outputs, student.outputs):
                names = student.names
        return Outputs(outputs, tapped, names, role="teacher")

    def carrying(self, x, y=None):
        """The inputs of a batch with what the teacher says of it."""
        teacher = self.teacher_forward(x, y)
        taps = {str(layer): value for layer, value in teacher.taps.items()}
        return protocol.join(x, teacher.outputs, taps)

    def student_forward(self, x, training):
        """The student's `Outputs` for a batch."""
        return self._study(x, training, self._taps.value)

    @property
    def padding_inputs(self):
        """The inputs that tell what is padding, `{output: input}`; an output `None` means all.

        Where `mask_input` was not given they are what the losses on outputs name: hard and soft
        losses then average over the same positions. Empty: Keras' masks tell.
        """
        if self.mask_input is not None:
            return self.mask_input if isinstance(self.mask_input, dict) else {None: self.mask_input}
        return padding_masks.named_by(self.distillation_losses)

    def _study(self, x, training, listening):
        x, _ = protocol.split(x)
        taps = listening.student
        forward = functools.partial(super().__call__, x, training=training)
        outputs, tapped = taps.run(forward) if taps else (forward(), {})
        inputs, names = (
            models.named_inputs(self.student, x),
            models.output_names(self.student, outputs),
        )
        padding = self.padding_inputs
        if padding:
            outputs = padding_masks.with_masks(outputs, names, inputs, padding)
        of_layers = padding.get(None)
        mask = None if of_layers is None else padding_masks.mask_of(inputs, of_layers)
        return Outputs(outputs, tapped, names, inputs, padding=mask)


def _detached(value):
    return value.detached() if hasattr(value, "detached") else tf.stop_gradient(value)


# Runs the losses once on symbolic tensors, so that what does not fit is told before training.


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
        """Calls it; what does not fit is told in its own words, without Keras' around them.

        Args:
            inputs: Of a batch, or `keras.KerasTensor`s like them.
            labels: Likewise, or `None`: they are made up.
        """
        symbolic = keras.tree.map_structure(models.symbolic, (inputs, labels))
        try:
            with dispatch.not_needed():
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
