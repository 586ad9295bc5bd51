"""Compare one teacher with several that answer together, and the ways to combine them.

Trains three teachers of one architecture on the same samples, from different weights and in
different orders, then for every seed the same student: on the labels only, from the best of the
three, and from `keras_kd.teachers.Ensemble` with each way to combine. Which one is best the
validation part says. Prints a table with mean and spread over the seeds, and the accuracy of the
teachers and of the ensembles; saves a plot in `--output`.

    python examples/multi_teacher.py
    python examples/multi_teacher.py --methods "labels only" "best teacher" "mean_logits"

All settings are those of `quickstart.py`. `per_sample_best` looks at the labels while it teaches;
its own accuracy is that without labels, where the surest member answers.
"""

import os

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import types

import comparison
import keras
from quickstart import load_data

import keras_kd as kd


def multi_teacher(
    methods=None,
    output="multi_teacher_output",
    **settings,
):
    """Compares one teacher with three that answer together, and prints a table.

    Args:
        methods: Names of the ways to learn, see `METHODS`; default: all.
        output: A folder for the plot.
        **settings: The other arguments of `comparison.settings`: data set, seeds, epochs, rates.

    Returns:
        `{row: the students by seed}`, `{name: teacher}`.
    """
    args = comparison.settings(METHODS, {}, methods, output=output, **settings)
    title = "One student, one teacher or three"
    return comparison.compare(args, METHODS, make_teachers, title)


SEEDS = (1000, 1001, 1002)
COMBINE = ("mean_logits", "mean_probabilities", "confidence", "per_sample_best")


def members(teachers):
    return [teachers[f"teacher {number}"] for number in range(len(SEEDS))]


def best_teacher(trial):
    """Learns from the teacher that is best on the validation part."""
    chosen = types.SimpleNamespace(**{**vars(trial.args), "evaluate_on": "validation"})
    _, validation = load_data(chosen)
    best = max(
        members(trial.teachers), key=lambda teacher: comparison.accuracy(teacher, validation)
    )
    return trial.distill(best)


def ensemble(combine):
    """A way to learn: from all teachers, combined."""
    return lambda trial: trial.distill(
        kd.teachers.Ensemble(members(trial.teachers), combine=combine)
    )


METHODS = {
    "labels only": comparison.labels_only,
    "best teacher": best_teacher,
    **{combine: ensemble(combine) for combine in COMBINE},
}


def make_teachers(args, samples):
    """Three teachers, and the ensembles that students learn from as models to be judged."""
    made = {
        f"teacher {number}": comparison.one_teacher(args, samples, seed)["teacher"]
        for number, seed in enumerate(SEEDS)
    }
    of_three, shape = members(made), samples[0].shape[1:]
    for combine in COMBINE:
        if combine in args.methods:
            together = kd.teachers.Ensemble(of_three, combine=combine)
            made[f"({combine})"] = keras.Sequential([keras.Input(shape), together])
    return made


if __name__ == "__main__":
    comparison.main(multi_teacher, METHODS)
