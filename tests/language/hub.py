"""Small models of KerasHub that read and write texts, with a tokenizer of single letters (and "ab")."""

import keras
import keras_hub

LENGTH = 24
LETTERS = "abcdefgh"


def tokenizer():
    vocabulary = {"<|endoftext|>": 0} | {each: i + 1 for i, each in enumerate([*LETTERS, "ab"])}
    return keras_hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=["a b"])


def causal(seed=0, sequence_length=LENGTH, preprocessor=True):
    """A GPT-2 of random weights that are large enough for its texts to differ."""
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=len(LETTERS) + 2,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=LENGTH,
    )
    for weight in backbone.trainable_weights:
        weight.assign(weight * 20.0)
    made = None
    if preprocessor:
        made = keras_hub.models.GPT2CausalLMPreprocessor(
            tokenizer(), sequence_length=sequence_length
        )
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=made)
    model.compile(sampler="top_k", jit_compile=False)
    return model
