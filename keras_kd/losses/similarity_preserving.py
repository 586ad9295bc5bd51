"""`SimilarityPreserving`: match which samples are alike to the teacher (SP)."""

from typing import Any

import keras

from keras_kd.losses import relations


@keras.saving.register_keras_serializable(package="keras_kd")
class SimilarityPreserving(relations.RelationalLoss):
    """Compares how similar the samples of a batch are to each model (SP).

    `l_i = 1/n sum_j (G^t_ij - G^s_ij)^2`, where `G` is the Gram matrix `F F^T` of the features,
    each of its rows divided by its norm. The mean over the batch is the paper's
    `|G^t - G^s|^2 / n^2`. Widths and sizes may differ: no projector is needed.

    All samples of the batch on one replica are compared, those of sample weight 0 too: a sample's
    weight is that of its `l_i`.

    Args:
        **kwargs: `weight`, `output`, `teacher_layer`, `student_layer` and `name`, see
            `DistillationLoss`. Without layers the models' outputs are compared.

    Call arguments: `teacher_outputs` and `student_outputs`, `[batch, width]` or `[batch, height,
    width, channels]`. Returns `[batch]`, float32.

    Raises:
        ValueError: The features are of another rank.

    Example:

    ```python
    import numpy as np
    import keras_kd as kd

    loss = kd.losses.SimilarityPreserving(teacher_layer="block4", student_layer="block2")
    features = np.random.normal(size=(8, 4, 4, 16)).astype("float32")
    assert loss(features, 2.0 * features).numpy().max() < 1e-6
    ```

    Reference: Tung and Mori, "Similarity-Preserving Knowledge Distillation",
    https://arxiv.org/abs/1907.09682
    """

    def call(self, teacher_outputs: Any, student_outputs: Any) -> Any:
        difference = _similarities(teacher_outputs) - _similarities(student_outputs)
        return keras.ops.mean(difference * difference, axis=1)


def _similarities(features):
    rows = relations.vectors(features)
    gram = keras.ops.matmul(rows, keras.ops.transpose(rows))
    return relations.divided(gram, relations.norms(gram))
