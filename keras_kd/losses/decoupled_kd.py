"""`DecoupledKD`: target and non-target class KD, weighted separately (DKD)."""

from typing import Any

import keras

from keras_kd import ops
from keras_kd._utils import validation
from keras_kd.losses import shapes
from keras_kd.ops.arguments import temperature_squared


@keras.saving.register_keras_serializable(package="keras_kd")
class DecoupledKD(shapes.LogitsLoss):
    """KL divergence in two parts: is it the label's class, and which of the others is it (DKD).

    `l = T^2 (target * KL(b^t || b^s) + non_target * KL(p^t || p^s))`. `b` are the probabilities of
    the label's class and of all others together, `p` those of the others among themselves, all of
    logits divided by `T`. Soft targets are the same with `target=1` and `non_target = 1 - b^t`, so
    that a teacher that is sure teaches little about the others; here it does. Both parts by the
    fused kernel.

    Args:
        temperature: `T`, a positive number. Live, as `weight`.
        target: Factor of the label's class, at least 0 (`alpha` in the paper).
        non_target: Factor of the others (`beta` in the paper, 2 to 8 there).
        **kwargs: `from_logits` and `teacher_from_logits`, see `SoftTargets`; `weight`, `output`,
            `name` and the others of `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, logits `[batch, ..., classes]`, and
    `labels`: class indices `[batch, ...]`, or one number for each class. Returns `[batch, ...]`,
    float32; 0 for rows whose label is no class: -1 or all zeros, as of rows without a label.

    Raises:
        ValueError: An argument is out of its range; when the distiller is built: a model ends in
            softmax, or the shapes differ; in `fit`: the data has no labels.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.DecoupledKD(temperature=4.0, non_target=8.0)
    teacher, student = np.random.normal(size=(2, 8, 10)).astype("float32")
    assert loss(teacher, student, labels=np.arange(8)).shape == (8,)
    ```

    Reference: Zhao et al., "Decoupled Knowledge Distillation", https://arxiv.org/abs/2203.08679
    """

    has_temperature = True

    def __init__(
        self, temperature: float = 4.0, target: float = 1.0, non_target: float = 8.0, **kwargs: Any
    ) -> None:
        super().__init__(temperature=temperature, **kwargs)
        self.target = validation.non_negative("target", target)
        self.non_target = validation.non_negative("non_target", non_target)

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes.check_shapes(self, teacher_outputs_shape, student_outputs_shape, least=2)
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any, labels: Any) -> Any:
        teacher_outputs, student_outputs = self.logits(teacher_outputs, student_outputs)
        of_label = _is_label(labels, student_outputs)
        others = [_others(x, of_label) for x in (student_outputs, teacher_outputs)]
        t = keras.ops.convert_to_tensor(self.temperature_variable)
        pairs = [
            _label_or_not(x / t, other / t, of_label)
            for x, other in zip((student_outputs, teacher_outputs), others, strict=True)
        ]
        target = temperature_squared(t) * ops.soft_target_loss(*pairs)
        non_target = ops.soft_target_loss(*others, self.temperature_variable)
        loss = self.target * target + self.non_target * non_target
        return keras.ops.where(keras.ops.any(of_label, axis=-1), loss, 0.0)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["target"], config["non_target"] = self.target, self.non_target
        return config


def _is_label(given, student):
    return keras.ops.one_hot(shapes.class_indices(given, student), student.shape[-1], dtype="bool")


def _others(x, of_label):
    # A logit of -inf is a class of no probability to the kernel.
    return keras.ops.where(of_label, -float("inf"), x)


def _label_or_not(x, others, of_label):
    """Two logits: of the label's class, and of all others together."""
    label = keras.ops.sum(keras.ops.where(of_label, x, 0.0), axis=-1)
    return keras.ops.stack([label, keras.ops.logsumexp(others, axis=-1)], axis=-1)
