"""Compare what a student learns from: labels, logits, hints between layers, attention.

Trains the teacher of `quickstart.py`, then for every seed the same student in several ways. All
start from the same weights and see the same batches for the same number of epochs. Prints a table
with mean and spread over the seeds; saves a plot in `--output`.

    python examples/feature_hints.py
    python examples/feature_hints.py --seeds 5 --train-samples 300 --evaluate-on validation

Three weights of hints (0.1, 1, 10) and of attention (1, 10, 100) were tried with `--evaluate-on
validation`; learning rate, temperature, alpha and beta are those of `quickstart.py`.
"""

import os

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import comparison

import keras_kd as kd


def feature_hints(
    methods=None,
    hint_weight=1.0,
    attention_weight=1.0,
    output="feature_hints_output",
    **settings,
):
    """Compares hints and attention with labels and soft targets, and prints a table.

    Args:
        methods: Names of the ways to learn, see `METHODS`; default: all.
        hint_weight: Of each `FeatureHint`.
        attention_weight: Of each `AttentionTransfer`.
        output: A folder for the plot.
        **settings: The other arguments of `comparison.settings`: data set, seeds, epochs, rates.

    Returns:
        `{row: the students by seed}`, `{name: teacher}`.
    """
    own = {"hint_weight": hint_weight, "attention_weight": attention_weight}
    args = comparison.settings(METHODS, own, methods, output=output, **settings)
    title = "One student, several ways to learn"
    return comparison.compare(args, METHODS, comparison.one_teacher, title)


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


def beside_labels(*makers):
    """A way to learn in which the labels count as much as without a teacher."""
    return lambda trial: trial.distill(
        trial.teachers["teacher"], [loss for make in makers for loss in make(trial.args)], 1, 1
    )


def with_soft_targets(*makers):
    """A way to learn in which the teacher's logits count for more than the labels."""
    return lambda trial: trial.distill(
        trial.teachers["teacher"],
        [loss for make in (soft_targets, *makers) for loss in make(trial.args)],
    )


METHODS = {
    "labels only": comparison.labels_only,
    "soft targets": with_soft_targets(),
    "hints": beside_labels(hints),
    "attention transfer": beside_labels(attention),
    "soft targets + hints": with_soft_targets(hints),
    "soft targets + attention": with_soft_targets(attention),
}


if __name__ == "__main__":
    comparison.main(feature_hints, METHODS)
