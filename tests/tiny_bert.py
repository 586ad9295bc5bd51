"""A folder with a tiny BERT of random weights, in the files of Hugging Face."""

import json
import string

import numpy as np

WIDTH, LAYERS, LENGTH, INNER = 16, 3, 64, 32
SPECIAL = {100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 0: "[PAD]"}
WORDS = ["library", "python", "module", "perl", "for", "the", "of", "and", "files"]


def words():
    characters = string.ascii_lowercase + string.digits + string.punctuation
    inside = [f"##{each}" for each in string.ascii_lowercase + string.digits]
    return [SPECIAL.get(i, f"[unused{i}]") for i in range(104)] + [*characters, *inside, *WORDS]


def write(folder):
    """Writes the files; returns the folder."""
    import tokenizers
    from safetensors.numpy import save_file
    from tokenizers import models, normalizers, pre_tokenizers, processors

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: i for i, word in enumerate(words())}
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    config = {
        "architectures": ["BertModel"],
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "max_position_embeddings": LENGTH,
        "model_type": "bert",
        "num_attention_heads": 2,
        "num_hidden_layers": LAYERS,
        "type_vocab_size": 2,
        "vocab_size": len(vocabulary),
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_weights(len(vocabulary)), folder / "model.safetensors", {"format": "pt"})
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL.values()))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _weights(size):
    rng = np.random.default_rng(0)
    found = {}

    def dense(name, inputs, outputs):
        found[f"{name}.weight"] = rng.normal(0, 0.3, (outputs, inputs)).astype("float32")
        found[f"{name}.bias"] = np.zeros(outputs, "float32")

    def norm(name):
        found[f"{name}.weight"] = np.ones(WIDTH, "float32")
        found[f"{name}.bias"] = np.zeros(WIDTH, "float32")

    for name, rows in (("word", size), ("position", LENGTH), ("token_type", 2)):
        table = rng.normal(0, 0.5, (rows, WIDTH)).astype("float32")
        found[f"embeddings.{name}_embeddings.weight"] = table
    norm("embeddings.LayerNorm")
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            dense(f"{layer}.attention.self.{name}", WIDTH, WIDTH)
        dense(f"{layer}.attention.output.dense", WIDTH, WIDTH)
        norm(f"{layer}.attention.output.LayerNorm")
        dense(f"{layer}.intermediate.dense", WIDTH, INNER)
        dense(f"{layer}.output.dense", INNER, WIDTH)
        norm(f"{layer}.output.LayerNorm")
    dense("pooler.dense", WIDTH, WIDTH)
    return found
