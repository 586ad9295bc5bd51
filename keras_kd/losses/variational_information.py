"""`VariationalInformation`: predict the teacher's features from the student's (VID)."""

from typing import Any

import keras
import numpy as np

from keras_kd._utils import validation
from keras_kd.losses import base, relations
from keras_kd.losses import projector as projectors

SMALLEST = 1e-5


@keras.saving.register_keras_serializable(package="keras_kd")
class VariationalInformation(base.DistillationLoss):
    """Negative log-likelihood of the teacher's features, predicted from the student's.

    `l = mean_c ((t_c - mu(s)_c)^2 / v_c + log v_c) / 2` with a trained mean `mu` (a dense layer or
    1x1 convolutions, after pooling or resizing of images) and a trained variance of each channel
    `v_c = softplus(a_c) + 1e-5`. Channels that cannot be predicted get a large variance and count
    less. It bounds the mutual information from below, so it may be negative and is not 0 where
    both features are equal.

    Args:
        teacher_layer: See `DistillationLoss`.
        student_layer: The same for the student.
        hidden_width: Units or filters of a layer with ReLU in `mu`; `None`: `mu` is linear. The
            paper has two such layers for images.
        variance: `v_c` at first, above 1e-5.
        weight: See `DistillationLoss`.
        name: See `DistillationLoss`.
        **kwargs: `output` and `mask_input`, see `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, width]`, `[batch, time,
    width]` or `[batch, height, width, channels]`. Returns `[batch]`, for sequences `[batch, time]`,
    float32.

    Raises:
        ValueError: An argument is wrong; when the distiller is built: there is no such layer, or
            nothing bridges the shapes.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.VariationalInformation("block4", "block2", hidden_width=32)
    teacher = np.random.normal(size=(2, 4, 4, 16)).astype("float32")
    student = np.random.normal(size=(2, 8, 8, 3)).astype("float32")
    assert loss(teacher, student).shape == (2,)
    ```

    Reference: Ahn et al., "Variational Information Distillation for Knowledge Transfer",
    https://arxiv.org/abs/1904.05835
    """

    def __init__(
        self,
        teacher_layer: Any,
        student_layer: Any,
        hidden_width: Any = None,
        variance: float = 5.0,
        weight: float = 1.0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if validation.non_negative("variance", variance) <= SMALLEST:
            raise ValueError(
                f"Invalid value for argument `variance`. Expected a number above {SMALLEST}. "
                f"Received: variance={variance}"
            )
        super().__init__(
            weight=weight,
            teacher_layer=teacher_layer,
            student_layer=student_layer,
            name=name,
            **kwargs,
        )
        self.hidden_width = validation.integer("hidden_width", hidden_width, 1, optional=True)
        self.variance = float(variance)
        self.mean_layers: list = []

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        layers = projectors.make_projector(
            student_outputs_shape, teacher_outputs_shape, always=True
        )
        if self.hidden_width is not None:
            layers.insert(-1, self._hidden_layer(len(student_outputs_shape)))
        self.mean_layers = layers
        projectors.build(layers, student_outputs_shape)
        # Of softplus the inverse, without overflow for large variances.
        above = self.variance - SMALLEST
        start = above + np.log(-np.expm1(-above))
        self.raw_variance = self.add_weight(
            name="raw_variance",
            shape=(teacher_outputs_shape[-1],),
            initializer=keras.initializers.Constant(start),
        )
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any, training: bool | None = None) -> Any:
        mean = projectors.apply(self.mean_layers, student_outputs, training)
        error = keras.ops.square(teacher_outputs - keras.ops.cast(mean, "float32"))
        variance = keras.ops.softplus(keras.ops.convert_to_tensor(self.raw_variance)) + SMALLEST
        values = 0.5 * keras.ops.mean(error / variance + keras.ops.log(variance), axis=-1)
        return relations.per_position(values, len(teacher_outputs.shape))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["hidden_width"], config["variance"] = self.hidden_width, self.variance
        return config

    def _hidden_layer(self, rank):
        options = {"activation": "relu", "name": "hidden"}
        if rank == 4:
            return keras.layers.Conv2D(self.hidden_width, 1, **options)
        return keras.layers.Dense(self.hidden_width, **options)
