"""Shapes of logits."""

from keras_kd.losses import projector as projectors
from keras_kd.losses.activation import last_activation, output_keys

# Softmax over one class is 1, whatever the logit: such a loss would be 0 without a word.
ONE_VALUE = (
    "Of one value a row softmax says nothing: use keras_kd.losses.SigmoidKD where it is the logit "
    "of yes or no, RegressionKD where it is a number"
)


def check_shapes(loss, teacher_shape, student_shape, least=1):
    """Raises unless both are `[batch, ..., classes]` of one shape, with `least` classes or more."""
    teacher_shape, student_shape = tuple(teacher_shape), tuple(student_shape)
    fits = len(teacher_shape) >= 2 and projectors.agree(teacher_shape[1:], student_shape[1:])
    if not fits or (student_shape[-1] or least) < least:
        raise ValueError(
            f"Distillation loss {loss.name!r} expects logits of one shape, [batch, ..., classes]"
            f"{f' with at least {least} classes' if least > 1 else ''}. "
            f"Received: teacher {teacher_shape}, student {student_shape}."
            f"{f' {ONE_VALUE}.' if student_shape[-1:] == (1,) else ''}"
        )


def check_classes(loss, student_outputs):
    """Raises if the student has one value a row, for a loss between distributions over classes."""
    if student_outputs.shape[-1] == 1:
        raise ValueError(
            f"Distillation loss {loss.name!r} compares distributions over classes; the student's "
            f"output has shape {tuple(student_outputs.shape)}. {ONE_VALUE}."
        )


def refuse(loss, teacher, student):
    """Raises if a model is known to end in probabilities."""
    models = (("teacher", teacher, loss.teacher_layer), ("student", student, loss.student_layer))
    for role, model, layer in models:
        if layer is not None:  # it reads an inner layer, not the output
            continue
        keys = output_keys(model) if loss.output_key is None else [loss.output_key]
        activations = {last_activation(model, key) for key in keys}
        found = next((each for each in ("softmax", "sigmoid") if each in activations), None)
        if found is not None:
            raise ValueError(
                f"The {role} ends in {found}, but {type(loss).__name__} expects logits. "
                f"Remove the {found} from its last layer (activation=None)."
            )
