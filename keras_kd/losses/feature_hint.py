"""`FeatureHint`: match the teacher's features in an inner layer (FitNets)."""

from typing import Any

import keras

from keras_kd.losses import base, relations
from keras_kd.losses import projector as projectors


@keras.saving.register_keras_serializable(package="keras_kd")
class FeatureHint(base.DistillationLoss):
    """Distance between an inner layer of the student and one of the teacher.

    `distance(teacher_features, projector(student_features))`, averaged over the features of each
    row. The features are those of the one forward pass of each model. Where their shapes differ a
    projector is built (see `projector`); it is trained and saved with the distiller and is no part
    of the student.

    Args:
        teacher_layer: See `DistillationLoss`; usually a name, or a path through nested models.
        student_layer: The same for the student.
        loss: `"mse"`, `"cosine"` (the cosine of the angle, over the last axis), `"smooth_l1"`, a
            `keras.losses.Loss`, or a function of `(teacher_features, student_features)` that
            returns a value for each row or for each position.
        projector: `"auto"`: what the shapes need, nothing where they agree: a dense layer, or for
            images pooling or resizing and a 1x1 convolution. `"linear"`: the same, and a
            projection also where the widths agree. `None`: none; differing shapes are an error. Or
            a Keras layer.
        weight: See `DistillationLoss`.
        name: See `DistillationLoss`.
        **kwargs: `mask_input`, see `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, width]`, `[batch, time,
    width]` or `[batch, height, width, channels]`. Returns `[batch]`, for sequences `[batch, time]`
    (so that masked positions do not count), float32.

    Raises:
        ValueError: An argument is wrong; or, when the distiller is built, there is no such layer,
            or no projector leads from the student's shape to the teacher's.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_kd as kd

    def network(width):
        return keras.Sequential(
            [
                keras.Input((8,)),
                keras.layers.Dense(width, activation="relu", name="features"),
                keras.layers.Dense(10),
            ]
        )

    x, y = np.random.normal(size=(64, 8)), np.random.randint(10, size=64)
    losses = [kd.losses.SoftTargets(4.0), kd.losses.FeatureHint("features", "features")]
    distiller = kd.Distiller(network(32), network(6), losses)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("adam", loss)
    history = distiller.fit(x, y, epochs=1, verbose=0).history
    assert "feature_hint" in history
    ```

    Reference: Romero et al., "FitNets: Hints for Thin Deep Nets",
    https://arxiv.org/abs/1412.6550
    """

    def __init__(
        self,
        teacher_layer: Any,
        student_layer: Any,
        loss: Any = "mse",
        projector: Any = "auto",
        weight: float = 1.0,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if (isinstance(loss, str) and loss not in relations.DISTANCES) or not (
            isinstance(loss, str) or callable(loss)
        ):
            raise ValueError(
                "Invalid value for argument `loss`. Expected one of "
                f"{tuple(relations.DISTANCES)}, a Keras loss or a function. "
                f"Received: loss={loss!r}"
            )
        projectors.check(projector)
        if teacher_layer is None or student_layer is None:
            raise ValueError(
                "FeatureHint compares two layers. Received: "
                f"teacher_layer={teacher_layer!r}, student_layer={student_layer!r}"
            )
        super().__init__(
            weight=weight,
            teacher_layer=teacher_layer,
            student_layer=student_layer,
            name=name,
            **kwargs,
        )
        self.loss, self.projector = loss, projector
        self.projection_layers = [projector] if projectors.is_layer(projector) else []

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        if self.projector in ("auto", "linear"):
            self.projection_layers = projectors.make_projector(
                student_outputs_shape, teacher_outputs_shape, self.projector == "linear"
            )
        shape = projectors.build(self.projection_layers, student_outputs_shape)
        self._check_shapes(shape, tuple(teacher_outputs_shape))
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any, training: bool | None = None) -> Any:
        student_outputs = projectors.apply(self.projection_layers, student_outputs, training)
        values = relations.distance(
            self, self.loss, teacher_outputs, keras.ops.cast(student_outputs, "float32")
        )
        return relations.per_position(values, len(teacher_outputs.shape))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["loss"], config["projector"] = self.loss, self.projector
        for key in ("loss", "projector"):
            if config[key] is not None and not isinstance(config[key], str):
                config[key] = keras.saving.serialize_keras_object(config[key])
        return config

    def _check_shapes(self, student, teacher):
        if not projectors.shapes_agree(student, teacher):
            raise ValueError(
                f"Distillation loss {self.name!r}: the features of student layer "
                f"{self.student_layer!r} have shape {student} after the projector, those of "
                f"teacher layer {self.teacher_layer!r} {teacher}. Pass projector='auto', a layer "
                "that gives the teacher's shape, or other layers."
            )
