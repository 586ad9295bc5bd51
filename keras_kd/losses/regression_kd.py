"""`RegressionKD`: distance to the numbers of a teacher, or a bound on the student's error."""

from typing import Any

import keras

from keras_kd._utils import validation
from keras_kd.losses import base, relations, shapes
from keras_kd.losses import projector as projectors


@keras.saving.register_keras_serializable(package="keras_kd")
class RegressionKD(base.DistillationLoss):
    """Distance to the teacher's numbers, or to the labels where the student is worse than it.

    `bounded=False`: `l = mean_k d(t_k, s_k)`.

    `bounded=True`: `l = |s - y|^2` if `|s - y|^2 + margin > |t - y|^2`, else 0: the teacher is no
    target but a bound, because a teacher of numbers can be wrong by any amount.

    Args:
        loss: `d`: `"mse"`, `"smooth_l1"`, a `keras.losses.Loss`, or a function of `(teacher,
            student)` that returns a value for each row. Only without `bounded`.
        bounded: Whether the teacher is a bound.
        margin: By how much the student must be better before it is let go, at least 0, in squared
            units of the labels.
        **kwargs: `weight`, `output` and `name`, see `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, ..., values]`; where bounded
    also `labels` of their shape (or, of one value, without the last axis). Returns `[batch, ...]`,
    float32.

    Raises:
        ValueError: An argument is wrong; the shapes differ; there are no labels though bounded, or
            labels of another shape.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    teacher, student = np.float32([[1.0], [3.0]]), np.float32([[2.0], [2.1]])
    labels = np.float32([0.0, 2.0])
    np.testing.assert_allclose(kd.losses.RegressionKD()(teacher, student), [1.0, 0.81], rtol=1e-6)
    bounded = kd.losses.RegressionKD(bounded=True)
    np.testing.assert_allclose(bounded(teacher, student, labels=labels), [4.0, 0.0])
    ```

    Reference: Chen et al., "Learning Efficient Object Detection Models with Knowledge
    Distillation", NeurIPS 2017 (equation 4).
    """

    labels_are_numbers = True

    def __init__(
        self, loss: Any = "mse", bounded: bool = False, margin: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if loss not in ("mse", "smooth_l1") and (isinstance(loss, str) or not callable(loss)):
            raise ValueError(
                "Invalid value for argument `loss`. Expected 'mse', 'smooth_l1', a Keras loss or a "
                f"function. Received: loss={loss!r}"
            )
        bounded = validation.boolean("bounded", bounded)
        if bounded and loss != "mse":
            raise ValueError(
                f"RegressionKD(bounded=True) compares squared errors. Received: loss={loss!r}; "
                "leave it out."
            )
        self.loss, self.bounded = loss, bounded
        self.margin = validation.non_negative("margin", margin)
        if self.margin and not bounded:
            raise ValueError(
                "`margin` belongs to RegressionKD(bounded=True). Received: "
                f"margin={margin}, bounded={bounded}. Leave it out, or pass bounded=True."
            )

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes.check_shapes(self, teacher_outputs_shape, student_outputs_shape, what="numbers")
        super().build((teacher_outputs_shape, student_outputs_shape))

    def call(self, teacher_outputs: Any, student_outputs: Any, labels: Any = None) -> Any:
        if not self.bounded:
            return relations.distance(self, self.loss, teacher_outputs, student_outputs)
        if labels is None:
            raise ValueError(
                f"Distillation loss {self.name!r} needs labels, because bounded=True, and the data "
                "has none."
            )
        labels = keras.ops.cast(labels, "float32")
        if len(labels.shape) == len(student_outputs.shape) - 1:
            labels = keras.ops.expand_dims(labels, -1)
        if not projectors.shapes_agree(labels.shape, student_outputs.shape):
            raise ValueError(
                f"Distillation loss {self.name!r} compares labels with outputs of shape "
                f"{tuple(student_outputs.shape)}. Received: labels of shape {tuple(labels.shape)}."
            )
        of_teacher, of_student = (
            keras.ops.sum(keras.ops.square(x - labels), axis=-1)
            for x in (teacher_outputs, student_outputs)
        )
        worse = of_student + self.margin > of_teacher
        return keras.ops.where(worse, of_student, 0.0)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        loss = self.loss
        config["loss"] = (
            loss if isinstance(loss, str) else keras.saving.serialize_keras_object(loss)
        )
        config["bounded"], config["margin"] = self.bounded, self.margin
        return config
