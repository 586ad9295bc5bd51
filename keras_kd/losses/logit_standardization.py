"""`LogitStandardization`: soft targets of standardized logits."""

from typing import Any

import keras

from keras_kd import ops
from keras_kd.losses import shapes

# As in the authors' code: where a sample's logits are all equal nothing is divided by 0.
SMALLEST = 1e-7


@keras.saving.register_keras_serializable(package="keras_kd")
class LogitStandardization(shapes.LogitsLoss):
    """Soft targets of logits that are standardized per sample: mean 0, deviation 1.

    `l = T^2 KL(softmax(Z(teacher) / T) || softmax(Z(student) / T))` with `Z(z) = (z - mean) /
    (standard deviation + 1e-7)` over the classes: a temperature per sample and model. The
    student need not reach the size of the teacher's logits, only their relations. By the fused
    kernel.

    Args:
        temperature: `T`, a positive number. Live, as `weight`.
        **kwargs: `from_logits` and `teacher_from_logits`, see `SoftTargets`; `weight`, `output`,
            `name` and the others of `DistillationLoss`. The paper
            raises `weight` to about 9.

    Call arguments: `teacher_outputs` and `student_outputs`, logits `[batch, ..., classes]`.
    Returns `[batch, ...]`, float32.

    Raises:
        ValueError: The temperature is not positive; when the distiller is built: a model ends in
            softmax, or the shapes differ.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.LogitStandardization(temperature=2.0)
    logits = np.random.normal(size=(8, 10)).astype("float32")
    assert loss(3.0 * logits + 1.0, logits).numpy().max() < 1e-5
    ```

    Reference: Sun et al., "Logit Standardization in Knowledge Distillation",
    https://arxiv.org/abs/2403.01427
    """

    has_temperature = True

    def __init__(self, temperature: float = 2.0, **kwargs: Any) -> None:
        super().__init__(temperature=temperature, **kwargs)

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes.check_shapes(self, teacher_outputs_shape, student_outputs_shape, least=2)
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        teacher_outputs, student_outputs = self.logits(teacher_outputs, student_outputs)
        return ops.soft_target_loss(
            _standardized(student_outputs),
            _standardized(teacher_outputs),
            self.temperature_variable,
        )


def _standardized(x):
    x = x - keras.ops.mean(x, axis=-1, keepdims=True)
    variance = keras.ops.mean(x * x, axis=-1, keepdims=True)
    # The root has no gradient at 0.
    positive = variance > 0
    deviation = keras.ops.sqrt(keras.ops.where(positive, variance, 1.0))
    return x / (keras.ops.where(positive, deviation, 0.0) + SMALLEST)
