"""`LearningWithoutForgetting`: keep the old classes while learning new ones (LwF)."""

from typing import Any

import keras
import numpy as np

from keras_kd import ops
from keras_kd.losses import projector as projectors
from keras_kd.losses import shapes


@keras.saving.register_keras_serializable(package="keras_kd")
class LearningWithoutForgetting(shapes.LogitsLoss):
    """Soft targets of the classes that teacher and student share; the student may have more (LwF).

    `l = T^2 KL(softmax(z^t_A / T) || softmax(z^s_B / T))` with the logits of the teacher's classes
    `A` and of the student's classes `B` that correspond to them, in this order, by the fused
    kernel. The student's other logits get no gradient from it.

    For continual learning: a student that begins as a copy of the old model, with outputs for the
    new classes added, learns them from data that has new classes only, and the old model keeps it
    from forgetting the old ones. The loss compares the old classes among themselves. Where the hard
    loss is a softmax over all classes, it pushes the logits of the old ones down together, which
    this loss cannot see: on digits (0 to 4 old, 5 to 9 new) the student distinguished every old
    digit from the other old ones, and classified each of them as a new one. Compare the logits of
    the old classes alone (as the paper, which knows the task), or keep some samples of them.

    Args:
        temperature: `T`, a positive number. Live, as `weight`. 2 in the paper.
        student_classes: Which of the student's classes: a list of indices, or of booleans, one for
            each class. Default: the first, as many as the teacher's.
        teacher_classes: Which of the teacher's, in the same order. Default: all.
        **kwargs: `from_logits` and `teacher_from_logits`, see `SoftTargets`; `weight`, `output`,
            `name` and the others of `DistillationLoss`.

    Call arguments: `teacher_outputs`, logits `[batch, ..., old classes]`, and `student_outputs`,
    logits `[batch, ..., classes]`. Returns `[batch, ...]`, float32.

    Raises:
        ValueError: An argument is out of its range, a class is named twice, or the lists have
            different lengths; when the distiller is built: a model ends in softmax, has no such
            class, or the shapes differ before the classes.

    Example:

    ```python
    import keras
    import keras_kd as kd

    old = keras.Sequential([keras.Input((8,)), keras.layers.Dense(5)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(7)])
    kernel, bias = student.get_weights()
    kernel[:, :5], bias[:5] = old.get_weights()
    student.set_weights([kernel, bias])
    loss = kd.losses.LearningWithoutForgetting(temperature=2.0)
    distiller = kd.Distiller(old, student, loss, alpha=1.0, beta=1.0)
    ```

    Reference: Li and Hoiem, "Learning without Forgetting", https://arxiv.org/abs/1606.09282
    """

    has_temperature = True

    def __init__(
        self,
        temperature: float = 2.0,
        student_classes: Any = None,
        teacher_classes: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(temperature=temperature, **kwargs)
        self.student_classes = _checked("student_classes", student_classes)
        self.teacher_classes = _checked("teacher_classes", teacher_classes)
        if student_classes is not None and teacher_classes is not None:
            self._check_counts(*map(_indices, (self.student_classes, self.teacher_classes)))

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        teacher, student = tuple(teacher_outputs_shape), tuple(student_outputs_shape)
        self._check_shapes(teacher, student)
        old = self._chosen("teacher", self.teacher_classes, teacher[-1], teacher[-1])
        of_student = self._chosen("student", self.student_classes, student[-1], len(old))
        self._check_counts(of_student, old)
        self._pairs = old, of_student
        super().build((teacher, student))

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        teacher_outputs, student_outputs = self.logits(teacher_outputs, student_outputs)
        of_teacher, of_student = self._pairs
        return ops.soft_target_loss(
            _pick(student_outputs, of_student),
            _pick(teacher_outputs, of_teacher),
            self.temperature_variable,
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in ("student_classes", "teacher_classes"):
            classes = getattr(self, name)
            config[name] = None if classes is None else list(classes)
        return config

    def _check_counts(self, student, teacher):
        if len(student) != len(teacher):
            raise ValueError(
                f"{type(self).__name__} needs one class of the student for each class of the "
                f"teacher, in the same order. Received: {len(student)} of the student "
                f"(student_classes={self.student_classes}) and {len(teacher)} of the teacher "
                f"(teacher_classes={self.teacher_classes})."
            )

    def _check_shapes(self, teacher, student):
        known = len(teacher) >= 2 and len(student) >= 2 and None not in (teacher[-1], student[-1])
        if not known or not projectors.shapes_agree(teacher[1:-1], student[1:-1]):
            raise ValueError(
                f"Distillation loss {self.name!r} expects logits [batch, ..., classes], of shapes "
                "that may differ in the number of classes only, which must be known. Received: "
                f"teacher {teacher}, student {student}."
            )

    def _chosen(self, role, classes, count, default):
        """Indices of a model's chosen classes, of `count`; by default the first `default`."""
        indices = np.arange(default) if classes is None else _indices(classes)
        if classes is None and default > count:
            raise ValueError(
                f"Distillation loss {self.name!r}: the student has {count} classes, fewer than "
                f"the {default} of the teacher that it must keep. Give the student all old "
                "classes, or choose some with `teacher_classes` and `student_classes`."
            )
        is_mask = classes is not None and isinstance(classes[0], bool)
        if indices.max() >= count or (is_mask and len(classes) != count):
            wrong = f"has {len(classes)} booleans" if is_mask else f"names class {indices.max()}"
            raise ValueError(
                f"Distillation loss {self.name!r}: `{role}_classes` {wrong}, but the {role} has "
                f"{count} classes (indices 0 to {count - 1})."
            )
        return indices


def _checked(name, classes):
    """A list of Python integers, or of booleans; `None` as it is."""
    if classes is None:
        return None
    array = np.asarray(classes)
    fits = array.ndim == 1 and (array.dtype == bool or np.issubdtype(array.dtype, np.integer))
    chosen = _indices(array) if fits else np.zeros(0, int)
    # Of one class the softmax is 1 whatever the logit is: it would teach nothing.
    if len(chosen) < 2 or chosen.min() < 0 or len(set(chosen.tolist())) < len(chosen):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a list of at least two different class "
            "indices, each at least 0, or of one boolean for each class, at least two of them "
            f"True. Received: {name}={classes!r}"
        )
    return array.tolist()


def _indices(classes):
    array = np.asarray(classes)
    return np.flatnonzero(array) if array.dtype == bool else array


def _pick(x, indices):
    """The logits of the chosen classes."""
    first, count = int(indices[0]), len(indices)
    if np.array_equal(indices, np.arange(first, first + count)):
        # The gradient of a slice is padding; that of a gather is a scatter.
        return x[..., first : first + count]
    return keras.ops.take(x, indices, axis=-1)
