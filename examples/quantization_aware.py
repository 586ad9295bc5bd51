"""What saves a student from its rounding: training for it, or training for it with a teacher?

For each seed one student is distilled in float, and then rounded in four ways, to int8 and int4:

- PTQ: post-training quantization, `to_tflite` rounds what was trained;
- longer, PTQ: the same, of a student that was trained further in float with the teacher;
- QAT: it is trained further on the labels, with its weights and activations rounded;
- QAT, distilled: the same, with the teacher.

The three trainings take the same number of epochs from the same weights, so that "longer, PTQ"
differs from "QAT, distilled" by the rounding alone; "PTQ" is what users have who train no further.
All accuracies are those of the `.tflite` files, on the test set; "same class" tells in how many of
its images a file agrees with the model it was written from.

    python examples/quantization_aware.py
    python examples/quantization_aware.py --student cnn --width 24 --learning-rate 0.01
    python examples/quantization_aware.py --student minimalistic --learning-rate 0.01

Needs `pip install 'keras-kd[examples,export]'`.
"""

import os
import pathlib
import tempfile

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from comparison import is_clear, spread
from matplotlib.figure import Figure
from quickstart import load_data, make_teacher, train, write
from to_device import OPTIONS, STUDENTS, checked_for_files, distiller, train_student

import keras_kd as kd


def quantization_aware(
    dataset="mnist5k",
    train_samples=None,
    student="separable",
    width=8,
    seeds=3,
    epochs=None,
    aware_epochs=None,
    learning_rate=0.08,
    temperature=4.0,
    schemes=("int8", "int4"),
    evaluate_on="test",
    output="quantization_aware_output",
):
    """Rounds a student of each seed in four ways, prints their accuracies, and saves a plot.

    Args:
        dataset: One of `quickstart.DATASETS`.
        train_samples: Labeled samples; default: by data set.
        student: One of `to_device.STUDENTS`.
        width: Filters of the student's first layer, where it has a width.
        seeds: How many students are distilled.
        epochs: Of each model in float; default: by data set.
        aware_epochs: With rounding; default: a third of `epochs`.
        learning_rate: Of the students, at first.
        temperature: Of the soft targets.
        schemes: `"int8"`, `"int4"`.
        evaluate_on: `"test"` or `"validation"`.
        output: A folder for the plot.

    Returns:
        `{(scheme, way): TFLiteExport}` of each seed, a list.
    """
    args = check(**locals())
    samples, judged_by = load_data(args)
    print(f"{args.dataset}: {len(samples[0])} to train on, {len(judged_by[1])} to judge by")
    keras.utils.set_random_seed(1000)
    teacher = make_teacher(samples[0].shape[1:])
    train(teacher, samples, 1000, args.epochs, learning_rate=0.001)
    found = []
    for number in range(args.seeds):
        found.append(Seed(args, teacher, samples, judged_by, number).run())
        print(f"seed {number}: done", flush=True)
    print_table(found)
    for scheme in args.schemes:
        for way in WAYS[:2]:
            print(verdict(found, scheme, way))
    write(args.output / "accuracy.png", lambda path: plot(path, found))
    return found


SCHEMES = ["int8", "int4"]
FLOAT = ("float32", "trained as long")
WAYS = ["PTQ", "longer, PTQ", "QAT", "QAT, distilled"]
CHOICES = {**OPTIONS, "schemes": SCHEMES}


def check(**given):
    """The arguments as attributes, if they make sense."""
    args = checked_for_files(CHOICES, **given)
    if args.aware_epochs is None:
        args.aware_epochs = -(-args.epochs // 3)
    if args.aware_epochs < 1:
        raise ValueError(f"`aware_epochs` must be at least 1, received {args.aware_epochs}")
    return args


class Seed:
    """The models of one seed, and their files."""

    def __init__(self, args, teacher, samples, judged_by, seed):
        self.args, self.teacher, self.samples, self.judged_by = args, teacher, samples, judged_by
        keras.utils.set_random_seed(seed)
        self.student = STUDENTS[args.student](samples[0].shape[1:], args.width)
        model = distiller(teacher, self.student, args.temperature)
        train_student(model, samples, args.epochs, args.learning_rate)

    def further(self, wrap, with_teacher):
        """A copy of the student, trained further in `wrap(copy)`."""
        copy = keras.models.clone_model(self.student)
        copy.set_weights(self.student.get_weights())
        trained = wrap(copy)
        model = distiller(self.teacher, trained, self.args.temperature) if with_teacher else trained
        train_student(model, self.samples, self.args.aware_epochs, self.args.learning_rate / 5)
        data = tf.data.Dataset.from_tensor_slices(self.samples[0]).batch(50)
        kd.quantization.recalibrate(trained, data, verbose=0)
        return trained

    def aware(self, scheme, with_teacher):
        images = self.samples[0][:300]
        return self.further(
            lambda student: kd.quantization_aware(student, scheme, images), with_teacher
        )

    def file(self, model, quantization=None):
        """The `TFLiteExport` of the model's file."""
        with tempfile.TemporaryDirectory() as folder:
            return kd.export.to_tflite(
                model,
                pathlib.Path(folder) / "student.tflite",
                quantization,
                representative_data=self.samples[0][:300],
                data=self.judged_by,
                min_agreement=0.0,
                verbose=0,
            )

    def run(self):
        """`{(scheme, way): TFLiteExport}`."""
        longer = self.further(lambda student: student, with_teacher=True)
        found = {("float32", "distilled"): self.file(self.student), FLOAT: self.file(longer)}
        for scheme in self.args.schemes:
            for way, model in zip(WAYS[:2], (self.student, longer), strict=True):
                found[scheme, way] = self.file(model, scheme)
            for way, with_teacher in zip(WAYS[2:], (False, True), strict=True):
                found[scheme, way] = self.file(self.aware(scheme, with_teacher))
        return found


def accuracies(found, key):
    """In percent, of each seed."""
    return np.array([100 * each[key].accuracy for each in found])


def print_table(found):
    header = f"{'accuracy, %':>14}{'of float32, points':>20}{'size, KB':>10}{'same class, %':>15}"
    print(f"\n{'':8}{'':17}{header}")
    for scheme, way in found[0]:
        files = [each[scheme, way] for each in found]
        values = accuracies(found, (scheme, way))
        lost = values - accuracies(found, FLOAT)
        size = np.mean([file.bytes for file in files]) / 1000
        agreed = min(100 * file.agreement for file in files)
        print(
            f"{scheme:8}{way:17}{spread(values):>14}{spread(lost, '+'):>20}"
            f"{size:>10.1f}{agreed:>15.2f}"
        )
    print("of float32: trained as long. ±: standard deviation over seeds. same class: the least")


def verdict(found, scheme, way):
    """What the seeds show of one scheme against one way to round afterwards, and no more."""
    gains = accuracies(found, (scheme, WAYS[-1])) - accuracies(found, (scheme, way))
    listed = ", ".join(f"{gain:+.2f}" for gain in gains)
    words = f"{scheme}: aware and distilled against {way} {np.mean(gains):+.2f} points"
    noisy = len(gains) < 2 or not is_clear(gains)
    return f"{words} (by seed: {listed})" + (": within the noise." if noisy else ".")


def plot(path, found):
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    names = [f"{scheme}\n{way}" for scheme, way in found[0]]
    for seed, each in enumerate(found):
        values = [100 * file.accuracy for file in each.values()]
        axes.plot(names, values, marker="o", linestyle="none", label=f"seed {seed}")
    axes.tick_params("x", rotation=45)
    axes.set(ylabel="accuracy of the file (%)", title="Rounding, and training for it")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def main():
    from command_line import run

    run(quantization_aware, check, CHOICES)


if __name__ == "__main__":
    main()
