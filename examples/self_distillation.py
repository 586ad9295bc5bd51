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

import comparison
import keras
from quickstart import parsed

import keras_kd as kd


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


def main():
    parser = comparison.parser(__doc__, METHODS, "self_distillation_output")
    parser.set_defaults(alpha=0.5, beta=0.5)
    add = parser.add_argument
    add("--ema-decay", type=float, default=0.99)
    add("--confidence", type=float, default=0.95, help="of the virtual teacher")
    add("--virtual-temperature", type=float, default=20.0)
    add("--exit-beta", type=float, default=1.0, help="weight of the final exit as a teacher")
    comparison.compare(
        parsed(parser),
        METHODS,
        comparison.no_teacher,
        "One student, itself as a teacher",
        bases={EARLY: EARLY_BASE},
    )


if __name__ == "__main__":
    main()
