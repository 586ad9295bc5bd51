"""Recipes for encoders like BERT: `distilbert`, `tinybert`, `mobilebert`, `minilm`."""

from typing import Any

import keras

from keras_kd import losses
from keras_kd._utils import validation
from keras_kd.recipes.recipe import Recipe, Stage, attention_pair, block_pairs, mask_of


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
    of_blocks = _of_blocks(teacher, student, "mse", mask)
    if embeddings is not None:
        of_blocks.insert(0, losses.HiddenStates(*embeddings, name="embeddings", **mask))
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
    of_blocks = _of_blocks(teacher, student, "kl", mask)
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


def _of_blocks(
    teacher: keras.Model, student: keras.Model, attention_loss: str, mask: dict[str, Any]
) -> list[losses.DistillationLoss]:
    """Losses of the hidden states and of the attention of each pair of blocks."""
    found: list[losses.DistillationLoss] = []
    for number, pair in enumerate(block_pairs(teacher, student)):
        maps = attention_pair(teacher, student, pair)
        found += [
            losses.HiddenStates(*pair, name=f"hidden_{number}", **mask),
            losses.AttentionMaps(*maps, attention_loss, name=f"attention_{number}", **mask),
        ]
    return found


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
