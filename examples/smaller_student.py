"""Searches a smaller student that is as good as the one of quickstart.py, and how to distill it.

`kd.tune` looks for students that no other beats in accuracy on validation data, bytes and latency
of the `.tflite` file: over width and layers of the student, temperature, weight of the labels and
learning rate. The first trial is the student of `quickstart.py`, with its settings. The smallest
student that is not worse on the validation data is then trained again with other seeds, beside that
of `quickstart.py`, and both are judged by the test data.

    python examples/smaller_student.py
    python examples/smaller_student.py --trials 20 --epochs 15

Needs `pip install 'keras-kd[examples,export,measure,tune]'`.
"""

import importlib.util
import os

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from comparison import is_clear, spread
from keras import layers
from quickstart import (
    CHOICES,
    checked,
    load_images,
    make_student,
    make_teacher,
    predict_classes,
    split,
    train,
)

import keras_kd as kd

NEEDED = {"optuna": "tune", "ai_edge_litert": "export", "sklearn": "measure"}
# Those of quickstart.py.
FIRST = {"kind": "flat", "width": 8, "temperature": 4.0, "alpha": 0.1, "learning_rate": 0.02}
SPACE = {
    "kind": ["flat", "deeper", "separable"],
    "width": [2, 3, 4, 6, 8],
    "temperature": {"low": 1.0, "high": 10.0, "log": True},
    "alpha": {"low": 0.0, "high": 0.5},
    "learning_rate": {"low": 0.003, "high": 0.05, "log": True},
}


def smaller_student(
    dataset="mnist5k",
    train_samples=None,
    trials=40,
    seeds=3,
    epochs=None,
    output="smaller_student_output",
):
    """Searches the front, and judges its smallest good student.

    Args:
        dataset: One of `quickstart.DATASETS`.
        train_samples: Labeled samples; default: by data set.
        trials: How many students the search trains.
        seeds: How many of each student are trained for the test data.
        epochs: Of each model; default: by data set.
        output: A folder for the search and the student.

    Returns:
        The `keras_kd.tuning.TuningResult`, and `{row: accuracy on test data by seed}`.
    """
    given = {"dataset": dataset, "train_samples": train_samples, "trials": trials, "seeds": seeds}
    args = checked_for_search(**given, epochs=epochs, output=output)
    samples, validation, test = load_parts(args)
    keras.utils.set_random_seed(1000)
    teacher = make_teacher(samples[0].shape[1:])
    train(teacher, samples, 1000, args.epochs, learning_rate=0.001)
    found = search(args, teacher, samples, validation)
    print(f"\nStudents that no other beats:\n{found.front}")
    first, chosen = found.trials[0], smallest_good(found)
    print(f"\nquickstart.py's: {first['accuracy']:.4f} on validation data, {first['bytes']:,.0f} B")
    rows = {"quickstart": first}
    if chosen is None:
        print("No smaller student of this space is as good on the validation data.")
    else:
        rows["smaller"] = chosen
    accuracies = {}
    for name, row in rows.items():
        students = [distilled(args, teacher, samples, row, seed) for seed in range(args.seeds)]
        hits = [predict_classes(student, test[0]) == test[1] for student in students]
        accuracies[name] = [100 * float(np.mean(each)) for each in hits]
    print_table(rows, accuracies)
    if chosen is not None:
        students[-1].save(args.output / "student.keras")
    return found, accuracies


def checked_for_search(**given):
    """The arguments, if they make sense and the packages are there."""
    for name, extra in NEEDED.items():
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"{name} is missing: pip install 'keras-kd[{extra}]'")
    if given["trials"] < 1:
        raise ValueError(f"`trials` must be at least 1, received {given['trials']}")
    return checked(CHOICES, **given)


def load_parts(args):
    """The samples to train on, to validate with and to test on."""
    rest, test = load_images(args.dataset)
    rest, validation = split(rest, fraction=1 / 3, seed=1)
    samples = tuple(array[: args.train_samples] for array in rest)
    counts = [len(each[0]) for each in (samples, validation, test)]
    print("{}: {} to train on, {} to validate with, {} to test on".format(args.dataset, *counts))
    return samples, validation, test


def student_of(settings, shape):
    """A student of this kind and width."""
    kind, width = settings["kind"], settings["width"]
    if kind == "flat":
        return make_student("cnn", shape, width)
    make = layers.Conv2D if kind == "deeper" else layers.SeparableConv2D
    strided = {"kernel_size": 3, "strides": 2, "padding": "same", "activation": "relu"}
    stack = [layers.Input(shape), layers.Conv2D(width, **strided), make(2 * width, **strided)]
    stack += [make(4 * width, **strided), layers.Flatten(), layers.Dense(10)]
    return keras.Sequential(stack, name="student")


def distiller(teacher, student, settings):
    alpha = settings["alpha"]
    losses = kd.losses.SoftTargets(settings["temperature"])
    return kd.Distiller(teacher, student, losses, alpha=alpha, beta=1 - alpha)


def search(args, teacher, samples, validation):
    shape = samples[0].shape[1:]
    return kd.tune(
        teacher,
        lambda settings: student_of(settings, shape),
        samples,
        validation,
        space={**SPACE, "batch_size": 50},
        defaults=FIRST,
        distiller=distiller,
        objective=["accuracy", "bytes", "latency_ms"],
        trials=args.trials,
        epochs=args.epochs,
        labels_only=False,
        directory=args.output / "search",
    )


def smallest_good(found):
    """The smallest student of the front that is not worse than the first one, or `None`."""
    first = found.trials[0]
    good = [row for row in found.front if row["accuracy"] >= first["accuracy"]]
    smallest = min(good, key=lambda row: row["bytes"])
    return smallest if smallest["bytes"] < first["bytes"] else None


def distilled(args, teacher, samples, settings, seed):
    keras.utils.set_random_seed(seed)
    student = student_of(settings, samples[0].shape[1:])
    made = distiller(teacher, student, settings)
    train(made, samples, seed, args.epochs, settings["learning_rate"])
    return student


def print_table(rows, accuracies):
    print(f"\n{'':14}{'kind':>10}{'width':>7}{'bytes':>9}{'us':>8}{'test, %':>16}")
    for name, row in rows.items():
        latency = 1000 * row["latency_ms"]
        print(f"{name:14}{row['kind']:>10}{row['width']:>7}{row['bytes']:>9,.0f}", end="")
        print(f"{latency:>8.1f}{spread(accuracies[name]):>16}")
    if "smaller" not in rows:
        return
    share = rows["smaller"]["bytes"] / rows["quickstart"]["bytes"]
    gains = np.subtract(accuracies["smaller"], accuracies["quickstart"])
    noise = "" if len(gains) > 1 and is_clear(gains) else ", within the noise of so few seeds"
    print(f"The smaller one has {share:.0%} of the bytes; accuracy {spread(gains, '+')}{noise}.")


def main():
    from command_line import run

    run(smaller_student, checked_for_search, CHOICES)


if __name__ == "__main__":
    main()
