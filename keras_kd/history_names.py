"""The history has one entry for each name, so a metric may not be called as a loss is."""

import keras

# What `keras.distillation.Distiller` calls its losses, which its users monitor.
OF_KERAS = ("total_loss", "student_loss", "distillation_loss")


def uses_keras_names(losses, student_loss_weight):
    """Whether a distiller was spelled as `keras.distillation.Distiller` is.

    Args:
        losses: As its argument `distillation_losses`.
        student_loss_weight: As its argument of this name.
    """
    given = losses if isinstance(losses, (list, tuple)) else [losses]
    of_keras = any(isinstance(loss, keras.distillation.DistillationLoss) for loss in given)
    return of_keras or student_loss_weight is not None


def with_keras_names(logs):
    """Logs that have the losses by the names of `keras.distillation`, too, where they are known."""
    if "hard_loss" not in logs:
        return logs
    return {**logs, "total_loss": logs["loss"], "student_loss": logs["hard_loss"]}


def check(metrics, losses, output_names):
    """Refuses a metric that would take the place of a loss in the history.

    Args:
        metrics: What `compile` was given: metrics, functions or names, in any structure.
        losses: The names of the losses.
        output_names: The student's; of several, Keras puts them before the names of metrics.

    Raises:
        ValueError: Two would have one entry.
    """
    if output_names and len(output_names) > 1:
        return
    taken = sorted({_name(metric) for metric in keras.tree.flatten(metrics)} & {*losses, "loss"})
    if taken:
        raise ValueError(
            f"A metric is called {taken[0]!r}, and so is a loss of the distiller: the history has "
            "one entry for both. Give the metric another name, or the distillation loss one by its "
            "argument `name`."
        )


def _name(metric):
    if metric is None or isinstance(metric, str):
        return metric
    return getattr(metric, "name", getattr(metric, "__name__", None))
