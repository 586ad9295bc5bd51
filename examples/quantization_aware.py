"""What saves a student from its rounding: training for it, or training for it with a teacher?

For each seed one student is distilled in float, and then rounded in three ways, to int8 and int4:

- afterwards: `to_tflite` rounds what was trained (post-training quantization);
- aware: it is trained further on the labels, with its weights and activations rounded;
- aware, distilled: the same, with the teacher.

Both trainings take the same number of epochs from the same weights; the float student is also
trained that much further, so that rounding and not training is what is compared. All accuracies
are those of the `.tflite` files, on the test set.

    python examples/quantization_aware.py
    python examples/quantization_aware.py --student cnn --width 24 --learning-rate 0.01

Needs `pip install 'keras-kd[examples,export]'`.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from quickstart import load_data, make_teacher, parsed, train, write
from to_device import STUDENTS, check_extras, distiller, student_options, train_student

import keras_kd as kd

SCHEMES = ["int8", "int4"]
WAYS = ["afterwards", "aware", "aware, distilled"]


def parse():
    parser = student_options(__doc__, "quantization_aware_output", "separable", 8, 0.08)
    add = parser.add_argument
    add("--schemes", nargs="+", choices=SCHEMES, default=SCHEMES)
    add("--aware-epochs", type=int, help="with rounding; default: a third of --epochs")
    args = parsed(parser)
    check_extras(parser)
    if args.aware_epochs is None:
        args.aware_epochs = -(-args.epochs // 3)
    if args.aware_epochs < 1:
        parser.error(f"--aware-epochs must be at least 1, received {args.aware_epochs}")
    return args


class Seed:
    """The models of one seed, and the accuracies of their files."""

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
        kd.quantization.recalibrate(
            trained, tf.data.Dataset.from_tensor_slices(self.samples[0]).batch(50)
        )
        return trained

    def aware(self, scheme, with_teacher):
        images = self.samples[0][:300]
        return self.further(
            lambda student: kd.quantization_aware(student, scheme, images), with_teacher
        )

    def accuracy(self, model, quantization=None):
        """Of the model's file, in percent."""
        with tempfile.TemporaryDirectory() as folder:
            done = kd.export.to_tflite(
                model,
                pathlib.Path(folder) / "student.tflite",
                quantization,
                representative_data=self.samples[0][:300],
                data=self.judged_by,
                min_agreement=0.0,
            )
        return 100 * done.accuracy

    def run(self):
        """`{(scheme, way): accuracy}`."""
        longer = self.further(lambda student: student, with_teacher=True)
        found = {("float32", "trained as long"): self.accuracy(longer)}
        for scheme in self.args.schemes:
            models = [longer, self.aware(scheme, False), self.aware(scheme, True)]
            for way, model in zip(WAYS, models, strict=True):
                quantization = scheme if way == "afterwards" else None
                found[scheme, way] = self.accuracy(model, quantization)
        return found


def print_table(found):
    print(f"\n{'':10}{'':20}{'accuracy, %':>16}{'of float32, points':>22}")
    base = np.array([each["float32", "trained as long"] for each in found])
    for scheme, way in found[0]:
        values = np.array([each[scheme, way] for each in found])
        lost = values - base
        spread = [f" ± {np.std(x, ddof=1):.2f}" if len(x) > 1 else "" for x in (values, lost)]
        print(
            f"{scheme:10}{way:20}{f'{values.mean():.2f}{spread[0]}':>16}"
            f"{f'{lost.mean():+.2f}{spread[1]}':>22}"
        )
    print("±: standard deviation over seeds")


def verdict(found, scheme):
    """What the seeds show of one scheme, and no more."""
    gains = [each[scheme, "aware, distilled"] - each[scheme, "afterwards"] for each in found]
    listed = ", ".join(f"{gain:+.2f}" for gain in gains)
    words = f"{scheme}: aware and distilled against afterwards {np.mean(gains):+.2f} points"
    noisy = len(gains) < 2 or abs(np.mean(gains)) <= 2 * np.std(gains, ddof=1) / len(gains) ** 0.5
    return f"{words} (by seed: {listed})" + (": within the noise." if noisy else ".")


def plot(path, found):
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    names = [f"{scheme}\n{way}" for scheme, way in found[0]]
    for seed, each in enumerate(found):
        axes.plot(names, list(each.values()), marker="o", linestyle="none", label=f"seed {seed}")
    axes.tick_params("x", rotation=45)
    axes.set(ylabel="accuracy of the file (%)", title="Rounding, and training for it")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def main():
    args = parse()
    tf.config.experimental.enable_op_determinism()  # the same table each time, on one machine
    samples, judged_by = load_data(args)
    print(f"{args.dataset}: {len(samples[0])} to train on, {len(judged_by[1])} to judge by")
    keras.utils.set_random_seed(1000)
    teacher = make_teacher(samples[0].shape[1:])
    train(teacher, samples, 1000, args.epochs, learning_rate=0.001)
    found = []
    for seed in range(args.seeds):
        found.append(Seed(args, teacher, samples, judged_by, seed).run())
        print(f"seed {seed}: done", flush=True)
    print_table(found)
    for scheme in args.schemes:
        print(verdict(found, scheme))
    write(args.output / "accuracy.png", lambda path: plot(path, found))


if __name__ == "__main__":
    main()
