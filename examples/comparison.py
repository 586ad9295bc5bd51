"""What the comparisons in this folder share: settings, seeds, table, verdict and plot.

Each compares ways in which one student, that of `quickstart.py`, can learn. A way is a function
from a `Trial` to the student, or to `{row of the table: student or list of students}`. All
students of a seed start from the same weights and see the same samples in the same order for the
same number of epochs, where an example does not say otherwise.
"""

import dataclasses
import inspect
import types

import keras
import numpy as np
from matplotlib.figure import Figure
from quickstart import (
    CHOICES,
    checked,
    load_data,
    make_student,
    make_teacher,
    predict_classes,
    train,
    write,
)

import keras_kd as kd

BASE = "labels only"


def settings(
    known,
    own,
    /,
    methods=None,
    dataset="mnist5k",
    train_samples=None,
    width=8,
    seeds=3,
    epochs=None,
    learning_rate=0.02,
    temperature=4.0,
    alpha=0.1,
    beta=0.9,
    evaluate_on="test",
    output="comparison_output",
):
    """What all comparisons are given, as attributes, if it makes sense.

    Args:
        known: `{name: way to learn}`.
        own: The arguments that one comparison has alone.
        methods: Names of the ways to compare; default: all.
        dataset: One of `quickstart.DATASETS`.
        train_samples: Labeled samples; default: by data set.
        width: Filters of the student's first layer.
        seeds: How many students are trained in each way.
        epochs: Of each model; default: by data set.
        learning_rate: Of the students.
        temperature: Of the soft targets.
        alpha: Weight of the labels.
        beta: Weight of the teacher.
        evaluate_on: `"test"` or `"validation"`.
        output: A folder for the plot.
    """
    given = {name: value for name, value in locals().items() if name not in ("known", "own")}
    given["methods"] = list(known if methods is None else methods)
    return checked({**CHOICES, "methods": list(known)}, **given, **own)


def main(function, methods):
    """The command line of a comparison."""
    from command_line import run

    shared = inspect.signature(settings).parameters

    def check(**given):
        own = {name: given.pop(name) for name in list(given) if name not in shared}
        settings(methods, own, **given)

    run(function, check, {**CHOICES, "methods": list(methods)}, settings)


@dataclasses.dataclass
class Trial:
    """What a way to learn is given: the settings, the samples, a seed, and `{name: teacher}`."""

    args: types.SimpleNamespace
    samples: tuple
    seed: int
    teachers: dict

    def new_student(self, number=0):
        """The student of this seed; with a number another one, from other weights."""
        keras.utils.set_random_seed(self.seed + 100 * number)
        return make_student("cnn", self.samples[0].shape[1:], self.args.width)

    def train(self, model, samples=None, **options):
        """Trains on the samples, or on these, as `quickstart.py` does; returns what `fit` gives."""
        samples = samples or self.samples
        rate = self.args.learning_rate
        return train(model, samples, self.seed, self.args.epochs, rate, **options)

    def distill(self, teacher, losses=None, alpha=None, beta=None):
        """The student of this seed after it has learned from labels and teacher."""
        student = self.new_student()
        self.train(self.distiller(teacher, student, losses, alpha, beta))
        return student

    def distiller(self, teacher, student, losses=None, alpha=None, beta=None):
        """A `Distiller`, as the settings say."""
        return kd.Distiller(
            teacher,
            student,
            losses or kd.losses.SoftTargets(self.args.temperature),
            alpha=self.args.alpha if alpha is None else alpha,
            beta=self.args.beta if beta is None else beta,
        )


def labels_only(trial):
    student = trial.new_student()
    trial.train(student)
    return student


def one_teacher(args, samples, seed=1000):
    """`{"teacher": the teacher of quickstart.py}`, trained."""
    keras.utils.set_random_seed(seed)
    teacher = make_teacher(samples[0].shape[1:])
    train(teacher, samples, seed, args.epochs, learning_rate=0.001)
    return {"teacher": teacher}


def no_teacher(args, samples):
    return {}


def compare(args, methods, make_teachers, title, bases=None):
    """Trains, prints the table and saves the plot.

    Args:
        args: What `settings` gives.
        methods: `{name: way to learn}`.
        make_teachers: A function from options and samples to `{name: model}`.
        title: Of the plot.
        bases: `{row: row}` where a gain is not that over the labels only.

    Returns:
        `{row: the students by seed}`, `{name: teacher}`.
    """
    samples, judged = load_data(args)
    print(f"{args.dataset}: {len(samples[0])} to train on, {len(judged[1])} for {args.evaluate_on}")
    teachers = make_teachers(args, samples)
    students, scores = {}, {}
    for seed in range(args.seeds):
        for method in args.methods:
            taught = methods[method](Trial(args, samples, seed, teachers))
            for row, student in (taught if isinstance(taught, dict) else {method: taught}).items():
                students.setdefault(row, []).append(student)
                scores.setdefault(row, []).append(accuracy(student, judged))
                print(f"seed {seed}, {row}: {scores[row][-1]:.2f} %", flush=True)
    of_teachers = {name: accuracy(teacher, judged) for name, teacher in teachers.items()}
    print_table(of_teachers, scores, bases or {})
    write(args.output / "accuracy.png", lambda path: plot(path, of_teachers, scores, title))
    print(f"Wrote a plot to {args.output}")
    return students, teachers


def accuracy(models, samples):
    """Of a model, or the mean of several, in percent."""
    images, labels = samples
    models = models if isinstance(models, list) else [models]
    return 100 * float(np.mean([predict_classes(model, images) == labels for model in models]))


def print_table(of_teachers, scores, bases):
    print(f"\n{'':28}{'accuracy, %':>16}{'gain over labels only':>26}")
    for name, found in of_teachers.items():
        print(f"{name:28}{found:>16.2f}")
    gains = gains_of(scores, bases)
    for row, found in scores.items():
        print(f"{row:28}{spread(found):>16}", end="")
        print(f"{spread(gains[row], '+'):>26}" if row in gains else "")
    count = len(next(iter(scores.values())))
    print(f"±: standard deviation over {count} seeds, of the gains seed by seed")
    for row, base in bases.items():
        if row in gains:
            print(f"{row}: gain over {base}")
    unclear = [row for row, found in gains.items() if count > 1 and not is_clear(found)]
    if unclear:
        print(f"Within the noise of so few seeds: {', '.join(unclear)}")


def gains_of(scores, bases):
    """`{row: gains by seed}` of the rows that have something to be compared with."""
    own = {BASE, *bases.values()}
    compared = {row: bases.get(row, BASE) for row in scores if row not in own}
    return {
        row: np.subtract(scores[row], scores[base])
        for row, base in compared.items()
        if base in scores
    }


def spread(values, sign="", digits=2):
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.{digits}f}{deviation}"


def is_clear(gains):
    """Whether the mean is more than two standard errors away from 0."""
    return abs(np.mean(gains)) > 2 * np.std(gains, ddof=1) / len(gains) ** 0.5


def plot(path, of_teachers, scores, title):
    figure = Figure(figsize=(7, 1.5 + 0.45 * len(scores)), layout="constrained")
    axes = figure.subplots()
    for number, (name, found) in enumerate(of_teachers.items()):
        color = "black" if len(of_teachers) == 1 else f"C{number + 1}"
        axes.axvline(found, color=color, linestyle="--", label=name)
    for row, (name, found) in enumerate(scores.items()):
        axes.scatter(found, [row] * len(found), color="tab:blue", alpha=0.6)
        axes.scatter([np.mean(found)], [row], color="tab:red", marker="|", s=300, label=None)
        axes.text(min(found), row + 0.2, name, fontsize="small")
    axes.set(xlabel="accuracy (%)", yticks=[], title=title, ylim=(-0.5, len(scores) - 0.3))
    if of_teachers:
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
