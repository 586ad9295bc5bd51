"""A distiller's arguments and a user's hooks: made uniform, or refused."""

import inspect

import keras
import numpy as np

from keras_kd import models
from keras_kd._utils import validation
from keras_kd._utils.validation import non_negative
from keras_kd.losses import DistillationLoss, SoftTargets, TokenKD
from keras_kd.losses.keras_compat import KerasDistillation, is_keras_distillation_loss
from keras_kd.weighting import Weighting

# Makes the distiller's arguments uniform: two numbers and a list of losses.


def mixture(alpha, beta, student_loss_weight):
    """Returns `(alpha, beta)`.

    Raises:
        ValueError: One is not a finite number >= 0, or both spellings are used.
    """
    if student_loss_weight is None:
        return (
            non_negative("alpha", 0.5 if alpha is None else alpha),
            non_negative("beta", 0.5 if beta is None else beta),
        )
    if alpha is not None or beta is not None:
        raise ValueError(
            "`student_loss_weight=w` is another spelling of `alpha=w, beta=1-w`; give one of them. "
            f"Received: student_loss_weight={student_loss_weight}, alpha={alpha}, beta={beta}"
        )
    is_number = isinstance(student_loss_weight, (int, float, np.number))
    if not is_number or not 0 <= student_loss_weight <= 1:
        raise ValueError(
            "Invalid value for argument `student_loss_weight`. Expected a number between 0 and 1. "
            f"Received: student_loss_weight={student_loss_weight!r}"
        )
    return float(student_loss_weight), 1.0 - float(student_loss_weight)


def check_loss_weights(given):
    """Raises if `compile` got metrics, which `keras.distillation` takes in this place."""
    for each in keras.tree.flatten(given):
        if isinstance(each, (str, keras.metrics.Metric, keras.losses.Loss)):
            raise ValueError(
                "`loss_weights` of compile must be numbers, as of keras.Model.compile. Received: "
                f"{each!r}. Name what you mean: compile(optimizer, loss, metrics=[...])."
            )


def check_attached(loss):
    """Raises for a loss that decides how the models run, and so must be there from the start."""
    if isinstance(loss, TokenKD):
        raise ValueError(
            "A TokenKD cannot be attached: with it the models run without their heads. Give it to "
            "the constructor, Distiller(teacher, student, keras_kd.losses.TokenKD(...)); its "
            "weight may be 0 at first."
        )


def check_without_logits(distiller, *metrics):
    """Raises for what needs the logits that a `TokenKD` leaves out."""
    wanted = {
        "metrics": next((each for each in metrics if each), None),
        "weighting": distiller.weighting,
        "the student's own `compute_loss`": distiller.student_computes_loss or None,
    }
    for name, value in wanted.items():
        if value is not None:
            raise ValueError(
                f"A TokenKD leaves the logits out, and {name} need them: `token_accuracy` and "
                "`perplexity` are reported anyway. Leave it out, or use keras_kd.losses."
                f"SoftTargets. Received: {value!r}"
            )


def mask_input(given):
    """Returns the name of an input, or a dict from outputs to such names, or `None`."""
    if not isinstance(given, dict):
        return validation.input_name("mask_input", given)
    return {
        validation.text("mask_input", key, "names of outputs"): validation.input_name(
            "mask_input", name
        )
        for key, name in given.items()
    }


def check_weighting(weighting):
    """Raises unless it is a `Weighting` or `None`."""
    if weighting is not None and not isinstance(weighting, Weighting):
        raise ValueError(
            "`weighting` must be a keras_kd.weighting.Weighting, such as "
            f"keras_kd.weighting.TeacherConfidence(). Received: weighting={weighting!r}"
        )


def loss_list(losses, weights, student):
    """Returns a list of `DistillationLoss` from any of the forms that `Distiller` takes."""
    if losses is None:
        losses = [SoftTargets(temperature=4.0)]
    elif isinstance(losses, dict):
        losses = _by_output(losses.items(), student)
    elif isinstance(losses, (list, tuple)):
        if any(loss is None for loss in losses):
            losses = _by_output(enumerate(losses), student)
        losses = list(losses)
    else:
        losses = [losses]
    if not losses:
        raise ValueError(
            "`distillation_losses` is empty. Pass at least one loss, such as "
            "keras_kd.losses.SoftTargets(temperature=4.0)."
        )
    losses = [as_loss(loss) for loss in losses]
    if len({id(loss) for loss in losses}) < len(losses):
        raise ValueError(
            "`distillation_losses` has the same loss object twice. Make two, or one with twice the "
            "weight."
        )
    of_tokens = [loss.name for loss in losses if isinstance(loss, TokenKD)]
    if len(of_tokens) > 1:
        raise ValueError(f"A distiller takes one TokenKD. Received: {of_tokens}")
    _set_weights(losses, weights)
    return losses


def _by_output(items, student):
    chosen: list[DistillationLoss] = []
    names = models.output_names(student)
    for key, loss in items:
        if isinstance(key, str) and names and key not in names:
            raise ValueError(
                f"`distillation_losses` names output {key!r}; the student's outputs are {names}."
            )
        if loss is None:
            continue
        loss = as_loss(loss)
        if any(loss is other for other in chosen):
            raise ValueError(
                "`distillation_losses` gives the same loss object to two outputs. Give each output "
                "a loss object of its own."
            )
        loss.output_key = key
        chosen.append(loss)
    return chosen


def as_loss(loss):
    """A `DistillationLoss` of a loss in any form that `Distiller` takes, or raises."""
    if isinstance(loss, DistillationLoss):
        return loss
    if is_keras_distillation_loss(loss):
        return KerasDistillation(loss)
    hint = ""
    if isinstance(loss, (str, keras.losses.Loss)) or callable(loss):
        hint = (
            " A Keras loss compares labels with predictions; to distill from logits use "
            "keras_kd.losses.SoftTargets, or subclass DistillationLoss."
        )
    raise ValueError(
        "`distillation_losses`: a distillation loss must be a keras_kd.losses.DistillationLoss or "
        f"a loss object of keras.distillation. Received: {loss!r}.{hint}"
    )


def _set_weights(losses, weights):
    if weights is None:
        return
    weights = list(weights) if isinstance(weights, (list, tuple, np.ndarray)) else [weights]
    if len(weights) != len(losses):
        raise ValueError(
            "`distillation_loss_weights` must have one number for each of the "
            f"{len(losses)} distillation losses. Received: {weights}"
        )
    for loss, weight in zip(losses, weights, strict=True):
        loss.weight = non_negative("distillation_loss_weights", weight)


# Hooks that a user's class overrides: called as Keras calls them, or refused before training.


# What the distillers do themselves, and what to do instead of overriding it in a student.
_REMEDIES = {
    "train_step": "put what it adds to the loss into its `compute_loss` (or `add_loss`), which the "
    "distiller calls, or move the step to `train_step` of a subclass of keras_kd.Distiller",
    "test_step": "override `test_step` in a subclass of keras_kd.Distiller",
    "make_train_function": "override `make_train_function` in a subclass of keras_kd.Distiller",
    "make_test_function": "override `make_test_function` in a subclass of keras_kd.Distiller",
    "compute_metrics": "override `compute_metrics` in a subclass of keras_kd.Distiller",
    "compute_loss": "give what it adds to `add_loss` in its `call`, or train it as the student of "
    "a keras_kd.Distiller, which calls it",
}
# Those of a student that a `Distiller` never calls, and of a model that a `SupervisedModel` does
# not.
OF_STUDENT = tuple(name for name in _REMEDIES if name != "compute_loss")
OF_LEARNER = tuple(_REMEDIES)
# Whose methods are the usual ones.
_USUAL = ("keras", "keras_kd")


def is_overridden(model, name):
    """Whether a method of a model is neither Keras' nor the library's own."""
    if name in vars(model):
        return True
    module = inspect.unwrap(getattr(type(model), name)).__module__ or ""
    return module.partition(".")[0] not in _USUAL


def check(model, role, names):
    """Raises if a model overrides hooks that its distiller would never call.

    Args:
        model: A `keras.Model` that is trained inside of another one.
        role: What it is, such as `"student"`.
        names: Of the hooks that are not called.
    """
    for name in names:
        if is_overridden(model, name):
            raise ValueError(
                f"The {role}'s class {type(model).__name__} overrides `{name}`, which is never "
                f"called: the distiller makes the step. Instead, {_REMEDIES[name]}."
            )


def call_compute_loss(model, x, y, y_pred, sample_weight, training):
    """`compute_loss` of a model, also of one that does not take `training`, as Keras allows."""
    arguments = inspect.signature(model.compute_loss).parameters
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in arguments.values())
    if "training" in arguments or takes_all:
        return model.compute_loss(x, y, y_pred, sample_weight, training=training)
    return model.compute_loss(x, y, y_pred, sample_weight)
