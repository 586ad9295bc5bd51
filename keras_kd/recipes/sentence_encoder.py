"""`sentence_encoder`: a smaller encoder gives the embeddings of a larger one."""

from typing import Any

import keras

from keras_kd import losses
from keras_kd.recipes.recipe import Recipe, Stage, mask_of


def sentence_encoder(
    teacher: keras.Model,
    student: keras.Model,
    teacher_layer: Any = None,
    student_layer: Any = None,
    pooling: str | None = "mean",
    loss: str = "mse",
    mask_input: str | None = None,
) -> Recipe:
    """Sentence encoders: the student's embedding of a text becomes the teacher's.

    The mean squared error of embeddings that are pooled over the positions that count, without
    labels; one projector where widths differ. Texts are all the data that it takes. The student is
    best made of the teacher's own layers (`keras_kd.students.shrink(teacher, layers=[...])`).

    Args:
        teacher: An encoder.
        student: A smaller one.
        teacher_layer: What is pooled, `[batch, time, width]`; default: the teacher's output.
        student_layer: The same of the student.
        pooling: `"mean"`, `"cls"`, `"max"`, or `None` where the models pool themselves.
        loss: `"mse"` or `"cosine"`.
        mask_input: See `distilbert`.

    Returns:
        A `Recipe` of one stage.

    Example:

    ```python
    import keras
    import keras_kd as kd

    def encoder(width):
        ids = keras.Input((6,), dtype="int32")
        return keras.Model(ids, keras.layers.Embedding(10, width)(ids))

    recipe = kd.recipes.sentence_encoder(encoder(16), encoder(8))
    distiller = recipe.distiller()
    ```

    Reference: Reimers and Gurevych, "Making Monolingual Sentence Embeddings Multilingual using
    Knowledge Distillation", https://arxiv.org/abs/2004.09813
    """
    mask = {} if pooling is None else mask_of(student, mask_input)
    stage = Stage(
        "embeddings",
        teacher,
        student,
        [losses.EmbeddingKD(teacher_layer, student_layer, pooling, loss, **mask)],
        {"alpha": 0.0, "beta": 1.0},
        {"learning_rate": 1e-4},
    )
    return Recipe("sentence encoder", "https://arxiv.org/abs/2004.09813", [stage])
