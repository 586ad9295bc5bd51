"""`NeuronSelectivity`: match where in an image the teacher's neurons respond (NST)."""

from typing import Any

import keras

from keras_kd.losses import base, relations, shapes
from keras_kd.losses import projector as projectors


@keras.saving.register_keras_serializable(package="keras_kd")
class NeuronSelectivity(base.DistillationLoss):
    """Maximum mean discrepancy between the activation maps of two layers' channels.

    `l = mean_cc' k(t_c, t_c') + mean_cc' k(s_c, s_c') - 2 mean_cc' k(t_c, s_c')` with the
    polynomial kernel `k(x, y) = (x . y)^2` of the channels' maps, each divided by its norm. The
    numbers of channels may differ: no projector is needed. Where heights and widths differ the
    student's features are pooled or resized to the teacher's. The loss is at least 0, up to
    rounding.

    Args:
        **kwargs: `weight`, `output`, `teacher_layer`, `student_layer` and `name`, see
            `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, height, width, channels]`.
    Returns `[batch]`, float32.

    Raises:
        ValueError: When the distiller is built: the features are not images, or of unknown and
            differing sizes.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.NeuronSelectivity(teacher_layer="block4", student_layer="block2")
    teacher = np.random.normal(size=(2, 4, 4, 16)).astype("float32")
    assert loss(teacher, 2.0 * teacher).numpy().max() < 1e-6
    ```

    Reference: Huang and Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity
    Transfer", https://arxiv.org/abs/1707.01219
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        base.refuse_mask(self, shapes.WHOLE_IMAGES)
        self.resizing_layers: list = []

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes.check_images(self, teacher_outputs_shape, student_outputs_shape)
        wanted = (*tuple(teacher_outputs_shape)[:3], student_outputs_shape[-1])
        self.resizing_layers = projectors.make_projector(student_outputs_shape, wanted)
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        student_outputs = projectors.apply(self.resizing_layers, student_outputs)
        teacher, student = _maps(teacher_outputs), _maps(student_outputs)
        return _kernel(teacher, teacher) + _kernel(student, student) - 2 * _kernel(teacher, student)


def _maps(features):
    """`[batch, channels, positions]`, each map divided by its norm."""
    maps = shapes.channel_maps(features)
    return relations.divided(maps, relations.norms(maps))


def _kernel(a, b):
    products = keras.ops.matmul(a, keras.ops.transpose(b, (0, 2, 1)))
    return keras.ops.mean(products * products, axis=(1, 2))
