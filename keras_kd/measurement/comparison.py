"""How near a model is to its teacher."""

import numpy as np

from keras_kd.measurement import probabilities, rows


def measure(of_model, outputs, from_logits, name="The teacher"):
    """The model against its teacher, means over the rows with their weights.

    `agreement`: the share of rows of the same class (of several labels: of answers).
    `kl = sum_c p_c (log p_c - log q_c)` in nats, teacher p, model q, at temperature 1; a
    probability of 0 counts as exp(-104); of several labels it is summed over them.
    `mean_abs_difference`: of the probabilities `|p_c - q_c|`, or of the numbers of a regression.

    Args:
        of_model: `Rows`.
        outputs: The teacher's outputs for all rows of the data.
        from_logits: Whether they are logits.
        name: Of the teacher, for errors.

    Returns:
        A dict; only `mean_abs_difference` of a regression.
    """
    values = rows.flat(of_model.task, name, outputs)
    if len(values) != len(of_model.counted):
        raise ValueError(
            f"{name} gives {len(values)} rows of outputs where the model gives "
            f"{len(of_model.counted)}."
        )
    made = rows.converted(of_model.task, name, values[of_model.counted], from_logits)
    if made.shape != of_model.outputs.shape:
        raise _other_width(name, made.shape[1], of_model.classes)
    if of_model.task == "regression":
        return {"mean_abs_difference": _mean(abs(made - of_model.values), of_model.weights)}
    return _of_classes(made, of_model)


def check_width(width, task, shape, name="The teacher"):
    """Raises if a teacher's outputs cannot be those of a model.

    Args:
        width: The size of the last axis of the teacher's outputs.
        task: One of `tasks.TASKS` but text.
        shape: Of the model's outputs, without the rows.
        name: Of the teacher, for errors.
    """
    if task == "binary" or not shape or not width or width == shape[-1]:
        return
    raise _other_width(name, width, shape[-1])


def _other_width(name, width, classes):
    return ValueError(
        f"{name} has {width} outputs a row where the model has {classes}: they cannot be compared. "
        "Pass a teacher of the same classes, or teacher=None."
    )


def _of_classes(teacher, of_model):
    logs, own = probabilities.logs(teacher), probabilities.logs(of_model.logits)
    shares, weights = np.exp(logs), of_model.weights
    same = teacher.argmax(axis=-1) == of_model.logits.argmax(axis=-1)
    divergence = (shares * (logs - own)).sum(axis=-1)
    divergence = divergence.reshape(len(weights), -1).sum(axis=-1)
    return {
        "agreement": _mean(same, weights),
        "kl": _mean(divergence, weights),
        "mean_abs_difference": _mean(abs(shares - np.exp(own)), weights),
    }


def _mean(values, weights):
    means = values.reshape(len(values), -1).mean(axis=-1)
    return float(np.average(means, weights=weights))
