"""`ProbabilisticTransfer`: match each sample's neighbors (PKT)."""

from typing import Any

import keras

from keras_kd.losses import relations

# Added to a similarity, which is 0 between opposite vectors, so that its logarithm stays finite.
SMALLEST = 1e-7


@keras.saving.register_keras_serializable(package="keras_kd")
class ProbabilisticTransfer(relations.RelationalLoss):
    """Divergence between the probabilities of the other samples to be a sample's neighbors.

    `l_i = sum_{j != i} p_ij log(p_ij / q_ij)` with `p_ij = K^t_ij / sum_{k != i} K^t_ik`, `q` the
    same of the student, and `K_ij = (cos(f_i, f_j) + 1) / 2 + 1e-7`. Widths may differ: no
    projector is needed. The authors' code also counts a sample as its own neighbor.

    All samples of the batch on one replica are compared, those of sample weight 0 too: a sample's
    weight is that of its `l_i`.

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

    loss = kd.losses.ProbabilisticTransfer(teacher_layer="embedding", student_layer="embedding")
    teacher = np.random.normal(size=(8, 64)).astype("float32")
    assert loss(teacher, 3.0 * teacher).numpy().max() < 1e-6  # the scale does not matter
    ```

    Reference: Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge
    Transfer", https://arxiv.org/abs/1803.10837
    """

    min_batch_size = 3

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        others = relations.distinct(student_outputs)
        teacher, student = (
            _neighbors(teacher_outputs, others),
            _neighbors(student_outputs, others),
        )
        # A row's own entry is 1 in both: it adds nothing.
        return keras.ops.sum(teacher * others * keras.ops.log(teacher / student), axis=1)


def _neighbors(features, others):
    """Probabilities `[i, j]`, and 1 for a row itself."""
    rows = relations.vectors(features)
    rows = relations.divided(rows, relations.norms(rows))
    kernel = (keras.ops.matmul(rows, keras.ops.transpose(rows)) + 1.0) / 2.0
    # Rounding takes the cosine of opposite vectors below -1.
    kernel = (keras.ops.maximum(kernel, 0.0) + SMALLEST) * others
    return relations.divided(kernel, keras.ops.sum(kernel, axis=1, keepdims=True)) + (1.0 - others)
