"""`causal_lm`: the next-token distribution of a larger language model."""

from typing import Any

import keras

from keras_kd import losses
from keras_kd.recipes.recipe import Recipe, Stage, mask_of


def causal_lm(
    teacher: Any,
    student: keras.Model,
    temperature: float = 1.0,
    divergence: str = "forward_kl",
    alpha: float = 0.5,
    mask_input: str | None = None,
    **options: Any,
) -> Recipe:
    """Language models: cross-entropy and divergence of each token, without the logits.

    `alpha * hard + (1 - alpha) * T^2 KL` by `keras_kd.losses.TokenKD`. With the reverse divergence
    and sequences that the student samples itself (`keras_kd.language.OnPolicy`) it is MiniLLM's
    direction; `divergence="jsd"` is GKD's.

    Args:
        teacher: A language model, or any teacher that gives logits (a cache).
        student: A language model, such as a `CausalLM` of KerasHub.
        temperature: `T`.
        divergence: `"forward_kl"`, `"reverse_kl"` or `"jsd"`.
        alpha: The share of the labels, from 0 to 1.
        mask_input: See `distilbert`.
        **options: Others of `TokenKD`.

    Returns:
        A `Recipe` of one stage.

    Example:

    ```python
    import keras
    import keras_kd as kd

    def language_model(width):
        ids = keras.Input((6,), dtype="int32")
        hidden = keras.layers.Embedding(100, width)(ids)
        return keras.Model(ids, keras.layers.Dense(100)(hidden))

    recipe = kd.recipes.causal_lm(language_model(16), language_model(8), temperature=2.0)
    distiller = recipe.distiller()
    ```

    References:
        Kim and Rush, "Sequence-Level Knowledge Distillation", https://arxiv.org/abs/1606.07947
        Agarwal et al., "On-Policy Distillation of Language Models",
        https://arxiv.org/abs/2306.13649
    """
    stage = Stage(
        "tokens",
        teacher,
        student,
        [losses.TokenKD(temperature, divergence, **options)],
        {"alpha": alpha, "beta": 1.0 - alpha, **mask_of(student, mask_input)},
    )
    return Recipe("causal language model", "https://arxiv.org/abs/2306.13649", [stage])
