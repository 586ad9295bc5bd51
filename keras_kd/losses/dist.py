"""`DIST`: correlation instead of divergence, for much stronger teachers."""

from typing import Any

import keras

from keras_kd._utils import validation
from keras_kd.losses import base, relations
from keras_kd.losses import shapes as loss_shapes
from keras_kd.ops.arguments import temperature_squared


@keras.saving.register_keras_serializable(package="keras_kd")
class DIST(loss_shapes.LogitsLoss):
    """Correlation of the softened probabilities, within rows and within classes.

    `l_i = T^2 (inter_class * (1 - r(p_i, q_i)) + intra_class * mean_c (1 - r(p_c, q_c)))` with
    Pearson's correlation `r` and `p = softmax(teacher / T)`, `q = softmax(student / T)`: of a
    row's classes, and of a class over the rows of the batch on one replica, those of sample
    weight 0 too. The second term is the same for each row. The correlation with something constant
    is 0.

    Args:
        temperature: `T`, a positive number. Live, as `weight`.
        inter_class: Factor of the relation between the classes of a row, at least 0.
        intra_class: Factor of the relation between the rows within a class, at least 0.
        **kwargs: `from_logits` and `teacher_from_logits`, see `SoftTargets`; `weight`, `output`,
            `name` and the others of `DistillationLoss`.

    Call arguments: `teacher_outputs` and `student_outputs`, logits `[batch, classes]`. Returns
    `[batch]`, float32.

    Raises:
        ValueError: An argument is out of its range; or, when the distiller is built, a model ends
            in softmax, or the shapes are others.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.DIST(temperature=2.0)
    logits = np.random.normal(size=(8, 10)).astype("float32")
    assert loss(logits, logits).numpy().max() < 1e-5
    ```

    Reference: Huang et al., "Knowledge Distillation from A Stronger Teacher",
    https://arxiv.org/abs/2205.10536
    """

    has_temperature = True
    min_batch_size = 2
    takes_infinite = True

    def __init__(
        self,
        temperature: float = 1.0,
        inter_class: float = 1.0,
        intra_class: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(temperature=temperature, **kwargs)
        base.refuse_mask(self, relations.WHOLE_ROWS)
        self.inter_class = validation.non_negative("inter_class", inter_class)
        self.intra_class = validation.non_negative("intra_class", intra_class)

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes = tuple(teacher_outputs_shape), tuple(student_outputs_shape)
        if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
            raise ValueError(
                f"Distillation loss {self.name!r} expects logits of one shape, [batch, classes]. "
                f"Received: teacher {shapes[0]}, student {shapes[1]}."
            )
        if shapes[0][1] == 1:
            raise ValueError(f"Distillation loss {self.name!r}: {loss_shapes.ONE_VALUE}.")
        super().build(shapes)

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        teacher_outputs, student_outputs = self.logits(teacher_outputs, student_outputs)
        t = keras.ops.convert_to_tensor(self.temperature_variable)
        p = keras.ops.softmax(teacher_outputs / t)
        q = keras.ops.softmax(student_outputs / t)
        inter = _one_minus_correlation(p, q)
        columns = keras.ops.transpose(p), keras.ops.transpose(q)
        intra = keras.ops.mean(_one_minus_correlation(*columns))
        return temperature_squared(t) * (self.inter_class * inter + self.intra_class * intra)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config["inter_class"], config["intra_class"] = self.inter_class, self.intra_class
        return config


def _one_minus_correlation(a, b):
    """One minus Pearson's, over the last axis."""
    a, b = (x - keras.ops.mean(x, axis=-1, keepdims=True) for x in (a, b))
    norms = relations.norms(a), relations.norms(b)
    difference = relations.divided(a, norms[0]) - relations.divided(b, norms[1])
    # Of unit vectors 1 - a . b is |a - b|^2 / 2, which does not cancel where they are close.
    distance = 0.5 * keras.ops.sum(difference * difference, axis=-1)
    constant = keras.ops.squeeze(norms[0] * norms[1], -1) == 0
    return keras.ops.where(constant, 1.0, distance)
