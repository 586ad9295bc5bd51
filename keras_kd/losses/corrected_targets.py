"""`CorrectedTargets`: soft targets of a teacher that is put right by the label (MFT)."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from keras_kd import ops
from keras_kd._utils import validation
from keras_kd._utils.validation import invalid
from keras_kd.losses import base, shapes
from keras_kd.ops.arguments import temperature_squared

_WHERE = ("wrong", "all")


@keras.saving.register_keras_serializable(package="keras_kd")
class CorrectedTargets(shapes.LogitsLoss):
    """Soft targets, corrected where the teacher contradicts the label (minifinetuning).

    `l = T^2 KL(q || softmax(z^s / T))` with `q = (1 - m) p + m e_y`: the teacher's `p =
    softmax(z^t / T)` with so much of the label `y` mixed in as it needs. Where another class than
    the label is the most probable, of probability `p_max`, then `m = (p_max - p_y + margin) / (1 +
    p_max - p_y)`, by which the label becomes the most probable, `margin` above that class. All
    other classes keep their proportions: what the teacher knows of them stays. `"wrong"` leaves
    `p` as it is elsewhere. `"all"` also raises a label that is the most probable, by `margin`, to
    at most 1. The divergence is that of the fused kernel.

    The paper trains a model on little data of a new domain, with its own former self as the
    teacher: it learns the new domain's words, and forgets less than by fine-tuning.

    Args:
        margin: By how much the label is above the class that the teacher prefers, from 0 to 1. The
            larger it is, the more the loss is that of the labels.
        temperature: `T`, a positive number. Live, as `weight`.
        where: `"wrong"` or `"all"`.
        ignore_class: A label whose rows are left out, such as prompt and padding, or `None`.
        **kwargs: `from_logits` and `teacher_from_logits`, see `SoftTargets`; `weight`, `output`,
            `name` and the others of `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, logits `[batch, ..., classes]`, and
    `labels`: class indices `[batch, ...]`, or one number for each class. Rows whose label is no
    class, -1 or all zeros, are taught by the teacher as it is. Returns `[batch, ...]`, float32.

    Raises:
        ValueError: An argument is out of its range; when the distiller is built: a model ends in
            softmax, or the shapes differ; in `fit`: the data has no labels.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    teacher = np.log(np.float32([[0.6, 0.3, 0.1]]))
    corrected = np.log(np.float32([[0.369231, 0.569231, 0.061538]]))  # 0.2 above the first class
    loss = kd.losses.CorrectedTargets(margin=0.2)
    assert abs(loss(teacher, corrected, labels=np.array([1])).numpy()[0]) < 1e-5
    ```

    Reference: Belcak et al., "Minifinetuning: Low-Data Generation Domain Adaptation through
    Corrective Self-Distillation", https://arxiv.org/abs/2506.15702
    """

    has_temperature = True
    takes_infinite = True

    def __init__(
        self,
        margin: float = 0.2,
        temperature: float = 1.0,
        where: str = "wrong",
        ignore_class: int | None = -100,
        **kwargs: Any,
    ) -> None:
        super().__init__(temperature=temperature, **kwargs)
        self.margin = validation.fraction("margin", margin)
        self.where = validation.one_of("where", where, _WHERE)
        if ignore_class is not None and not validation.is_integer(ignore_class):
            raise invalid("ignore_class", "an integer, or None", repr(ignore_class))
        self.ignore_class = ignore_class

    @property
    def reading(self) -> Any:
        return dataclasses.replace(super().reading, leaves_out=self.ignore_class is not None)

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes.check_shapes(self, teacher_outputs_shape, student_outputs_shape, least=2)
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any, labels: Any) -> Any:
        teacher, student = self.logits(teacher_outputs, student_outputs)
        t = keras.ops.convert_to_tensor(self.temperature_variable)
        classes = shapes.class_indices(labels, student)
        of_label = keras.ops.one_hot(classes, student.shape[-1], dtype="bool")
        logits = self._corrected(tf.nn.log_softmax(tf.cast(teacher, tf.float32) / t), of_label)
        student = tf.cast(student, tf.float32) / t
        return temperature_squared(t) * ops.soft_target_loss(student, logits)

    def weighted(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        row_weight: Any,
        mask: Any = None,
        **context: Any,
    ) -> tuple[Any, Any]:
        if self.ignore_class is not None:
            counts = shapes.class_indices(context["labels"], student_outputs) != self.ignore_class
            if mask is not None and len(mask.shape) > len(counts.shape):
                self._report_unused_mask(mask, counts)
                mask = None
            if mask is not None:
                mask = base.align_weights(mask, counts) != 0
            mask = counts if mask is None else keras.ops.logical_and(mask, counts)
        return super().weighted(teacher_outputs, student_outputs, row_weight, mask, **context)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["margin"], config["where"] = self.margin, self.where
        config["ignore_class"] = self.ignore_class
        return config

    def _corrected(self, logarithms, of_label):
        """The logarithms of the corrected probabilities, of those of the teacher's."""
        p = tf.exp(logarithms)
        label = tf.reduce_sum(tf.where(of_label, p, 0.0), axis=-1, keepdims=True)
        gap = tf.reduce_max(p, axis=-1, keepdims=True) - label
        mixed = (gap + self.margin) / (1.0 + gap)
        if self.where == "all":
            raised = tf.minimum(self.margin, 1.0 - label)
            of_right = tf.math.divide_no_nan(raised, 1.0 - label)
        else:
            of_right = tf.zeros_like(label)
        mixed = tf.where(gap > 0, mixed, of_right)
        mixed = tf.where(tf.reduce_any(of_label, axis=-1, keepdims=True), mixed, 0.0)
        of_others = logarithms + tf.math.log1p(-mixed)
        return tf.where(of_label, tf.math.log((1.0 - mixed) * label + mixed), of_others)
