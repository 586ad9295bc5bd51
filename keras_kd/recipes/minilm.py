"""`minilm`: the relations of one block's queries, keys and values."""

from typing import Any

import keras

from keras_kd import losses
from keras_kd._utils import validation
from keras_kd.recipes.recipe import Recipe, Stage, attention_pair, block_pairs, mask_of


def minilm(
    teacher: keras.Model,
    student: keras.Model,
    version: int = 2,
    relation_heads: int | None = None,
    teacher_layer: Any = None,
    student_layer: Any = None,
    mask_input: str | None = None,
) -> Recipe:
    """MiniLM: one block teaches one block; widths, depths and numbers of heads are free.

    Version 2 compares scaled dot products among queries, among keys and among values, split into
    `relation_heads` heads (`keras_kd.losses.SequenceRelations`). Version 1 compares the attention
    and the relation of values, and needs equal numbers of heads. No labels count (`alpha=0`), and
    what follows the blocks does not learn: fine-tune, or distill, the student on its task
    afterwards.

    Args:
        teacher: A model of blocks with attention.
        student: A model of blocks with attention.
        version: 1 or 2.
        relation_heads: Heads of the relations of version 2; default: the teacher's own number. The
            paper takes 48 for a teacher of 12, and 64 for one of 16.
        teacher_layer: The block or attention that teaches; default: the last one. For large
            teachers the paper takes one before it: 21 of 24.
        student_layer: The one that learns; default: the last.
        mask_input: See `distilbert`.

    Returns:
        A `Recipe` of one stage.

    Raises:
        ValueError: The models have no blocks, or an argument is wrong.

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

    def network(depth, width, heads):
        inputs = keras.Input((6,), dtype="int32")
        x = keras.layers.Embedding(10, width)(inputs)
        for _ in range(depth):
            x = Block(heads)(x)
        return keras.Model(inputs, x)

    recipe = kd.recipes.minilm(network(4, 16, 4), network(2, 8, 2), relation_heads=8)
    distiller = recipe.distiller()
    ```

    References:
        Wang et al., "MiniLM: Deep Self-Attention Distillation", https://arxiv.org/abs/2002.10957
        Wang et al., "MiniLMv2: Multi-Head Self-Attention Relation Distillation",
        https://arxiv.org/abs/2012.15828
    """
    if version not in (1, 2):
        raise validation.invalid("version", "1 or 2", repr(version))
    if version == 1 and relation_heads is not None:
        raise ValueError(
            "`relation_heads` is of version 2; version 1 compares attention head by head. "
            f"Received: relation_heads={relation_heads!r}"
        )
    if teacher_layer is None or student_layer is None:
        last = block_pairs(teacher, student)[-1]
        teacher_layer = last[0] if teacher_layer is None else teacher_layer
        student_layer = last[1] if student_layer is None else student_layer
    pair, mask = (teacher_layer, student_layer), mask_of(student, mask_input)
    if version == 1:
        chosen = [
            losses.AttentionMaps(*attention_pair(teacher, student, pair), loss="kl", **mask),
            losses.SequenceRelations(*pair, relations=["values"], **mask),
        ]
    else:
        chosen = [losses.SequenceRelations(*pair, relation_heads=relation_heads, **mask)]
    stage = Stage(
        "relations",
        teacher,
        student,
        chosen,
        {"alpha": 0.0, "beta": 1.0},
        {"learning_rate": 6e-4},
    )
    papers = {1: "https://arxiv.org/abs/2002.10957", 2: "https://arxiv.org/abs/2012.15828"}
    return Recipe(f"minilm, version {version}", papers[version], [stage])
