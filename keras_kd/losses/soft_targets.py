"""`SoftTargets`: the temperature-softened divergence of Hinton et al."""

from typing import Any

import keras
import tensorflow as tf

from keras_kd import ops
from keras_kd.losses import shapes
from keras_kd.ops.sparse_logits import SparseLogits


@keras.saving.register_keras_serializable(package="keras_kd")
class SoftTargets(shapes.LogitsLoss):
    """Divergence between the softened class distributions of teacher and student.

    `T^2 KL(softmax(teacher / T) || softmax(student / T))` per sample, computed by the fused
    kernel; see `keras_kd.ops.soft_target_loss` for the other divergences.

    Args:
        temperature: `T`, a positive number. Live, as `weight`.
        divergence: `"forward_kl"`, `"reverse_kl"` or `"jsd"`.
        mixing_weight: The teacher's weight in the mixture of `"jsd"`, between 0 and 1.
        from_logits: Whether the models return logits. `False`: they return probabilities (they
            end in softmax), and the loss works on their logarithms, without clipping. Logits are
            more exact: probabilities below 1e-38 are gone.
        weight: See `DistillationLoss`.
        output: See `DistillationLoss`.
        name: See `DistillationLoss`.
        teacher_from_logits: `from_logits` for the teacher alone: `False` for a file that ends in
            softmax beside a student that returns logits. Default: `from_logits`.
        **kwargs: `teacher_layer`, `student_layer`, `teacher_output` and `mask_input`, see
            `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, ..., num_classes]`. Returns
    `[batch, ...]`, float32.

    Raises:
        ValueError: An argument is out of its range; or, when the distiller is built, a model ends
            in softmax although `from_logits=True`, or in sigmoid; class counts differ, or there is
            one.

    Example:

    ```python
    import keras
    import keras_kd as kd

    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    distiller = kd.Distiller(teacher, student, kd.losses.SoftTargets(temperature=4.0))
    ```

    Reference: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network",
    https://arxiv.org/abs/1503.02531
    """

    has_temperature = True
    takes_infinite = True

    def __init__(
        self,
        temperature: float = 4.0,
        divergence: str = "forward_kl",
        mixing_weight: float = 0.5,
        from_logits: bool = True,
        weight: float = 1.0,
        output: str | int | None = None,
        name: str | None = "soft_targets",
        teacher_from_logits: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            temperature=temperature,
            from_logits=from_logits,
            teacher_from_logits=teacher_from_logits,
            weight=weight,
            output=output,
            name=name,
            **kwargs,
        )
        self.divergence, self.mixing_weight = shapes.check_divergence(divergence, mixing_weight)
        self.takes_sparse = not self._has_own_formula()
        self.built = True

    def build(self, *shapes: Any) -> None:
        del shapes  # nothing depends on them
        self.built = True

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        return self._per_sample_loss(teacher_outputs, student_outputs, None)

    def weighted(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        row_weight: Any,
        mask: Any = None,
        **context: Any,
    ) -> tuple[Any, Any]:
        if self._has_own_formula():
            return super().weighted(teacher_outputs, student_outputs, row_weight, mask, **context)
        shapes.check_classes(self, student_outputs)
        weight, count = self.valid_rows(student_outputs[..., 0], row_weight, mask)
        return self._per_sample_loss(teacher_outputs, student_outputs, weight), count

    def compute_output_shape(self, teacher_shape: Any, student_shape: Any) -> tuple:
        del teacher_shape
        return tuple(student_shape[:-1])

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update({"divergence": self.divergence, "mixing_weight": self.mixing_weight})
        return config

    def _per_sample_loss(self, teacher_outputs, student_outputs, row_weight):
        rows = tf.shape(student_outputs)[:-1]
        options = {
            "mixing_weight": self.mixing_weight,
            "sample_weight": None if row_weight is None else tf.broadcast_to(row_weight, rows),
        }
        if isinstance(teacher_outputs, SparseLogits):
            return self._sparse_loss(teacher_outputs, student_outputs, options)
        teacher_outputs, student_outputs = self.logits(teacher_outputs, student_outputs)
        return ops.soft_target_loss(
            student_outputs,
            teacher_outputs,
            self.temperature_variable,
            self.divergence,
            **options,
        )

    def _has_own_formula(self):
        """Whether a subclass computes something else, from logits."""
        return type(self).call is not SoftTargets.call

    def _sparse_loss(self, teacher, student_outputs, options):
        """Sparse teacher: its k largest logits, and the log-sum-exp of the other classes."""
        temperature = tf.identity(keras.ops.convert_to_tensor(self.temperature_variable))
        return ops.sparse_soft_target_loss(
            student_outputs if self.from_logits else self.to_logits(student_outputs),
            teacher.logits,
            teacher.indices,
            teacher.rest(temperature),
            temperature,
            self.divergence,
            **options,
        )
