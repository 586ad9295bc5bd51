"""`AttentionTransfer`: match where the teacher's features are active (AT)."""

from typing import Any

import keras

from keras_kd._utils import validation
from keras_kd.losses import base, relations, shapes
from keras_kd.losses import projector as projectors


@keras.saving.register_keras_serializable(package="keras_kd")
class AttentionTransfer(base.DistillationLoss):
    """Compares where in an image two convolutional layers are active.

    `l = |Q^t / |Q^t| - Q^s / |Q^s||^2` with the attention map `Q(h, w) = mean_c |A(h, w, c)|^p`.
    The paper writes the norm and its authors' code the squared one, which has a gradient where the
    maps agree; theirs is divided by the number of positions too. Numbers of channels may differ.
    Where heights and widths differ the student's map is pooled or resized to the teacher's.

    Args:
        teacher_layer: Name or path of the teacher's layer.
        student_layer: The same for the student.
        power: `p`, above 0. Larger powers look at the most active positions only.
        weight: See `DistillationLoss`; the paper uses 1000 and the mean over positions.
        name: See `DistillationLoss`.
        **kwargs: `output`, see `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, height, width, channels]`.
    Returns `[batch]`, float32, from 0 to 2.

    Raises:
        ValueError: `power` is not a number above 0, or a `mask_input` is given; or, when the
            distiller is built, the features are not images, or of unknown and differing sizes.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.AttentionTransfer("block4", "block2")
    teacher = np.random.normal(size=(2, 4, 4, 16)).astype("float32")
    student = np.random.normal(size=(2, 8, 8, 3)).astype("float32")
    assert loss(teacher, student).shape == (2,)
    ```

    Reference: Zagoruyko and Komodakis, "Paying More Attention to Attention",
    https://arxiv.org/abs/1612.03928
    """

    def __init__(
        self,
        teacher_layer: Any,
        student_layer: Any,
        power: float = 2,
        weight: float = 1.0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        validation.positive("power", power)
        super().__init__(
            weight=weight,
            teacher_layer=teacher_layer,
            student_layer=student_layer,
            name=name,
            **kwargs,
        )
        base.refuse_mask(self, shapes.WHOLE_IMAGES)
        self.power = power
        self.resizing_layers: list = []

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes.check_images(self, teacher_outputs_shape, student_outputs_shape)
        teacher_map, student_map = (
            (*tuple(shape)[:3], 1) for shape in (teacher_outputs_shape, student_outputs_shape)
        )
        self.resizing_layers = projectors.make_projector(student_map, teacher_map)
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        student_map = projectors.apply(self.resizing_layers, self._map(student_outputs))
        difference = _direction(self._map(teacher_outputs)) - _direction(student_map)
        return keras.ops.sum(difference * difference, axis=-1)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["power"] = self.power
        return config

    def _map(self, features):
        # Squares: of a negative base a power has no gradient, of |a| none at 0.
        squares = features * features
        powers = squares if self.power == 2 else _power(squares, self.power / 2)
        return keras.ops.mean(powers, axis=-1, keepdims=True)


def _power(x, exponent):
    safe = keras.ops.where(x > 0, x, keras.ops.ones_like(x))
    return keras.ops.where(x > 0, keras.ops.power(safe, exponent), 0.0)


def _direction(attention):
    flat = relations.vectors(attention)
    return relations.divided(flat, relations.norms(flat))
