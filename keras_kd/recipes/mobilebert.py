"""`mobilebert`: feature maps and attention of every block, then half soft targets."""

import keras

from keras_kd import losses
from keras_kd.recipes.recipe import Recipe, Stage, attention_pair, block_pairs, mask_of


def mobilebert(
    teacher: keras.Model,
    student: keras.Model,
    temperature: float = 1.0,
    mask_input: str | None = None,
) -> Recipe:
    """MobileBERT: as many blocks as the teacher has, thinner ones, learned block by block.

    Each block learns the mean squared error of feature maps and the divergence of attention after
    softmax; then the whole learns half from the labels and half from the soft targets
    (`alpha = beta = 0.5`). The paper trains the blocks of the first stage one after the other; here
    they learn at once, its "joint" variant. The student of the paper has equal numbers of blocks
    and heads; where they differ blocks are paired by depth, and heads are averaged.

    Args:
        teacher: A model of blocks with attention, whose outputs are logits.
        student: One with blocks that are narrower.
        temperature: `T` of the second stage.
        mask_input: See `distilbert`.

    Returns:
        A `Recipe` of the stages `"blocks"` and `"predictions"`.

    Raises:
        ValueError: The models have no blocks; or, when a distiller is built, attention scores
            cannot be read.

    Example:

    ```python
    import keras
    import keras_kd as kd

    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.attention = keras.layers.MultiHeadAttention(2, 4)

        def call(self, inputs):
            return inputs + self.attention(inputs, inputs)

    def network(width):
        inputs = keras.Input((6,), dtype="int32")
        x = keras.layers.Embedding(10, width)(inputs)
        x = Block()(Block()(x))
        return keras.Model(inputs, keras.layers.Dense(3)(x))

    recipe = kd.recipes.mobilebert(network(16), network(8))
    distiller = recipe.stages[0].distiller()
    ```

    Reference: Sun et al., "MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices",
    https://arxiv.org/abs/2004.02984
    """
    mask = mask_of(student, mask_input)
    of_blocks: list[losses.DistillationLoss] = []
    for number, pair in enumerate(block_pairs(teacher, student)):
        attention = attention_pair(teacher, student, pair)
        of_blocks += [
            losses.HiddenStates(*pair, name=f"hidden_{number}", **mask),
            losses.AttentionMaps(*attention, loss="kl", name=f"attention_{number}", **mask),
        ]
    stages = [
        Stage("blocks", teacher, student, of_blocks, {"alpha": 0.0, "beta": 1.0}),
        Stage(
            "predictions",
            teacher,
            student,
            [losses.SoftTargets(temperature)],
            {"alpha": 0.5, "beta": 0.5},
            {"learning_rate": 1.5e-3},
        ),
    ]
    return Recipe("mobilebert", "https://arxiv.org/abs/2004.02984", stages)
