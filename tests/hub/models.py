"""KerasHub's own classes, tiny and with random weights, and batches of what they take."""

import keras
import keras_hub
import numpy as np

TOKENS, LENGTH, CLASSES, MELS = 100, 12, 3, 8
_SEQUENCE = {"vocabulary_size": TOKENS, "max_sequence_length": LENGTH}


def bert_backbone(layers=4, width=32, heads=4, seed=0):
    keras.utils.set_random_seed(seed)
    return keras_hub.models.BertBackbone(
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=2 * width,
        num_segments=2,
        **_SEQUENCE,
    )


def bert_classifier(layers=4, width=32, heads=4, seed=0):
    """A teacher: it takes `segment_ids`, which a `distilbert_classifier` does not."""
    return keras_hub.models.BertTextClassifier(
        bert_backbone(layers, width, heads, seed), num_classes=CLASSES, preprocessor=None
    )


def distilbert_classifier(layers=2, width=16, heads=2, seed=1):
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.DistilBertBackbone(
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=2 * width,
        **_SEQUENCE,
    )
    return keras_hub.models.DistilBertTextClassifier(
        backbone, num_classes=CLASSES, preprocessor=None
    )


def gpt2(layers=3, width=16, heads=2, seed=0):
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.GPT2Backbone(
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=2 * width,
        **_SEQUENCE,
    )
    return keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)


def llama3(layers=3, width=16, heads=4, seed=0):
    """Its attention takes no `return_attention_scores`, and shares keys between queries."""
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.Llama3Backbone(
        vocabulary_size=TOKENS,
        num_layers=layers,
        num_query_heads=heads,
        num_key_value_heads=heads // 2,
        hidden_dim=width,
        intermediate_dim=2 * width,
    )
    return keras_hub.models.Llama3CausalLM(backbone, preprocessor=None)


def _grouped(layers, width, heads, **options):
    """Backbones whose queries share keys."""
    return {
        "vocabulary_size": TOKENS,
        "num_layers": layers,
        "num_query_heads": heads,
        "num_key_value_heads": heads // 2,
        "hidden_dim": width,
        "intermediate_dim": 2 * width,
        **options,
    }


def gemma(layers=3, width=16, heads=4, seed=0, **options):
    """The width of its heads is its own, its logits are capped."""
    keras.utils.set_random_seed(seed)
    options = {"head_dim": 8, "final_logit_soft_cap": 5.0, **options}
    backbone = keras_hub.models.GemmaBackbone(**_grouped(layers, width, heads, **options))
    return keras_hub.models.GemmaCausalLM(backbone, preprocessor=None)


def qwen(layers=3, width=16, heads=4, seed=0):
    """Of generation 2 and 2.5."""
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.QwenBackbone(**_grouped(layers, width, heads))
    return keras_hub.models.QwenCausalLM(backbone, preprocessor=None)


def qwen3(layers=3, width=16, heads=4, seed=0):
    """It normalizes queries and keys."""
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.Qwen3Backbone(**_grouped(layers, width, heads, head_dim=8))
    return keras_hub.models.Qwen3CausalLM(backbone, preprocessor=None)


def bart(layers=2, width=16, heads=2, seed=0):
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.BartBackbone(
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=2 * width,
        **_SEQUENCE,
    )
    return keras_hub.models.BartSeq2SeqLM(backbone, preprocessor=None)


def bart_backbone(layers=2, width=16, heads=2, seed=0):
    return bart(layers, width, heads, seed).backbone


def t5(layers=2, width=16, heads=2, seed=0):
    """Its layers return tuples, in which there may be `None`."""
    keras.utils.set_random_seed(seed)
    return keras_hub.models.T5Backbone(
        vocabulary_size=TOKENS,
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=2 * width,
        key_value_dim=width // heads,
    )


def whisper(layers=2, width=16, heads=2, seed=0):
    keras.utils.set_random_seed(seed)
    return keras_hub.models.WhisperBackbone(
        vocabulary_size=TOKENS,
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=2 * width,
        num_mels=MELS,
        max_encoder_sequence_length=LENGTH,
        max_decoder_sequence_length=LENGTH,
    )


def tokens(rows=8, seed=0, prefix=""):
    """`token_ids` and `padding_mask` of sequences that end in padding; the first one is full."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, LENGTH, rows)
    lengths[0] = LENGTH
    mask = np.arange(LENGTH) < lengths[:, None]
    ids = np.where(mask, rng.integers(1, TOKENS, (rows, LENGTH)), 0)
    return {
        f"{prefix}token_ids": ids.astype("int32"),
        f"{prefix}padding_mask": mask.astype("int32"),
    }


def other_padding(x, seed=1):
    """The same batch with other ids where there is padding: nothing may depend on them."""
    rng, other = np.random.default_rng(seed), dict(x)
    for name in x:
        if name.endswith("token_ids"):
            mask = x[name.replace("token_ids", "padding_mask")] != 0
            other[name] = np.where(mask, x[name], rng.integers(1, TOKENS, mask.shape)).astype(
                "int32"
            )
    return other


def pairs_of_segments(rows=8, seed=0):
    """What BERT takes, with both segments in each row; and labels."""
    x = tokens(rows, seed)
    x["segment_ids"] = ((np.arange(LENGTH) >= 2) * x["padding_mask"]).astype("int32")
    return x, np.random.default_rng(seed).integers(CLASSES, size=rows)


def next_tokens(rows=8, seed=0):
    """What a causal model takes; labels, and weights that are zero where the label is padding."""
    x = tokens(rows, seed)
    labels = np.roll(x["token_ids"], -1, axis=1)
    weights = np.roll(x["padding_mask"], -1, axis=1).astype("float32")
    weights[:, -1] = 0.0
    return x, labels, weights


def translations(rows=8, seed=0):
    """What T5 and BART take."""
    return {**tokens(rows, seed, "encoder_"), **tokens(rows, seed + 1, "decoder_")}


def speech(rows=8, seed=0):
    """What Whisper takes."""
    features = np.random.default_rng(seed).normal(size=(rows, LENGTH, MELS)).astype("float32")
    return {"encoder_features": features, **tokens(rows, seed, "decoder_")}
