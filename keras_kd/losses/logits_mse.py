"""`LogitsMSE`: match the teacher's logits by squared error."""

from typing import Any

import keras

from keras_kd.losses import shapes


@keras.saving.register_keras_serializable(package="keras_kd")
class LogitsMSE(shapes.LogitsLoss):
    """Mean squared difference of the logits: soft targets in the limit of a high temperature.

    `l = mean_c (z^t_c - z^s_c)^2`. Unlike the KL divergence it also asks for the teacher's common
    offset of a row's logits.

    Args:
        weight: See `DistillationLoss`.
        **kwargs: `from_logits` and `teacher_from_logits`, see `SoftTargets` (of probabilities
            the logits are their logarithms, of 0 that of 1e-38); `output`, `name` and the
            others of `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, logits `[batch, classes]` or `[batch,
    time, classes]`. Returns their shape without the classes, float32.

    Raises:
        ValueError: The shapes differ; when the distiller is built: a model ends in softmax
            although logits are expected.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.LogitsMSE()
    teacher, student = np.float32([[1.0, 3.0]]), np.float32([[0.0, 1.0]])
    np.testing.assert_allclose(loss(teacher, student), [2.5])
    ```

    Reference: Ba and Caruana, "Do Deep Nets Really Need to be Deep?",
    https://arxiv.org/abs/1312.6184
    """

    def __init__(self, weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(weight=weight, **kwargs)

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes.check_shapes(self, teacher_outputs_shape, student_outputs_shape)
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        teacher_outputs, student_outputs = self.logits(teacher_outputs, student_outputs)
        return keras.ops.mean(keras.ops.square(teacher_outputs - student_outputs), axis=-1)
