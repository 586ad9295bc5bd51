"""`distilbert`: soft targets, cosine of the last hidden states, masked language modeling."""

import keras

from keras_kd import losses
from keras_kd.recipes.recipe import Recipe, Stage, block_pairs, mask_of


def distilbert(
    teacher: keras.Model,
    student: keras.Model,
    temperature: float = 2.0,
    mask_input: str | None = None,
) -> Recipe:
    """DistilBERT: half of the layers, initialized from the teacher, with a triple loss.

    `5 * T^2 KL + 2 * hard + 1 * (1 - cos)` with `T = 2`, the weights of its published training:
    soft targets, the hard loss (masked language modeling, or the task's own when a fine-tuned
    teacher is distilled), and the cosine between the last hidden states. The student is made by
    `keras_kd.students.shrink(teacher, layers=[0, 2, 4, ...])`.

    Args:
        teacher: A model of blocks whose outputs are logits, such as a `BertTextClassifier` or a
            `BertMaskedLM` of KerasHub.
        student: The same with fewer blocks; of any width.
        temperature: `T`.
        mask_input: The student's input that is 0 where there is padding; default:
            `"padding_mask"`, if it has that.

    Returns:
        A `Recipe` of one stage.

    Raises:
        ValueError: The models have no blocks.

    Example:

    ```python
    import keras
    import keras_kd as kd

    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(8)

        def call(self, inputs):
            return inputs + self.dense(inputs)

    def network(depth):
        inputs = keras.Input((6, 8))
        x = inputs
        for _ in range(depth):
            x = Block()(x)
        return keras.Model(inputs, keras.layers.Dense(4)(x))

    recipe = kd.recipes.distilbert(network(4), network(2))
    print(recipe)
    distiller = recipe.distiller()
    ```

    Reference: Sanh et al., "DistilBERT, a distilled version of BERT",
    https://arxiv.org/abs/1910.01108
    """
    last = block_pairs(teacher, student)[-1]
    mask = mask_of(student, mask_input)
    stage = Stage(
        "distillation",
        teacher,
        student,
        [
            losses.SoftTargets(temperature, weight=5.0),
            losses.CosineHidden(*last, weight=1.0, **mask),
        ],
        {"alpha": 2.0, "beta": 1.0},
        {"learning_rate": 5e-4, "epochs": 3},
    )
    return Recipe("distilbert", "https://arxiv.org/abs/1910.01108", [stage])
