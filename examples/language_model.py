"""Distill a small language model, and compare four ways to learn from its teacher.

Trains a small GPT-2 of KerasHub on the docstrings of Python's standard library, then for every seed
the same smaller one four times: on the texts alone; with the teacher's next-token distributions
(`TokenKD`, without any logits); on texts that the teacher writes (sequence-level distillation); and
half of the time on texts that the student writes itself (on-policy). All students of a seed start
from the same weights and take the same number of steps. Prints the perplexity on modules that no
model has seen, and what teacher and student write.

    python examples/language_model.py
    python examples/language_model.py --methods "labels only" tokens --seeds 1

It needs the extra `hub` (KerasHub and tokenizers), and no network: the texts are on every machine.
"""

import ast
import os
import pathlib
import sysconfig
import types

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import keras_kd as kd

PAD, END = 0, 1
IGNORED = -100
METHODS = ("labels only", "tokens", "sequences", "on-policy")
# Packages of the standard library whose docstrings are for testing.
TESTED = ("asyncio", "email", "http", "logging", "unittest", "xml")


def language_model(
    methods=None,
    lines=20000,
    words=2000,
    length=48,
    teacher_width=128,
    student_width=32,
    epochs=3,
    seeds=3,
    learning_rate=0.003,
    temperature=1.0,
    share=0.5,
    output="language_model_output",
):
    """Distills a language model in several ways, and prints what each of them gave.

    Args:
        methods: Which of `METHODS`; default: all.
        lines: Rows of `length` tokens to train on, at most.
        words: Size of the vocabulary.
        length: Tokens of a row.
        teacher_width: Width of the teacher, of four blocks.
        student_width: Width of the student, of one block.
        epochs: Of each model.
        seeds: How many students are trained in each way.
        learning_rate: Of the students; the teacher's is a third of it.
        temperature: Of the divergence.
        share: Of the steps in which texts are sampled.
        output: A folder for the last student of each way.

    Returns:
        `{name: perplexity by seed}`.
    """
    args = checked(**locals())
    data = load_data(args)
    print(
        f"{len(data.train[1])} rows of {args.length} tokens to train on, {len(data.test[1])} to "
        f"test, {args.words} words"
    )
    keras.utils.set_random_seed(1000)
    teacher = make_model(args, blocks=4, width=args.teacher_width)
    fit(args, alone(args, teacher), data, rate=args.learning_rate / 3)
    found = {"teacher": [perplexity(args, teacher, data)]}
    print(f"teacher: perplexity {found['teacher'][0]:.1f}", flush=True)
    students = {}
    for seed in range(args.seeds):
        for name in args.methods:
            students[name] = train_student(args, data, teacher, name, seed)
            found.setdefault(name, []).append(perplexity(args, students[name], data))
            print(f"seed {seed}, {name}: perplexity {found[name][-1]:.1f}", flush=True)
    print_table(found, {"teacher": teacher, **students})
    print(verdict(found))
    print_samples(args, data, {"teacher": teacher, **students})
    for name, student in students.items():
        student.save(args.output / f"{name.replace(' ', '_')}.keras")
    return found


def checked(**given):
    """The arguments as attributes, if they make sense; makes the folder of results.

    Raises:
        ValueError: One of them is wrong.
        ImportError: A package is missing.
    """
    given["methods"] = list(METHODS if given["methods"] is None else given["methods"])
    for name in given["methods"]:
        if name not in METHODS:
            raise ValueError(f"`methods` must be of {METHODS}, received {name!r}")
    for name in ("lines", "epochs", "seeds", "teacher_width", "student_width"):
        if given[name] < 1:
            raise ValueError(f"`{name}` must be at least 1, received {given[name]}")
    if given["length"] < 16:
        raise ValueError(f"`length` must be at least 16, received {given['length']}")
    try:
        import keras_hub  # noqa: F401 only whether it is there
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{error}. Install keras_kd[hub].") from error
    given["output"] = output = pathlib.Path(given["output"])
    output.mkdir(parents=True, exist_ok=True)
    return types.SimpleNamespace(**given)


def docstrings():
    """`(package or module, text)` of the standard library, read and not imported."""
    root = pathlib.Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if parts[0] in ("site-packages", "test", "idlelib", "lib2to3") or "tests" in parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue  # files for tests of the parser itself
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        for node in ast.walk(tree):
            text = ast.get_docstring(node) if isinstance(node, kinds) else None
            if text and len(text) > 40:
                yield parts[0].removesuffix(".py"), text


def load_data(args):
    """Rows of tokens to train on and to test with, and the tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    texts = {"train": [], "test": []}
    for module, text in docstrings():
        texts["test" if module in TESTED else "train"].append(text)
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=args.words,
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts["train"], trainer)
    args.words = tokenizer.get_vocab_size()
    order = np.random.default_rng(0).permutation(len(texts["train"]))
    texts["train"] = [texts["train"][index] for index in order]
    parts = {
        name: rows_of(args, [each.ids for each in tokenizer.encode_batch(part)])
        for name, part in texts.items()
    }
    train = tuple(keras.tree.map_structure(lambda v: v[: args.lines], parts["train"]))
    return types.SimpleNamespace(train=train, test=parts["test"], tokenizer=tokenizer)


def rows_of(args, sequences):
    """Each text as one row, cut or padded: `(inputs, next tokens)`."""
    ids = np.full((len(sequences), args.length + 1), PAD, "int32")
    for row, sequence in zip(ids, sequences, strict=True):
        sequence = [*sequence, END][: args.length + 1]
        row[: len(sequence)] = sequence
    mask = ids != PAD
    prompt = np.zeros_like(ids[:, :-1])
    prompt[:, : args.length // 6] = 1  # where a text is sampled, it begins as the one in the data
    inputs = {
        "token_ids": ids[:, :-1],
        "padding_mask": mask[:, :-1].astype("int32"),
        "prompt_mask": prompt * mask[:, :-1],
    }
    return inputs, np.where(mask[:, 1:], ids[:, 1:], IGNORED)


def make_model(args, blocks, width):
    import keras_hub

    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=args.words,
        num_layers=blocks,
        num_heads=max(1, width // 32),
        hidden_dim=width,
        intermediate_dim=4 * width,
        max_sequence_length=args.length,
        dropout=0.0,
    )
    return keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)


ALONE = {"alpha": 1.0, "beta": 0.0, "mask_input": "padding_mask"}
TAUGHT = {"alpha": 0.2, "beta": 0.8, "mask_input": "padding_mask"}


def tokens(args):
    return kd.losses.TokenKD(temperature=args.temperature, ignore_class=IGNORED)


def alone(args, model):
    """A distiller that trains and evaluates a model without logits; its teacher never runs."""
    return kd.Distiller(make_model(args, 1, 8), model, tokens(args), **ALONE)


def train_student(args, data, teacher, name, seed):
    """One way to learn; all of a seed start from the same weights."""
    keras.utils.set_random_seed(seed)
    student = make_model(args, 1, args.student_width)
    distiller = alone(args, student)
    if name != "labels only":
        distiller = kd.Distiller(teacher, student, tokens(args), **TAUGHT)
    writers = {"sequences": "teacher", "on-policy": "student"}
    callbacks = []
    if name in writers:
        callbacks.append(kd.language.OnPolicy(args.share, writers[name], end_id=END, seed=seed))
    fit(args, distiller, data, seed, callbacks)
    return student


def fit(args, distiller, data, seed=0, callbacks=(), rate=None):
    steps = args.epochs * -(-len(data.train[1]) // 32)
    rate = keras.optimizers.schedules.CosineDecay(rate or args.learning_rate, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORED)
    distiller.compile(keras.optimizers.Adam(rate, clipnorm=1.0), loss=loss, jit_compile=False)
    batches = tf.data.Dataset.from_tensor_slices(data.train).shuffle(100_000, seed=seed).batch(32)
    distiller.fit(batches, epochs=args.epochs, shuffle=False, verbose=0, callbacks=list(callbacks))


def perplexity(args, model, data):
    """Of the test texts, by an evaluation that makes no logits."""
    distiller = alone(args, model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORED)
    distiller.compile("sgd", loss=loss)
    found = distiller.evaluate(*data.test, batch_size=64, verbose=0, return_dict=True)
    return found["perplexity"]


def print_table(found, models):
    print(f"\n{'':14}{'perplexity':>18}{'parameters':>13}")
    for name, values in found.items():
        spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
        count = models[name].count_params()
        print(f"{name:14}{f'{np.mean(values):.2f}{spread}':>18}{count:>13,}")
    print("±: standard deviation over seeds")


def verdict(found):
    """What the seeds show of each way against the texts alone, in percent of the perplexity."""
    base = found.get("labels only")
    said = []
    for name, values in found.items():
        if base is None or name in ("teacher", "labels only"):
            continue
        changes = 100 * (np.array(values) / np.array(base) - 1)
        listed = ", ".join(f"{change:+.1f}" for change in changes)
        error = np.std(changes, ddof=1) / len(changes) ** 0.5 if len(changes) > 1 else np.inf
        words = "outside of the noise" if abs(np.mean(changes)) > 2 * error else "within the noise"
        said.append(f"{name}: {np.mean(changes):+.1f} % (by seed: {listed}), {words}")
    return "Against the texts alone: " + "; ".join(said) if said else ""


def print_samples(args, data, models, prompt="Return the"):
    """What each model writes after a prompt, the most likely token each time."""
    ids = np.full((1, args.length), PAD, "int32")
    start = data.tokenizer.encode(prompt).ids
    ids[0, : len(start)] = start
    mask = np.arange(args.length)[None] < len(start)
    print()
    for name, model in models.items():
        model.compile(sampler="greedy")
        inputs = {"token_ids": tf.constant(ids), "padding_mask": tf.constant(mask)}
        made = model.generate_step(inputs, stop_token_ids=[END])
        kept = made["token_ids"].numpy()[0][np.array(made["padding_mask"])[0]]
        text = data.tokenizer.decode([int(each) for each in kept if each not in (PAD, END)])
        print(f"{name}: {' '.join(text.split())}")


def main():
    from command_line import run

    run(language_model, checked, {"methods": METHODS})


if __name__ == "__main__":
    main()
