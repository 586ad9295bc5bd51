"""Compare the ways in which a student can be its own teacher; there is no other.

For every seed the student of `quickstart.py` learns from the labels only, and from labels and

- another student of its kind, trained on the labels (`keras_kd.BornAgain`, generation 1), then
  from that one (generation 2): these begin with weights of their own;
- itself as it was an epoch ago (`Snapshot`);
- the running average of its weights (`EMA`), which is a model too and is judged as well;
- a teacher made of the labels (`VirtualTeacher`);
- its own output, which teaches an exit on the last convolution (`DeepestExit`; there alpha is 1).
  The exit is compared with the same exit that learns from the labels only.

Prints a table with mean and spread over the seeds; saves a plot in `--output`.

    python examples/self_distillation.py
    python examples/self_distillation.py --methods "labels only" "virtual teacher"

Two mixtures of labels and teacher, alpha and beta 0.5 and 0.5, or 0.1 and 0.9, were tried with
`--evaluate-on validation` and two seeds; the first did better over all ways together. Nothing else
was tuned.
"""

import os

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import comparison
import keras

import keras_kd as kd


def self_distillation(
    methods=None,
    alpha=0.5,
    beta=0.5,
    ema_decay=0.99,
    confidence=0.95,
    virtual_temperature=20.0,
    exit_beta=1.0,
    output="self_distillation_output",
    **settings,
):
    """Compares the ways in which a student teaches itself, and prints a table.

    Args:
        methods: Names of the ways to learn, see `METHODS`; default: all.
        alpha: Weight of the labels.
        beta: Weight of the teacher.
        ema_decay: Of the running average.
        confidence: Of the virtual teacher.
        virtual_temperature: Of its soft targets.
        exit_beta: Weight of the final exit as a teacher.
        output: A folder for the plot.
        **settings: The other arguments of `comparison.settings`: data set, seeds, epochs, rates.

    Returns:
        `{row: the students by seed}`, `{name: teacher}`.
    """
    own = {
        "ema_decay": ema_decay,
        "confidence": confidence,
        "virtual_temperature": virtual_temperature,
        "exit_beta": exit_beta,
    }
    args = comparison.settings(
        METHODS, own, methods, alpha=alpha, beta=beta, output=output, **settings
    )
    title, teachers = "One student, itself as a teacher", comparison.no_teacher
    return comparison.compare(args, METHODS, teachers, title, bases={EARLY: EARLY_BASE})


def born_again(trial):
    args = trial.args
    generation_0 = comparison.labels_only(trial)
    sequence = kd.BornAgain(
        trial.new_student(),
        generations=2,
        distillation_losses=kd.losses.SoftTargets(args.temperature),
        alpha=args.alpha,
        beta=args.beta,
        teacher=generation_0,
    )
    students = trial.train(sequence).students
    return {f"born again, generation {i}": student for i, student in enumerate(students, 1)}


def snapshot(trial):
    student = trial.new_student()
    distiller = trial.distiller(kd.teachers.Snapshot(student), student)
    trial.train(distiller, callbacks=[kd.callbacks.SnapshotTeacher()])
    return student


def running_average(trial):
    student = trial.new_student()
    teacher = kd.teachers.EMA(student, trial.args.ema_decay)
    trial.train(trial.distiller(teacher, student))
    return {"running average": student, "running average itself": teacher.model}


def virtual(trial):
    args = trial.args
    teacher = kd.teachers.VirtualTeacher(args.confidence)
    return trial.distill(teacher, kd.losses.SoftTargets(args.virtual_temperature))


def exits(trial, beta):
    """`(final, early)`: the two classifiers of one student, as models."""
    args, student = trial.args, trial.new_student()
    layer = student.layers[1].name
    both = kd.students.add_exits(student, [layer])
    soft = {f"exit_{layer}": kd.losses.SoftTargets(args.temperature)}
    distiller = kd.Distiller(kd.teachers.DeepestExit("final"), both, soft, alpha=1.0, beta=beta)
    images, labels = trial.samples
    trial.train(distiller, samples=(images, dict.fromkeys(both.output_names, labels)))
    outputs = dict(zip(both.output_names, both.outputs, strict=True))
    return student, keras.Model(both.inputs, outputs[f"exit_{layer}"])


def exits_on_labels(trial):
    final, early = exits(trial, beta=0.0)
    return {"exits on labels, final": final, EARLY_BASE: early}


def deepest_exit(trial):
    final, early = exits(trial, beta=trial.args.exit_beta)
    return {"deepest exit, final": final, EARLY: early}


EARLY_BASE, EARLY = "exits on labels, early", "deepest exit, early"
METHODS = {
    "labels only": comparison.labels_only,
    "born again": born_again,
    "snapshot": snapshot,
    "running average": running_average,
    "virtual teacher": virtual,
    "exits on labels": exits_on_labels,
    "deepest exit": deepest_exit,
}


if __name__ == "__main__":
    comparison.main(self_distillation, METHODS)
