"""`ForwardPasses`: the one forward pass of teacher and of student, with what the losses tap."""

import dataclasses
import functools
from typing import Any

import keras
import tensorflow as tf

from keras_kd import by_output, models, padded_outputs
from keras_kd.objective import Outputs
from keras_kd.taps import tap
from keras_kd.taps.listening import Taps
from keras_kd.teachers import carried
from keras_kd.teachers.base import Lesson


@dataclasses.dataclass
class Listening:
    """How teacher and student are run while some layers are listened to.

    Attributes:
        teach: From a `Lesson` to the teacher's `(outputs, {layer: value})`.
        teacher_layers: The layers it gives.
        student: `Taps` of the student, or `None`.
    """

    teach: Any
    teacher_layers: list
    student: Any


class ForwardPasses:
    """Mixin of the distiller: `teach` and `study`, and what is listened to in them."""

    def _listen(self):
        losses, source = self.distillation_losses, self._source.model
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
        source = self._source.model
        teacher_layers = list(dict.fromkeys(teacher_layers))
        student_layers = [*student_layers, *source.student_layers(teacher_layers)]
        taps = Taps(self.student, student_layers) if student_layers else None
        return Listening(source.with_taps(teacher_layers), teacher_layers, taps)

    def resolve_pair(self, teacher_layer, student_layer):
        """A layer of each model, by its path; raises where there is none."""
        return (
            self._source.model.resolve(tap.check("teacher_layer", teacher_layer)),
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

    def teach(self, x, y=None, student=None):
        """The teacher's `Outputs` for a batch; no gradient flows to it.

        Args:
            x: The inputs of a batch, which may carry the teacher's outputs.
            y: Its labels, or `None`.
            student: The student's `Outputs` for it, or `None`.
        """
        return self._teach(x, y, student, self._taps.model)

    def _teach(self, x, y, student, listening):
        inputs, said = carried.split(x)
        source = self._source.model
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
            answer = listening.teach(Lesson(inputs, y, student, said, self.is_rehearsing))
        outputs, tapped = keras.tree.map_structure(_detached, answer)
        names = source.output_names
        if keras.tree.is_nested(outputs) and student is not None:
            given = by_output.given_names(self.student)
            outputs = by_output.aligned(outputs, names, student.outputs, given)
            if by_output.is_aligned(outputs, student.outputs):
                names = student.names
        return Outputs(outputs, tapped, names, role="teacher")

    def carrying(self, x, y=None):
        """The inputs of a batch with what the teacher says of it."""
        teacher = self.teach(x, y)
        taps = {str(layer): value for layer, value in teacher.taps.items()}
        return carried.join(x, teacher.outputs, taps)

    def study(self, x, training):
        """The student's `Outputs` for a batch."""
        return self._study(x, training, self._taps.model)

    @property
    def padding_inputs(self):
        """The inputs that tell what is padding, `{output: input}`; an output `None` means all.

        Where `mask_input` was not given they are what the losses on outputs name: hard and soft
        losses then average over the same positions. Empty: Keras' masks tell.
        """
        if self.mask_input is not None:
            return self.mask_input if isinstance(self.mask_input, dict) else {None: self.mask_input}
        return padded_outputs.named_by(self.distillation_losses)

    def _study(self, x, training, listening):
        x, _ = carried.split(x)
        taps = listening.student
        forward = functools.partial(super().__call__, x, training=training)
        outputs, tapped = taps.run(forward) if taps else (forward(), {})
        inputs, names = (
            models.named_inputs(self.student, x),
            models.output_names(self.student, outputs),
        )
        padding = self.padding_inputs
        if padding:
            outputs = padded_outputs.with_masks(outputs, names, inputs, padding)
        of_layers = padding.get(None)
        mask = None if of_layers is None else padded_outputs.mask_of(inputs, of_layers)
        return Outputs(outputs, tapped, names, inputs, padding=mask)


def _detached(value):
    return value.detached() if hasattr(value, "detached") else tf.stop_gradient(value)
