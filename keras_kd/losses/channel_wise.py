"""`ChannelWise`: match where each channel of the teacher is active (CWD)."""

from typing import Any

import keras

from keras_kd import ops
from keras_kd.losses import base, shapes
from keras_kd.losses import projector as projectors


@keras.saving.register_keras_serializable(package="keras_kd")
class ChannelWise(base.DistillationLoss):
    """Divergence between the distributions of each channel over the positions of an image.

    `l = T^2 / C sum_c KL(softmax_hw(A^t_c / T) || softmax_hw(A^s_c / T))`, by the fused kernel.
    Where sizes or channels differ, the student's features are pooled or resized, and go through a
    trained 1x1 convolution, as in `FeatureHint`. For segmentation, the models' outputs (the
    classes' score maps) may be compared as well as features.

    Args:
        temperature: `T`, a positive number. Live, as `weight`.
        **kwargs: `weight`, `output`, `teacher_layer`, `student_layer` and `name`, see
            `DistillationLoss`. Without layers the models' outputs are compared.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, height, width, channels]`.
    Returns `[batch]`, float32.

    Raises:
        ValueError: The temperature is not positive; or, when the distiller is built, the features
            are not images, or nothing bridges their shapes.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.ChannelWise(teacher_layer="block4", student_layer="block2")
    teacher = np.random.normal(size=(2, 4, 4, 16)).astype("float32")
    student = np.random.normal(size=(2, 8, 8, 3)).astype("float32")
    assert loss(teacher, student).shape == (2,)
    ```

    Reference: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction",
    https://arxiv.org/abs/2011.13256
    """

    temperature = base.live_temperature()

    def __init__(self, temperature: float = 4.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        temperature = base.check_temperature(temperature)
        self.temperature_variable = self.add_scalar("temperature", temperature)
        base.refuse_mask(self, shapes.WHOLE_IMAGES)
        self.projection_layers: list = []

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes.check_images(self, teacher_outputs_shape, student_outputs_shape)
        self.projection_layers = projectors.make_projector(
            student_outputs_shape, teacher_outputs_shape
        )
        projectors.build(self.projection_layers, student_outputs_shape)
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        student_outputs = projectors.apply(self.projection_layers, student_outputs)
        losses = ops.soft_target_loss(
            shapes.channel_maps(keras.ops.cast(student_outputs, "float32")),
            shapes.channel_maps(teacher_outputs),
            self.temperature_variable,
        )
        return keras.ops.mean(losses, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": float(self.temperature)}
