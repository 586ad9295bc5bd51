"""What type is this file? From magika, a published ONNX model, to a small file of integers.

The teacher tells 214 types of files apart by their bytes. Nobody has labeled the files of this
machine, and nobody needs to: the teacher runs over them once, into a cache, and the student learns
its probabilities alone (`alpha=0`). For comparison the same student learns only which type the
teacher finds likeliest. Files that no student has seen tell how often each agrees with the teacher;
then a student is written with 8-bit integers, and sizes and times are compared.

    python examples/file_type.py
    python examples/file_type.py --roots /usr/share ~/work --train-samples 12000

Needs `pip install 'keras-kd[examples,onnx,export,measure]'` and
`pip install --no-deps magika==1.0.3`, whose model is read and whose code is not.
"""

import collections
import hashlib
import importlib.util
import itertools
import json
import os
import pathlib
import sys

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from checks import check_packages, check_rates
from keras import layers
from to_device import checked_for_files
from training import shuffled

import keras_kd as kd

SIDE, FILLER = 1024, 256  # Bytes of either end, and what stands where a file has none.
BLOCK, SMALLEST = 4096, 8  # How much is read at either end; smaller files have no type.
BATCH = 64
FILES = "model.onnx", "config.min.json"


def file_type(
    train_samples=6000,
    test_samples=1500,
    roots=("/usr", sys.prefix),
    seeds=3,
    epochs=30,
    learning_rate=4e-3,
    temperature=2.0,
    teacher="magika",
    output="file_type_output",
):
    """Caches the teacher's probabilities for the files of this machine, and distills from them.

    Args:
        train_samples: Files to train on.
        test_samples: Files to judge by.
        roots: Folders whose files are taken.
        seeds: How many students are trained in each way.
        epochs: Of each student.
        learning_rate: At most.
        temperature: Of the soft targets.
        teacher: `"magika"`, the package, or a folder with its `model.onnx` and `config.min.json`.
        output: A folder for the teacher's outputs, the students and the file.

    Returns:
        `{name: [keras_kd.measurement.Measurement]}`, of students one for each seed.
    """
    args = checked_for_types(**locals())
    x, suffixes = read_files(args.roots, args.train_samples + args.test_samples)
    train, test = x[: args.train_samples], x[args.train_samples :]
    print(f"{len(train)} files to train on, {len(test)} to judge by, {suffixes} suffixes")

    magika = kd.teachers.OnnxTeacher(args.teacher / "model.onnx")
    # Files of a machine change: the outputs for others must not be taken for those of these.
    cache = args.output / f"cache-{hashlib.sha256(train.tobytes()).hexdigest()[:8]}"
    kd.cache_teacher(magika, batches(train), cache)
    answers = np.concatenate([magika(rows).numpy() for rows in batches(test)])

    found, students = collections.defaultdict(list), {}
    for seed in range(args.seeds):
        for name, loss in losses(args).items():
            keras.utils.set_random_seed(seed)
            student = students[name] = make_student(answers.shape[-1])
            train_from(cache, student, loss, train, args)
            found[name].append(compare(student, test, answers, from_logits=True, name=name))
    path = args.output / "file_type.tflite"
    student = students["probabilities"]
    options = {"representative_data": train[:500], "min_agreement": 0.0, "overwrite": True}
    kd.export.to_tflite(student, path, "int8", verbose=0, **options)  # the table tells the loss
    found["as int8"].append(compare(path, test, answers, from_logits=True, name="int8"))
    model = args.teacher / "model.onnx"
    few = slice(BATCH)  # it agrees with itself: what is measured are its size and time
    teacher = compare(model, test[few], answers[few], from_logits=False, name="teacher")
    found["teacher"].append(teacher)
    print_table(found)
    names = json.dumps(type_names(args.teacher))
    (args.output / "types.json").write_text(names, encoding="utf-8")
    print(f"Wrote {path.name} and types.json, the names of its outputs, to {args.output}")
    return dict(found)


class LikeliestType(kd.losses.DistillationLoss):
    """Cross-entropy with the type that the teacher finds likeliest: what pseudo-labels give."""

    def call(self, teacher_outputs, student_outputs):
        return keras.losses.sparse_categorical_crossentropy(
            keras.ops.argmax(teacher_outputs, axis=-1), student_outputs, from_logits=True
        )


def losses(args):
    """What students learn from: the teacher's answer, and how sure it is of each type."""
    return {
        "answers": LikeliestType(),
        "probabilities": kd.losses.SoftTargets(args.temperature, teacher_from_logits=False),
    }


def find_files(roots, count):
    """Paths of files, at least `count` where there are so many, evenly over their suffixes."""
    found = collections.defaultdict(list)
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders.sort()  # in place: the order in which they are walked
            for name in sorted(names):
                found[pathlib.Path(name).suffix.lower()].append(os.path.join(folder, name))
    rng = np.random.default_rng(0)
    groups = [rng.permutation(paths).tolist() for _, paths in sorted(found.items())]
    # One of each suffix, then a second: else most files of a machine are Python's.
    return (path for each in itertools.zip_longest(*groups) for path in each if path)


def read_files(roots, count):
    """`(bytes of count different files, in random order; how many suffixes they have)`."""
    rows, suffixes = {}, set()
    for path in find_files(roots, count):
        if len(rows) == count:
            break
        row = read_ends(path)
        if row is not None and row.tobytes() not in rows:
            rows[row.tobytes()] = row
            suffixes.add(pathlib.Path(path).suffix.lower())
    if len(rows) < count:
        raise ValueError(
            f"`roots` must hold {count} different files of at least {SMALLEST} bytes that can be "
            f"read, received {list(map(str, roots))} with {len(rows)}: pass more folders, or ask "
            "for fewer samples"
        )
    x = np.stack(list(rows.values()))
    return x[np.random.default_rng(0).permutation(count)], len(suffixes)


def read_ends(path):
    """What magika reads of a file: 1,024 bytes of either end, int32 `[2048]`."""
    if os.path.islink(path) or not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            first = file.read(BLOCK).lstrip()[:SIDE]
            file.seek(max(size - BLOCK, 0))
            last = file.read(BLOCK).rstrip()[-SIDE:]
    except PermissionError:
        return None
    if len(first) < SMALLEST:
        return None
    row = np.full(2 * SIDE, FILLER, "int32")
    row[: len(first)] = np.frombuffer(first, "uint8")
    row[2 * SIDE - len(last) :] = np.frombuffer(last, "uint8")
    return row


def batches(x):
    return tf.data.Dataset.from_tensor_slices(x).batch(BATCH)


def make_student(types, width=48):
    """A network of 50,000 parameters: four bytes at a time, convolutions, maxima of parts."""
    inputs = keras.Input((2 * SIDE,), dtype="int32", name="bytes")
    x = layers.Embedding(FILLER + 1, 12)(inputs)
    x = layers.Reshape((SIDE // 2, 48))(x)
    x = layers.Conv1D(width, 5, padding="same", activation="relu")(x)
    x = layers.Conv1D(width, 3, padding="same", activation="relu")(layers.MaxPooling1D(4)(x))
    x = layers.Flatten()(layers.MaxPooling1D(64)(x))  # a part for either end of the file
    x = layers.Dropout(0.1)(layers.Dense(64, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(types, name="types")(x))


def train_from(cache, student, loss, x, args):
    """Trains a student with the teacher's outputs alone: there are no labels."""
    distiller = kd.Distiller(kd.teachers.Cached(cache), student, loss, alpha=0.0)
    steps = args.epochs * -(-len(x) // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(args.learning_rate, steps)
    distiller.compile(keras.optimizers.Adam(schedule))
    data = shuffled(kd.load_cache(cache, batches(x)), len(x), BATCH)
    distiller.fit(data, epochs=args.epochs, shuffle=False, verbose=2)


def compare(model, x, answers, **options):
    """How often a model agrees with the teacher; the labels are the teacher's own answers."""
    return kd.measure(
        model,
        (x, answers.argmax(-1)),
        teacher=answers,
        teacher_from_logits=False,
        verbose=0,
        **options,
    )


def print_table(found):
    """A line for each model: means over seeds, and the standard deviation of the agreement."""
    print(f"\n{'':22}{'agreement':>16}{'KL, nats':>10}{'bytes':>12}{'us a file':>11}")
    for name, each in found.items():
        shares = [100 * one.teacher["agreement"] for one in each]
        spread = f" ± {np.std(shares, ddof=1):.1f}" if len(shares) > 1 else ""
        divergence = np.mean([one.teacher["kl"] for one in each])
        time = f"{each[0].latency['median_us']:,.0f}"
        print(
            f"{name:22}{f'{np.mean(shares):.1f}%{spread}':>16}{divergence:>10.3f}"
            f"{each[0].size['bytes']:>12,}{time:>11}"
        )
    print("of files that no student has seen; ±: standard deviation over seeds;")
    print("time: of a .tflite or .onnx file on one thread, of students TensorFlow's own threads")


def type_names(folder):
    """What the teacher's outputs mean."""
    config = json.loads((folder / "config.min.json").read_text(encoding="utf-8"))
    return config["target_labels_space"]


def checked_for_types(**given):
    """The arguments as attributes, if they make sense.

    Raises:
        ImportError: A package is missing.
        ValueError: An argument is wrong, or a folder lacks what it should hold.
    """
    check_packages({"onnxruntime": "'keras-kd[onnx]'"})
    if given["test_samples"] < 1:
        raise ValueError(f"`test_samples` must be at least 1, received {given['test_samples']}")
    check_rates(given)
    given["roots"] = [pathlib.Path(root).expanduser() for root in given["roots"]]
    given["teacher"] = teacher_folder(given["teacher"])
    for root in given["roots"]:
        if not root.is_dir():
            raise ValueError(f"`roots` must be folders, received {str(root)!r}")
    return checked_for_files(**given)


def teacher_folder(teacher):
    """Where the teacher's files are."""
    if teacher == "magika":
        found = importlib.util.find_spec("magika")
        if found is None:
            raise ImportError(
                "magika is missing, 16 MB with its model: pip install --no-deps magika==1.0.3. Or "
                "pass a folder with its files as `teacher`"
            )
        teacher = pathlib.Path(found.origin).parent / "models" / "standard_v3_3"
    folder = pathlib.Path(teacher)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"`teacher` must be 'magika' or a folder with {' and '.join(FILES)}, received "
            f"{str(folder)!r}, without {', '.join(missing)}"
        )
    return folder


def main():
    from command_line import run

    run(file_type, checked_for_types)


if __name__ == "__main__":
    main()
