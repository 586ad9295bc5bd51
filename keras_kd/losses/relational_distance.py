"""`RelationalDistance`: match the teacher's distances between samples (RKD)."""

from typing import Any

import keras

from keras_kd.losses import relations


@keras.saving.register_keras_serializable(package="keras_kd")
class RelationalDistance(relations.RelationalLoss):
    """Compares the distances between the samples of a batch (RKD-D).

    `l_i = 1/(n-1) sum_{j != i} huber(d^t_ij - d^s_ij)` with `d_ij = |f_i - f_j| / mu`, where `mu`
    is the mean distance between the samples. Widths of teacher and student may differ: no projector
    is needed. The authors' code divides by `n`, not `n - 1`.

    All samples of the batch on one replica are compared, those of sample weight 0 too: a sample's
    weight is that of its `l_i`. Memory: `n^2 * width` floats for each model.

    Args:
        **kwargs: `weight`, `output`, `teacher_layer`, `student_layer` and `name`, see
            `DistillationLoss`. Without layers the models' outputs are compared.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, width]` or `[batch, height,
    width, channels]`. Returns `[batch]`, float32; 0 for a batch of one sample.

    Raises:
        ValueError: The features are of another rank.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.RelationalDistance(teacher_layer="embedding", student_layer="embedding")
    teacher = np.random.normal(size=(8, 64)).astype("float32")
    assert loss(teacher, 3.0 * teacher).numpy().max() < 1e-6  # the scale does not matter
    ```

    Reference: Park et al., "Relational Knowledge Distillation", https://arxiv.org/abs/1904.05068
    """

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        others = keras.ops.maximum(relations.count(student_outputs) - 1.0, 1.0)
        difference = _relative(teacher_outputs, others) - _relative(student_outputs, others)
        return keras.ops.sum(relations.huber(difference), axis=1) / others


def _relative(features, others):
    """Distances `[batch, batch]` in units of their mean; all 0 where the rows are equal."""
    distances = keras.ops.squeeze(relations.norms(relations.differences(features)), -1)
    mean = keras.ops.mean(keras.ops.sum(distances, axis=1) / others)
    return relations.divided(distances, mean)
