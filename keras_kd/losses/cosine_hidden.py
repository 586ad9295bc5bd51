"""`CosineHidden`: match the direction of the teacher's hidden states (DistilBERT)."""

from typing import Any

import keras

from keras_kd.losses import shapes
from keras_kd.losses.feature_hint import FeatureHint


@keras.saving.register_keras_serializable(package="keras_kd")
class CosineHidden(FeatureHint):
    """Cosine distance of two transformers' hidden states, position by position (DistilBERT).

    `l = 1 - h^t . h^s / (|h^t| |h^s|)` for each position. Where the widths differ the student's
    states go through a trained dense layer. Padded positions, which the Keras mask of the
    student's layer or `mask_input` tells, do not count.

    Args:
        teacher_layer: See `DistillationLoss`; usually a path, such as
            `"backbone/transformer_layer_11"`.
        student_layer: The same for the student.
        projector: See `FeatureHint`.
        weight: See `DistillationLoss`.
        name: See `DistillationLoss`.
        **kwargs: `output` and `mask_input`, see `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, time, width]`. Returns
    `[batch, time]`, float32, between 0 and 2.

    Raises:
        ValueError: An argument is wrong; when the distiller is built: there is no such layer, or
            the shapes are others.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.CosineHidden("encoder_11", "encoder_5")
    states = np.random.normal(size=(2, 5, 16)).astype("float32")
    assert loss(states, 3.0 * states).numpy().max() < 1e-6
    ```

    Reference: Sanh et al., "DistilBERT", https://arxiv.org/abs/1910.01108
    """

    def __init__(
        self,
        teacher_layer: Any,
        student_layer: Any,
        projector: Any = "auto",
        weight: float = 1.0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(teacher_layer, student_layer, "cosine", projector, weight, name, **kwargs)

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes.check_sequences(self, teacher_outputs_shape, student_outputs_shape)
        super().build(teacher_outputs_shape, student_outputs_shape)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["loss"]
        return config
