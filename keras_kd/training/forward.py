"""`ForwardPasses`: the one forward pass of teacher and of student, with what the losses tap."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

from keras_kd import models
from keras_kd.losses import TokenKD
from keras_kd.models import matching
from keras_kd.taps import recorder, tap
from keras_kd.taps.heads import DeferredHead
from keras_kd.taps.recorder import Taps
from keras_kd.teachers import protocol
from keras_kd.teachers.keras_model import KerasTeacher
from keras_kd.teachers.protocol import TeacherInputs
from keras_kd.training import padding_masks


@dataclasses.dataclass
class Outputs:
    """What one forward pass of a model gave.

    Attributes:
        outputs: A tensor, or a structure of them.
        taps: What the tapped layers gave, `{layer: value}`.
        names: What outputs in a list are called, or `None`.
        inputs: The batch's inputs; a dict by their names, where they have any.
        role: `"teacher"` or `"student"`.
        padding: The mask of the distiller's `mask_input`, `[batch, time]`, or `None`.
    """

    outputs: Any
    taps: dict = dataclasses.field(default_factory=dict)
    names: Any = None
    inputs: Any = None
    role: str = "student"
    padding: Any = None

    def read(self, reading):
        """The tensors that a loss reads, as a list (usually of one)."""
        layer = reading.layer(self.role)
        if isinstance(layer, tuple):
            return [[self.taps[each] for each in layer]]
        if layer is not None:
            return [self.taps[layer]]
        if reading.is_structure:
            return [self.outputs]
        if self.role == "teacher" and reading.teacher_output is None:
            flat = keras.tree.flatten(self.outputs)
            # Whatever the student calls it: one output can teach one head only.
            if len(flat) == 1:
                return flat
        return models.flat_outputs(self.outputs, reading.key(self.role), self.names, self.role)

    def mask(self, reading, values):
        """Which positions of what is read count, `[batch, time]`; `None`: all.

        The loss's own `mask_input` tells, else the Keras mask of the tensor, else the distiller's
        `mask_input`, where the tensor has its positions. That of attention says which pairs may
        attend, and not which queries are padding: it joins what the inputs tell.
        """
        parts = keras.tree.flatten(values) if reading.is_sequence else [values]
        masks = [None if keras.tree.is_nested(each) else recorder.mask_of(each) for each in parts]
        carried = next((mask for mask in masks if mask is not None), None)
        values = parts[0]
        given = self._mask_of_input(reading, values)
        if reading.is_attention and given is not None:
            return recorder.attention_mask(carried, given, values.shape)
        return given if reading.mask_input is not None or carried is None else carried

    def _mask_of_input(self, reading, values):
        """Which positions of what is read count, as an input tells."""
        if reading.mask_input is not None:
            return padding_masks.mask_of(self.inputs, reading.mask_input)
        if self.padding is None or keras.tree.is_nested(values):
            return None
        return self.padding if padding_masks.has_positions(reading, values, self.padding) else None


@dataclasses.dataclass(frozen=True)
class Heads:
    """The heads that forward passes leave out, where a `TokenKD` takes hidden states.

    Attributes:
        student: `DeferredHead` of the student, or `None`.
        teacher: The same of a teacher that is a Keras model; others give logits.
    """

    student: DeferredHead | None = None
    teacher: DeferredHead | None = None

    @classmethod
    def of(cls, losses: list, student: keras.Model, source: protocol.Teacher) -> "Heads":
        """The heads that the losses leave out.

        Raises:
            ValueError: A head is not found, or cannot be left out.
        """
        chosen = [loss for loss in losses if isinstance(loss, TokenKD)]
        if not chosen:
            return cls()
        for other in losses:
            if other is not chosen[0] and other.student_layer is None:
                raise ValueError(
                    f"Distillation loss {other.name!r} reads the student's outputs, which a "
                    "TokenKD leaves out. Take one TokenKD beside losses on inner layers, or "
                    "SoftTargets."
                )
        loss = chosen[0]
        of_student = DeferredHead(student, "student", loss.student_head)
        if isinstance(source, KerasTeacher):
            return cls(of_student, DeferredHead(source.model, "teacher", loss.teacher_head))
        if loss.teacher_head is not None:
            raise ValueError(
                f"`teacher_head` names a layer of a Keras model; a {type(source).__name__} gives "
                f"logits. Leave it out. Received: teacher_head={loss.teacher_head!r}"
            )
        return cls(of_student)

    def student_forward(self, forward: Callable[[], Any]) -> Callable[[], Any]:
        """The student's forward pass, up to its hidden states where its head is left out."""
        return forward if self.student is None else functools.partial(self.student.run, forward)

    def teach(self, source: protocol.Teacher, layers: list) -> protocol.Forward:
        """The teacher's forward pass with taps, up to its hidden states if its head is left out."""
        head = self.teacher
        if head is None:
            return source.with_taps(layers)
        return protocol.record_layers(
            source.model, layers, lambda batch: head.run(lambda: source.predict_batch(batch))
        )


@dataclasses.dataclass(frozen=True)
class Recorded:
    """How teacher and student run while some layers are recorded.

    Attributes:
        teach: From `TeacherInputs` to the teacher's `(outputs, {layer: value})`.
        teacher_layers: The layers it gives.
        student: `Taps` of the student, or `None`.
    """

    teach: Callable[[TeacherInputs], tuple[Any, dict]]
    teacher_layers: list
    student: Any


class ForwardPasses:
    """Runs teacher and student once each on a batch, and keeps what the losses read.

    Args:
        student: The `keras.Model` that is trained.
        source: The `Teacher`.
        call: The distiller's `__call__`, which runs the student with Keras' masks and losses.
        teacher_preprocess: From the inputs to those of the teacher, or `None`.
        mask_input: See `Distiller`.

    Attributes:
        is_symbolic: Whether shapes alone are traced at this moment.
    """

    def __init__(self, student, source, call, teacher_preprocess, mask_input):
        self.student, self.source = student, source
        self._heads = Heads()
        self.teacher_preprocess, self.mask_input = teacher_preprocess, mask_input
        self.is_symbolic = False
        self._call = call
        self._losses: list = []
        self._recorded = Recorded(source.with_taps([]), [], None)

    def record(self, losses: list) -> None:
        """Resolves the layers that losses read, and records them from the next pass on."""
        self._losses = list(losses)
        self._heads = Heads.of(losses, self.student, self.source)
        of_teacher = [each for each in losses if each.teacher_layer is not None]
        of_student = [each for each in losses if each.student_layer is not None]
        for loss in of_teacher:
            loss.teacher_layer = tap.resolve_each(self.source.resolve, loss.teacher_layer)
        for loss in of_student:
            loss.student_layer = tap.resolve_all(self.student, loss.student_layer)
        self._recorded = self._recording(
            tap.each(loss.teacher_layer for loss in of_teacher),
            tap.each(loss.student_layer for loss in of_student),
        )

    def replace_teacher(self, source) -> None:
        """Another `Teacher` teaches from the next pass on."""
        self.source = source
        self.record(self._losses)

    def _recording(self, teacher_layers: Iterable, student_layers: Iterable) -> Recorded:
        teacher_layers = list(dict.fromkeys(teacher_layers))
        student_layers = [*student_layers, *self.source.student_layers(teacher_layers)]
        taps = Taps(self.student, student_layers) if student_layers else None
        teach = self._heads.teach(self.source, teacher_layers)
        return Recorded(teach, teacher_layers, taps)

    def resolve_pair(self, teacher_layer, student_layer) -> tuple:
        """A layer of each model, by its path.

        Raises:
            ValueError: There is no such layer.
        """
        return (
            self.source.resolve(tap.check_layer("teacher_layer", teacher_layer)),
            tap.resolve(self.student, tap.check_layer("student_layer", student_layer))[0],
        )

    def comparison(self, pairs: list) -> Callable[[Any], tuple[Outputs, Outputs]]:
        """A function from inputs to both models' `Outputs` in inference, with taps of `pairs`.

        Nothing of the models changes by it.
        """
        recorded = self._recording(*([pair[which] for pair in pairs] for which in (0, 1)))

        def compare(inputs):
            with models.without_changes(inputs):
                student = self._run_student(inputs, False, recorded)
                return self._run_teacher(inputs, None, student, recorded), student

        return compare

    @contextlib.contextmanager
    def symbolic(self):
        """While it is open the passes trace shapes, without data."""
        self.is_symbolic = True
        try:
            yield
        finally:
            self.is_symbolic = False

    def student_forward(self, x, training: bool) -> Outputs:
        """The student's `Outputs` for a batch."""
        return self._run_student(x, training, self._recorded)

    def teacher_forward(self, x, y=None, student: Outputs | None = None) -> Outputs:
        """The teacher's `Outputs` for a batch; no gradient flows to it.

        Args:
            x: The inputs of a batch, which may carry the teacher's outputs.
            y: Its labels, or `None`.
            student: The student's `Outputs` for it, or `None`.
        """
        return self._run_teacher(x, y, student, self._recorded)

    def _run_student(self, x, training, recorded):
        x, _ = protocol.detach_outputs(x)
        forward = self._heads.student_forward(functools.partial(self._call, x, training=training))
        outputs, tapped = recorded.student.run(forward) if recorded.student else (forward(), {})
        inputs = models.named_inputs(self.student, x)
        names = models.output_names(self.student, outputs)
        padding = self.padding_inputs
        if padding:
            outputs = padding_masks.with_masks(outputs, names, inputs, padding)
        of_layers = padding.get(None)
        mask = None if of_layers is None else padding_masks.mask_of(inputs, of_layers)
        return Outputs(outputs, tapped, names, inputs, padding=mask)

    def _run_teacher(self, x, y, student, recorded):
        inputs, attached = protocol.detach_outputs(x)
        source = self.source
        if attached is not None and not (source.runs_on_host or source.needs_attached):
            raise ValueError(
                "The batch carries the outputs of a cached teacher, but this distiller's teacher "
                "runs itself. Use Distiller(keras_kd.teachers.Cached(path), student), or the "
                "dataset without load_cache."
            )
        if attached is not None and source.runs_on_host:
            layers = recorded.teacher_layers
            found = attached.outputs, {layer: attached.taps[str(layer)] for layer in layers}
        else:
            if self.teacher_preprocess is not None:
                inputs = self.teacher_preprocess(inputs)
            found = recorded.teach(TeacherInputs(inputs, y, student, attached, self.is_symbolic))
        outputs, tapped = keras.tree.map_structure(_detached, found)
        names = source.output_names
        if keras.tree.is_nested(outputs) and student is not None:
            given = matching.given_names(self.student)
            outputs = matching.align_outputs(outputs, names, student.outputs, given)
            if matching.is_aligned(outputs, student.outputs):
                names = student.names
        return Outputs(outputs, tapped, names, role="teacher")

    def with_teacher_outputs(self, x, y=None):
        """The inputs of a batch with the teacher's outputs and taps attached."""
        teacher = self.teacher_forward(x, y)
        taps = {str(layer): value for layer, value in teacher.taps.items()}
        return protocol.attach_outputs(x, teacher.outputs, taps)

    @property
    def padding_inputs(self) -> dict:
        """The inputs that tell what is padding, `{output: input}`; an output `None` means all.

        Where `mask_input` was not given they are what the losses on outputs name: hard and soft
        losses then average over the same positions. Empty: Keras' masks tell.
        """
        if self.mask_input is not None:
            return self.mask_input if isinstance(self.mask_input, dict) else {None: self.mask_input}
        return padding_masks.named_by(self._losses)


def _detached(value):
    if hasattr(value, "detached"):
        return value.detached()
    return recorder.with_mask(tf.stop_gradient(value), recorder.mask_of(value))
