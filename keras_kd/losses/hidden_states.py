"""`HiddenStates`: match the teacher's hidden states (TinyBERT, MobileBERT)."""

from typing import Any

import keras

from keras_kd._utils import validation
from keras_kd.losses import projector as projectors
from keras_kd.losses import shapes
from keras_kd.losses.feature_hint import FeatureHint


@keras.saving.register_keras_serializable(package="keras_kd")
class HiddenStates(FeatureHint):
    """Mean squared difference of two transformers' hidden states, position by position.

    `l = mean_c (h^t_c - (h^s W)_c)^2` for each position; `W` is a trained dense layer, left out
    where the widths agree. Padded positions, which the Keras mask of the student's layer or
    `mask_input` tells, do not count.

    Args:
        teacher_layer: See `DistillationLoss`; usually a path, such as
            `"backbone/transformer_layer_3"`. Embeddings may be compared too.
        student_layer: The same for the student.
        normalize: Whether both states are first brought to mean 0 and variance 1, as MobileBERT
            does: `h -> (h - mean) / sqrt(variance + 1e-12)` over the width.
        projector: See `FeatureHint`; `"linear"` projects also where the widths agree.
        weight: See `DistillationLoss`.
        name: See `DistillationLoss`.
        **kwargs: `output` and `mask_input`, see `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, time, width]`. Returns
    `[batch, time]`, float32.

    Raises:
        ValueError: An argument is wrong; when the distiller is built: there is no such layer, or
            the shapes are others.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.HiddenStates("encoder_11", "encoder_3")
    teacher = np.random.normal(size=(2, 5, 16)).astype("float32")
    student = np.random.normal(size=(2, 5, 4)).astype("float32")
    assert loss(teacher, student).shape == (2, 5)
    ```

    References: Jiao et al., "TinyBERT", https://arxiv.org/abs/1909.10351; Sun et al.,
    "MobileBERT", https://arxiv.org/abs/2004.02984
    """

    def __init__(
        self,
        teacher_layer: Any,
        student_layer: Any,
        normalize: bool = False,
        projector: Any = "auto",
        weight: float = 1.0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(teacher_layer, student_layer, "mse", projector, weight, name, **kwargs)
        self.normalize = validation.boolean("normalize", normalize)

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes.check_sequences(self, teacher_outputs_shape, student_outputs_shape)
        super().build(teacher_outputs_shape, student_outputs_shape)

    def call(self, teacher_outputs: Any, student_outputs: Any, training: bool | None = None) -> Any:
        student_outputs = projectors.apply(self.projection_layers, student_outputs, training)
        student_outputs = keras.ops.cast(student_outputs, "float32")
        if self.normalize:
            teacher_outputs, student_outputs = map(_normalized, (teacher_outputs, student_outputs))
        return keras.ops.mean(keras.ops.square(teacher_outputs - student_outputs), axis=-1)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["loss"]
        config["normalize"] = self.normalize
        return config


def _normalized(x):
    x = x - keras.ops.mean(x, axis=-1, keepdims=True)
    variance = keras.ops.mean(x * x, axis=-1, keepdims=True)
    return x * keras.ops.rsqrt(variance + 1e-12)
