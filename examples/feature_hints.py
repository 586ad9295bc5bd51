"""Compare what a student learns from: labels, logits, hints between layers, attention.

Trains the teacher of `quickstart.py`, then for every seed the same student in several ways. All
start from the same weights and see the same batches for the same number of epochs. Prints a table
with mean and spread over the seeds; saves a plot in `--output`.

    python examples/feature_hints.py
    python examples/feature_hints.py --seeds 5 --train-samples 300 --evaluate-on validation

Three weights of hints (0.1, 1, 10) and of attention (1, 10, 100) were tried with `--evaluate-on
validation`; learning rate, temperature, alpha and beta are those of `quickstart.py`.
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from quickstart import (
    DATASETS,
    load_data,
    make_student,
    make_teacher,
    predict_classes,
    train,
    write,
)

import keras_kd as kd

# Layers of one height and width, by position, because Keras counts their names up: the teacher's
# poolings and the student's strided convolutions.
PAIRS = [(lambda m: m.layers[1], lambda m: m.layers[0])]
PAIRS += [(lambda m: m.layers[3], lambda m: m.layers[1])]


def soft_targets(args):
    return [kd.losses.SoftTargets(args.temperature)]


def hints(args):
    return [
        kd.losses.FeatureHint(*pair, weight=args.hint_weight, name=f"hint_{i}")
        for i, pair in enumerate(PAIRS)
    ]


def attention(args):
    return [
        kd.losses.AttentionTransfer(*pair, weight=args.attention_weight, name=f"attention_{i}")
        for i, pair in enumerate(PAIRS)
    ]


# Name: losses, and whether the labels count as much as without a teacher.
METHODS = {
    "labels only": (lambda args: None, True),
    "soft targets": (soft_targets, False),
    "hints": (hints, True),
    "attention transfer": (attention, True),
    "soft targets + hints": (lambda args: soft_targets(args) + hints(args), False),
    "soft targets + attention": (lambda args: soft_targets(args) + attention(args), False),
}


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--dataset", choices=list(DATASETS), default="mnist5k")
    add("--train-samples", type=int, help="labelled samples; default: by data set")
    add("--width", type=int, default=8, help="filters of the student's first layer")
    add("--seeds", type=int, default=3)
    add("--epochs", type=int, help="of each model; default: by data set")
    add("--learning-rate", type=float, default=0.02, help="of the students")
    add("--temperature", type=float, default=4.0)
    add("--alpha", type=float, default=0.1, help="weight of the labels beside soft targets")
    add("--beta", type=float, default=0.9, help="weight of the teacher beside the labels")
    add("--hint-weight", type=float, default=1.0)
    add("--attention-weight", type=float, default=1.0)
    add("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    add("--evaluate-on", choices=["test", "validation"], default="test")
    add("--output", type=pathlib.Path, default=pathlib.Path("feature_hints_output"))
    args = parser.parse_args()
    few, epochs = DATASETS[args.dataset]
    args.train_samples, args.epochs = args.train_samples or few, args.epochs or epochs
    return args


def train_student(args, method, samples, seed, teacher):
    keras.utils.set_random_seed(seed)  # the students of a seed start from the same weights
    student = make_student("cnn", samples[0].shape[1:], args.width)
    make_losses, labels_count = METHODS[method]
    losses = make_losses(args)
    model = student
    if losses is not None:
        alpha, beta = (1.0, 1.0) if labels_count else (args.alpha, args.beta)
        model = kd.Distiller(teacher, student, losses, alpha=alpha, beta=beta)
    train(model, samples, seed, args.epochs, args.learning_rate)
    return student


def run(args):
    """Returns the teacher's accuracy, and {method: accuracies by seed}."""
    samples, (images, labels) = load_data(args)
    print(f"{args.dataset}: {len(samples[0])} to train on, {len(labels)} for {args.evaluate_on}")
    keras.utils.set_random_seed(1000)
    teacher = make_teacher(samples[0].shape[1:])
    train(teacher, samples, 1000, args.epochs, learning_rate=0.001)

    def accuracy(model):
        return 100 * float(np.mean(predict_classes(model, images) == labels))

    scores = {method: [] for method in args.methods}
    for seed in range(args.seeds):
        for method, found in scores.items():
            found.append(accuracy(train_student(args, method, samples, seed, teacher)))
            print(f"seed {seed}, {method}: {found[-1]:.2f} %", flush=True)
    return accuracy(teacher), scores


def print_table(of_teacher, scores):
    print(f"\n{'':28}{'accuracy, %':>16}{'gain over labels only':>26}")
    print(f"{'teacher':28}{of_teacher:>16.2f}")
    base = scores.get("labels only")
    for method, found in scores.items():
        print(f"{method:28}{spread(found):>16}", end="")
        is_base = base is None or method == "labels only"
        print("" if is_base else f"{spread(np.subtract(found, base), '+'):>26}")
    count = len(next(iter(scores.values())))
    print(f"±: standard deviation over {count} seeds, of the gains seed by seed")
    if base is not None and count > 1:
        unclear = [
            method
            for method, found in scores.items()
            if method != "labels only" and not is_clear(np.subtract(found, base))
        ]
        if unclear:
            print(f"Within the noise of so few seeds: {', '.join(unclear)}")


def spread(values, sign=""):
    deviation = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.2f}{deviation}"


def is_clear(gains):
    """Whether the mean is more than two standard errors away from 0."""
    return abs(np.mean(gains)) > 2 * np.std(gains, ddof=1) / len(gains) ** 0.5


def plot(path, of_teacher, scores):
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.axvline(of_teacher, color="black", linestyle="--", label="teacher")
    for row, (method, found) in enumerate(scores.items()):
        axes.scatter(found, [row] * len(found), color="tab:blue", alpha=0.6)
        axes.scatter([np.mean(found)], [row], color="tab:red", marker="|", s=300, label=None)
        axes.text(min(found), row + 0.2, method, fontsize="small")
    axes.set(xlabel="accuracy (%)", yticks=[], title="One student, several ways to learn")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def main():
    args = parse()
    tf.config.experimental.enable_op_determinism()  # the same table each time, on one machine
    of_teacher, scores = run(args)
    print_table(of_teacher, scores)
    args.output.mkdir(parents=True, exist_ok=True)
    write(args.output / "accuracy.png", lambda path: plot(path, of_teacher, scores))
    print(f"Wrote a plot to {args.output}")


if __name__ == "__main__":
    main()
