"""`RelationalAngle`: match the teacher's angles between samples (RKD)."""

from typing import Any

import keras

from keras_kd.losses import relations


@keras.saving.register_keras_serializable(package="keras_kd")
class RelationalAngle(relations.RelationalLoss):
    """Compares the angles that the samples of a batch form with each other (RKD-A).

    `l_j = 1/((n-1)(n-2)) sum_{i != k} huber(cos^t_ijk - cos^s_ijk)`, where `cos_ijk` is the cosine
    of the angle at sample `j` between `i` and `k`, 0 where two of them are equal. Widths of
    teacher and student may differ: no projector is needed. The authors' code divides by `n^2`.

    All samples of the batch on one replica are compared, those of sample weight 0 too: a sample's
    weight is that of its `l_j`. Memory: `n^2 * width` and `n^3` floats for each model.

    Args:
        **kwargs: `weight`, `output`, `teacher_layer`, `student_layer` and `name`, see
            `DistillationLoss`. Without layers the models' outputs are compared.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, width]` or `[batch, height,
    width, channels]`. Returns `[batch]`, float32; 0 for a batch of fewer than three samples.

    Raises:
        ValueError: The features are of another rank.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.RelationalAngle(teacher_layer="embedding", student_layer="embedding")
    teacher = np.random.normal(size=(8, 64)).astype("float32")
    assert loss(teacher, 3.0 * teacher + 1.0).numpy().max() < 1e-6
    ```

    Reference: Park et al., "Relational Knowledge Distillation", https://arxiv.org/abs/1904.05068
    """

    min_batch_size = 3

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        # A row forms no angle with itself.
        values = relations.huber(_cosines(teacher_outputs) - _cosines(student_outputs))
        values = values * relations.distinct(student_outputs)
        n = relations.count(student_outputs)
        return keras.ops.sum(values, axis=(1, 2)) / keras.ops.maximum((n - 1.0) * (n - 2.0), 1.0)


def _cosines(features):
    """`[j, i, k]`: the cosine of the angle at row `j` between rows `i` and `k`."""
    steps = relations.differences(features)
    directions = relations.divided(steps, relations.norms(steps))
    return keras.ops.matmul(directions, keras.ops.swapaxes(directions, 1, 2))
