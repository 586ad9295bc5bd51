"""`FlowMatrix`: how features flow from one layer to a later one (FSP)."""

from typing import Any

import keras

from keras_kd.losses import base
from keras_kd.losses import projector as projectors
from keras_kd.losses import shapes as loss_shapes


@keras.saving.register_keras_serializable(package="keras_kd")
class FlowMatrix(base.DistillationLoss):
    """Compares the flow of the solution procedure between two layers of each model.

    `l = mean_ij (G^t_ij - G^s_ij)^2` with `G_ij = sum_hw F1_hwi F2_hwj / (h w)` for the channels
    `i` of an earlier layer and `j` of a later one. Where the two layers of a model differ in
    height and width, the earlier one is pooled or resized to the later. Where the student's
    channels differ from the teacher's, its features go through trained 1x1 convolutions (the paper
    has equal ones).

    Args:
        teacher_layers: An earlier and a later layer of the teacher, see
            `DistillationLoss`'s `teacher_layer`.
        student_layers: The same for the student.
        weight: See `DistillationLoss`.
        name: See `DistillationLoss`.
        **kwargs: `output`, see `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, pairs of `[batch, height, width,
    channels]`. Returns `[batch]`, float32.

    Raises:
        ValueError: Not two layers are given; when the distiller is built: there is no such layer,
            the features are not images, or nothing bridges their shapes.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.FlowMatrix(("block1", "block4"), ("block1", "block2"))
    teacher = [np.random.normal(size=(2, n, n, c)).astype("float32") for n, c in ((8, 4), (4, 6))]
    student = [np.random.normal(size=(2, n, n, c)).astype("float32") for n, c in ((8, 4), (8, 6))]
    assert loss(teacher, student).shape == (2,)
    ```

    Reference: Yim et al., "A Gift from Knowledge Distillation: Fast Optimization, Network
    Minimization and Transfer Learning", CVPR 2017
    """

    def __init__(
        self,
        teacher_layers: Any,
        student_layers: Any,
        weight: float = 1.0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        for role, pair in (("teacher_layers", teacher_layers), ("student_layers", student_layers)):
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise ValueError(
                    f"Invalid value for argument `{role}`. Expected two layers, an earlier and a "
                    f"later one. Received: {role}={pair!r}"
                )
        super().__init__(
            weight=weight,
            teacher_layer=tuple(teacher_layers),
            student_layer=tuple(student_layers),
            name=name,
            **kwargs,
        )
        base.refuse_mask(self, loss_shapes.WHOLE_IMAGES)
        self.teacher_pooling: list = []
        self.student_pooling: list = []
        self.projection_layers: list = []

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        for shapes in zip(teacher_outputs_shape, student_outputs_shape, strict=True):
            loss_shapes.check_images(self, *shapes)
        self.teacher_pooling = _pooling(teacher_outputs_shape)
        self.student_pooling = _pooling(student_outputs_shape)
        self.projection_layers = [
            _channels(student, teacher[-1])
            for student, teacher in zip(student_outputs_shape, teacher_outputs_shape, strict=True)
        ]
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        projected = [
            keras.ops.cast(projectors.apply(layers, features), "float32")
            for layers, features in zip(self.projection_layers, student_outputs, strict=True)
        ]
        teacher_flow = _flow(teacher_outputs, self.teacher_pooling)
        difference = teacher_flow - _flow(projected, self.student_pooling)
        return keras.ops.mean(keras.ops.square(difference), axis=(1, 2))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for role in ("teacher", "student"):
            config[f"{role}_layers"] = config.pop(f"{role}_layer")
        return config


def _pooling(shapes):
    earlier, later = ((*tuple(shape)[:3], 1) for shape in shapes)
    return projectors.make_projector(earlier, later)


def _channels(shape, wanted):
    shape = tuple(shape)
    layers = projectors.make_projector(shape, (*shape[:3], wanted))
    projectors.build(layers, shape)
    return layers


def _flow(features, pooling):
    """`[batch, channels of the earlier layer, channels of the later one]`."""
    earlier, later = features
    earlier = loss_shapes.channel_maps(projectors.apply(pooling, earlier))
    later = loss_shapes.channel_maps(later)
    positions = keras.ops.cast(keras.ops.shape(later)[2], "float32")
    return keras.ops.matmul(earlier, keras.ops.transpose(later, (0, 2, 1))) / positions
