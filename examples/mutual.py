"""Compare students that teach each other with one that has a teacher, and with one that has none.

For every seed the student of `quickstart.py` learns from the labels only, from a trained teacher,
and together with one or two others of its kind, which begin with other weights
(`keras_kd.MutualDistiller`). The first of them begins with the weights of the student that learns
alone. Prints a table with mean and spread over the seeds: the first one, and the mean of all;
saves a plot in `--output`.

    python examples/mutual.py
    python examples/mutual.py --methods "labels only" "2 peers" --train-samples 300

Two temperatures of the peers, 1 (as in the paper) and 4, were tried with `--evaluate-on validation`
and two peers; the other settings are those of `quickstart.py`, and the peers' weight of 1 is the
paper's.
"""

import os

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import comparison

import keras_kd as kd


def mutual(
    methods=None,
    peer_temperature=4.0,
    peer_beta=1.0,
    output="mutual_output",
    **settings,
):
    """Compares peers that teach each other with a teacher and with none, and prints a table.

    Args:
        methods: Names of the ways to learn, see `METHODS`; default: all.
        peer_temperature: Of the soft targets among peers.
        peer_beta: Weight of the other peers.
        output: A folder for the plot.
        **settings: The other arguments of `comparison.settings`: data set, seeds, epochs, rates.

    Returns:
        `{row: the students by seed}`, `{name: teacher}`.
    """
    own = {"peer_temperature": peer_temperature, "peer_beta": peer_beta}
    args = comparison.settings(METHODS, own, methods, output=output, **settings)
    title = "One student: alone, with a teacher, with peers"
    return comparison.compare(args, METHODS, teachers, title)


def soft_targets(trial):
    return trial.distill(trial.teachers["teacher"])


def peers(count):
    """A way to learn: `count` students that teach each other."""

    def learn(trial):
        models = [trial.new_student(number) for number in range(count)]
        args = trial.args
        soft = kd.losses.SoftTargets(args.peer_temperature)
        trial.train(kd.MutualDistiller(models, soft, alpha=1.0, beta=args.peer_beta))
        return {f"{count} peers, the first": models[0], f"{count} peers, mean of all": models}

    return learn


METHODS = {
    "labels only": comparison.labels_only,
    "soft targets": soft_targets,
    "2 peers": peers(2),
    "3 peers": peers(3),
}


def teachers(args, samples):
    """A trained teacher, if somebody learns from one."""
    if "soft targets" in args.methods:
        return comparison.one_teacher(args, samples)
    return {}


if __name__ == "__main__":
    comparison.main(mutual, METHODS)
