"""Small models of KerasHub that read and write texts; tokens are single letters, and "ab"."""

import keras
import keras_hub

LENGTH = 24
LETTERS = "abcdefgh"


def tokenizer():
    # Padding has the id 0, as in GPT-2.
    vocabulary = {each: i for i, each in enumerate([*LETTERS, "ab", "<|endoftext|>"])}
    return keras_hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=["a b"])


def causal(seed=7, sequence_length=LENGTH, preprocessor=True):
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


def translator(seed=0, encoder_sequence_length=LENGTH):
    """A BART of random weights."""
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.BartBackbone(
        vocabulary_size=len(LETTERS) + 6,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=LENGTH,
    )
    special = ["<s>", "<pad>", "</s>", "<mask>"]
    vocabulary = {each: i for i, each in enumerate([*special, *LETTERS, "ab"])}
    made = keras_hub.models.BartSeq2SeqLMPreprocessor(
        keras_hub.models.BartTokenizer(vocabulary=vocabulary, merges=["a b"]),
        encoder_sequence_length=encoder_sequence_length,
        decoder_sequence_length=12,
    )
    return keras_hub.models.BartSeq2SeqLM(backbone, preprocessor=made)
