"""`tinybert`: first hidden states and attention of all blocks, then the logits."""

from typing import Any

import keras

from keras_kd import losses
from keras_kd.recipes.recipe import Recipe, Stage, attention_pair, block_pairs, mask_of


def tinybert(
    teacher: keras.Model,
    student: keras.Model,
    embeddings: tuple[Any, Any] | None = None,
    temperature: float = 1.0,
    mask_input: str | None = None,
) -> Recipe:
    """TinyBERT: a student of any width learns the teacher's blocks, then its predictions.

    Block `m` of the student learns from the teacher's `m N / M`: the mean squared error of hidden
    states, through a projector where widths differ, and of attention logits before softmax. The
    first stage has these alone (`alpha=0`), the second the soft targets alone.

    Args:
        teacher: A model of blocks with attention, whose outputs are logits.
        student: One with fewer blocks.
        embeddings: `(teacher layer, student layer)`: the outputs of the embeddings, which the paper
            compares too; `None`: they are left out.
        temperature: `T` of the second stage.
        mask_input: See `distilbert`.

    Returns:
        A `Recipe` of the stages `"blocks"` and `"predictions"`.

    Raises:
        ValueError: The models have no blocks; or, when a distiller is built, attention logits
            cannot be read.

    Example:

    ```python
    import keras
    import keras_kd as kd

    class Block(keras.layers.Layer):
        def __init__(self, heads):
            super().__init__()
            self.attention = keras.layers.MultiHeadAttention(heads, 4)

        def call(self, inputs):
            return inputs + self.attention(inputs, inputs)

    def network(depth, width):
        inputs = keras.Input((6,), dtype="int32")
        x = keras.layers.Embedding(10, width)(inputs)
        for _ in range(depth):
            x = Block(2)(x)
        return keras.Model(inputs, keras.layers.Dense(3)(x))

    recipe = kd.recipes.tinybert(network(4, 16), network(2, 8))
    assert [stage.name for stage in recipe] == ["blocks", "predictions"]
    distiller = recipe.stages[0].distiller()
    ```

    Reference: Jiao et al., "TinyBERT: Distilling BERT for Natural Language Understanding",
    https://arxiv.org/abs/1909.10351
    """
    mask = mask_of(student, mask_input)
    pairs = block_pairs(teacher, student)
    of_blocks: list[losses.DistillationLoss] = []
    if embeddings is not None:
        of_blocks.append(losses.HiddenStates(*embeddings, name="embeddings", **mask))
    for number, pair in enumerate(pairs):
        attention = attention_pair(teacher, student, pair)
        of_blocks += [
            losses.HiddenStates(*pair, name=f"hidden_{number}", **mask),
            losses.AttentionMaps(*attention, loss="mse", name=f"attention_{number}", **mask),
        ]
    stages = [
        Stage(
            "blocks",
            teacher,
            student,
            of_blocks,
            {"alpha": 0.0, "beta": 1.0},
            {"learning_rate": 5e-5, "epochs": 20},
        ),
        Stage(
            "predictions",
            teacher,
            student,
            [losses.SoftTargets(temperature)],
            {"alpha": 0.0, "beta": 1.0},
            {"learning_rate": 3e-5, "epochs": 3},
        ),
    ]
    return Recipe("tinybert", "https://arxiv.org/abs/1909.10351", stages)
