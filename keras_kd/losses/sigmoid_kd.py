"""`SigmoidKD`: soft targets where each class is a yes or no (multi-label)."""

from typing import Any

import keras

from keras_kd import ops
from keras_kd.losses import shapes


@keras.saving.register_keras_serializable(package="keras_kd")
class SigmoidKD(shapes.LogitsLoss):
    """Divergence between the yes-or-no probabilities of each class.

    `l = T^2 mean_c KL(Bernoulli(sigmoid(z^t_c / T)) || Bernoulli(sigmoid(z^s_c / T)))`, by the
    fused kernel. For multi-label classification, and for one output with a sigmoid.

    Args:
        temperature: `T`, a positive number. Live, as `weight`.
        **kwargs: `from_logits` (`False`: the models end in sigmoid; of a probability `p` the logit
            is `log p - log(1 - p)`) and `teacher_from_logits`, the same of the teacher alone;
            `weight`, `output`, `name` and the others of `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, logits `[batch, ..., classes]`.
    Returns `[batch, ...]`, float32.

    Raises:
        ValueError: The temperature is not positive; when the distiller is built: the shapes
            differ, or a model ends in sigmoid.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.SigmoidKD(temperature=2.0)
    logits = np.random.normal(size=(8, 10)).astype("float32")
    assert loss(logits, logits).numpy().max() < 1e-6
    ```

    Reference: Yang et al., "Multi-Label Knowledge Distillation", https://arxiv.org/abs/2308.06453
    (its logits part; Hinton's loss for each class).
    """

    has_temperature = True
    is_of_classes = False

    def __init__(self, temperature: float = 1.0, **kwargs: Any) -> None:
        super().__init__(temperature=temperature, **kwargs)

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes.check_shapes(self, teacher_outputs_shape, student_outputs_shape)
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        teacher_outputs, student_outputs = self.logits(teacher_outputs, student_outputs)
        losses = ops.soft_target_loss(
            _yes_or_no(student_outputs), _yes_or_no(teacher_outputs), self.temperature_variable
        )
        return keras.ops.mean(losses, axis=-1)


def _yes_or_no(x):
    """Two logits whose softmax is sigmoid and its complement."""
    return keras.ops.stack([x, keras.ops.zeros_like(x)], axis=-1)
