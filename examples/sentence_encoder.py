"""A sentence encoder becomes half as deep, and then int8: all-MiniLM-L6-v2 of three layers.

The student keeps three layers of the teacher and the words in use, and learns the teacher's
embeddings of sentences, without any labels: synopses of Debian's packages, and docstrings of
Python's own library. Other docstrings judge it, whose body has to find its first line, and the
sections of other packages, which neighbors have to tell.

    python examples/sentence_encoder.py
    python examples/sentence_encoder.py --layers 2 5 --epochs 4

Needs `pip install 'keras-kd[examples,export,measure]'` and what `minilm.NEEDED` lists.
"""

import ast
import os
import pathlib
import sysconfig

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import debian
import keras
import minilm
import numpy as np
from comparison import spread
from to_device import checked_for_files

import keras_kd as kd


def sentence_encoder(
    train_samples=6000,
    pairs=500,
    layers=(1, 3, 5),
    hidden_weight=0.1,
    seeds=1,
    epochs=3,
    learning_rate=3e-4,
    length=32,
    source="excerpt",
    encoder="minilm",
    output="sentence_encoder_output",
):
    """Distills a student for each seed, writes it as files, and measures what each still finds.

    Args:
        train_samples: Sentences to learn from.
        pairs: Docstrings to judge by, and as many packages.
        layers: Numbers of the teacher's layers that the student keeps, from 0.
        hidden_weight: Weight of the last layer's hidden states beside that of the embeddings, 1.
        seeds: How many students are trained.
        epochs: Of each student.
        learning_rate: At most.
        length: Tokens of a sentence, at most.
        source: `"excerpt"` of the package lists, or `"apt"`: those of this machine.
        encoder: `"minilm"`, or the folder of another BERT of Hugging Face.
        output: A folder for the students, their files and the tokenizer.

    Returns:
        `{row of the table: [{name of a figure: figure}, by seed]}`.
    """
    args = checked_for_encoder(**locals())
    sentences, docstrings, packages = load(args)
    print(f"{len(sentences)} sentences to learn from, {len(docstrings)} docstrings to find")
    pretrained, tokenizer = minilm.trim(args, sentences)
    judge = Judge(tokenizer, docstrings, packages)
    data = model_inputs(tokenizer, sentences)
    teacher = embedder(minilm.shrunk(pretrained, name="encoder"), args.length)
    settings = "encoder", "source", "train_samples", "pairs", "length", "layers"
    cache = minilm.work_folder(args, *settings) / "cache"
    taps = [f"encoder/transformer_layer_{args.layers[-1]}"]
    kd.cache_teacher(teacher, minilm.batches(data), cache, taps=taps, verbose=0)
    found = {"teacher": [judge(teacher)], "student, untrained": [], "student": []}
    found |= {name: [] for name in FILES}
    for seed in range(args.seeds):
        keras.utils.set_random_seed(seed)
        student = embedder(minilm.shrunk(pretrained, args.layers, "encoder"), args.length)
        if not seed:
            found["student, untrained"].append(judge(student))
        distill(args, student, cache, data)
        found["student"].append(judge(student))
        student.save(args.output / f"student-{seed}.keras")
        for name in FILES:
            path = args.output / f"student-{seed}-{name}.tflite"
            found[name].append(judge(write_file(student, path, name, data)))
    print_table(found)
    print(f"Wrote the students, their files and the tokenizer to {args.output}")
    return found


def checked_for_encoder(**given):
    """`minilm.checked_for_text` of an example that writes files; what that needs is installed."""
    checked_for_files(OPTIONS, **given)
    if given["pairs"] < 20:
        raise ValueError(f"`pairs` must be at least 20, received {given['pairs']}")
    return minilm.checked_for_text(OPTIONS, **given)


OPTIONS = {"source": ["excerpt", "apt"]}
NEIGHBORS = 10
# How files are quantized: weights and activations, or weights alone.
FILES = "int8", "dynamic"


def docstring_pairs(min_body=80):
    """`[(body, first line)]` of the docstrings of Python's library, each first line once."""
    root = pathlib.Path(sysconfig.get_paths()["stdlib"])
    found = {}
    for path in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib"} & set(path.parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                first, _, body = (ast.get_docstring(node) or "").partition("\n\n")
                if len(body) > min_body and len(first.split()) > 2:
                    found.setdefault(" ".join(first.split()), " ".join(body.split()))
    return [(body, first) for first, body in found.items()]


def load(args):
    """Sentences to learn from; docstrings and packages to judge by, which are not among them."""
    rng = np.random.default_rng(0)
    pairs, lines = docstring_pairs(), debian.synopses(args.source)
    pairs, lines = ([rows[i] for i in rng.permutation(len(rows))] for rows in (pairs, lines))
    sentences = [text for pair in pairs[args.pairs :] for text in pair]
    # Neighbors are looked for among ten times as many packages.
    sentences += [synopsis for _, synopsis in lines[11 * args.pairs // 2 :]]
    sentences = [sentences[i] for i in rng.permutation(len(sentences))]
    if len(pairs) <= args.pairs or len(sentences) < args.train_samples:
        raise ValueError(
            f"`train_samples` must be at most {len(sentences)} beside {args.pairs} docstrings to "
            f"judge by, received {args.train_samples}: ask for fewer, or source='apt'"
        )
    return sentences[: args.train_samples], pairs[: args.pairs], lines[: 11 * args.pairs // 2]


def model_inputs(tokenizer, texts):
    found = minilm.encode(tokenizer, texts)
    return {name: found[name] for name in ("token_ids", "padding_mask")}


def embedder(encoder, length):
    """A model of token ids and padding mask: the mean of the hidden states that count."""
    inputs = {
        name: keras.Input((length,), dtype="int32", name=name)
        for name in ("token_ids", "padding_mask")
    }
    segments = keras.ops.zeros_like(inputs["token_ids"])
    states = encoder({**inputs, "segment_ids": segments})["sequence_output"]
    # Chosen, not multiplied: a mask that becomes numbers would be computed in float by the device.
    kept = keras.ops.expand_dims(inputs["padding_mask"], -1) > 0
    total = keras.ops.sum(keras.ops.where(kept, states, 0.0), axis=1)
    count = keras.ops.sum(keras.ops.where(kept, 1.0, 0.0), axis=1)
    return keras.Model(inputs, total / keras.ops.maximum(count, 1.0))


def distill(args, student, cache, data):
    old, new = args.layers[-1], len(args.layers) - 1
    layers = f"encoder/transformer_layer_{old}", f"encoder/transformer_layer_{new}"
    losses = [
        kd.losses.EmbeddingKD(pooling=None, loss="cosine"),
        kd.losses.HiddenStates(*layers, weight=args.hidden_weight, mask_input="padding_mask"),
    ]
    distiller = kd.Distiller(kd.teachers.Cached(cache), student, losses, alpha=0.0)
    dataset = kd.load_cache(cache, minilm.batches(data))
    minilm.fit(distiller, dataset, args.train_samples, args.epochs, args.learning_rate)


def write_file(student, path, quantization, data):
    """Writes the student with 8-bit weights, and activations; returns the file, opened."""
    options = {"task": "regression", "max_error": 10.0, "overwrite": True}  # the table tells
    if quantization == "int8":
        options["representative_data"] = {name: array[:200] for name, array in data.items()}
    kd.export.to_tflite(student, path, quantization, verbose=0, **options)
    return kd.runtimes.open_file(path)


class Judge:
    """What a model or its file still finds: it is called with one, and returns figures.

    Args:
        tokenizer: Of the models.
        docstrings: `[(body, first line)]`.
        packages: `[(section, synopsis)]`.
    """

    def __init__(self, tokenizer, docstrings, packages):
        self.texts = [model_inputs(tokenizer, each) for each in zip(*docstrings, strict=True)]
        self.synopses = model_inputs(tokenizer, [synopsis for _, synopsis in packages])
        self.sections = np.array([section for section, _ in packages])
        self.asked = len(packages) // 11

    def __call__(self, model):
        bodies, firsts = (embeddings(model, texts) for texts in self.texts)
        scores = bodies @ firsts.T
        ranks = (scores >= np.diag(scores)[:, None]).sum(axis=1)
        return {
            "recall@1": float(np.mean(ranks <= 1)),
            "recall@10": float(np.mean(ranks <= 10)),
            "section": self.section_accuracy(model),
        }

    def section_accuracy(self, model):
        """How often most of the nearest neighbors are of the package's section."""
        vectors = embeddings(model, self.synopses)
        asked, others = np.split(vectors, [self.asked])
        names, numbers = np.unique(self.sections, return_inverse=True)
        nearest = np.argsort(-(asked @ others.T), axis=1)[:, :NEIGHBORS]
        votes = np.eye(len(names))[numbers[self.asked :]][nearest].sum(axis=1)
        return float(np.mean(votes.argmax(axis=1) == numbers[: self.asked]))


def embeddings(model, inputs):
    """Of length 1, `[texts, width]`, by a Keras model or a file."""
    if isinstance(model, keras.Model):
        found = model.predict(inputs, batch_size=64, verbose=0)
    else:
        (found,) = model.run(inputs)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def print_table(found):
    names = list(found["teacher"][0])
    print(f"\n{'':20}" + "".join(f"{name:>18}" for name in names))
    for row, figures in found.items():
        cells = [spread([100 * each[name] for each in figures], digits=1) for name in names]
        print(f"{row:20}" + "".join(f"{cell:>18}" for cell in cells))
    print("percent; ±: standard deviation over seeds. recall: of first lines by their bodies;")
    print(f"section: what most of {NEIGHBORS} neighbors say of a package")
    kept = np.mean([each["recall@10"] for each in found["student"]])
    files = {name: np.mean([each["recall@10"] for each in found[name]]) for name in FILES}
    whole = found["teacher"][0]["recall@10"]
    print(
        f"Of recall@10 the student keeps {kept / max(whole, 1e-9):.1%} of the teacher's, ", end=""
    )
    shares = [f"{name} {share / max(kept, 1e-9):.1%}" for name, share in files.items()]
    print(f"{' and '.join(shares)} of the student's.")


def main():
    from command_line import run

    run(sentence_encoder, checked_for_encoder, OPTIONS)


if __name__ == "__main__":
    main()
