"""Shapes of logits."""

from keras_kd.losses import projector as projectors
from keras_kd.losses.activation import last_activation, output_keys


def check_shapes(loss, teacher_shape, student_shape, least=1):
    """Raises unless both are `[batch, ..., classes]` of one shape, with `least` classes or more."""
    teacher_shape, student_shape = tuple(teacher_shape), tuple(student_shape)
    fits = len(teacher_shape) >= 2 and projectors.agree(teacher_shape[1:], student_shape[1:])
    if not fits or (student_shape[-1] or least) < least:
        raise ValueError(
            f"Distillation loss {loss.name!r} expects logits of one shape, [batch, ..., classes]"
            f"{f' with at least {least} classes' if least > 1 else ''}. "
            f"Received: teacher {teacher_shape}, student {student_shape}."
        )


def refuse(loss, teacher, student, activation):
    """Raises if a model is known to end in an activation that the loss itself applies."""
    models = (("teacher", teacher, loss.teacher_layer), ("student", student, loss.student_layer))
    for role, model, layer in models:
        if layer is not None:  # it reads an inner layer, not the output
            continue
        keys = output_keys(model) if loss.output_key is None else [loss.output_key]
        if any(last_activation(model, key) == activation for key in keys):
            raise ValueError(
                f"The {role} ends in {activation}, but {type(loss).__name__} expects logits. "
                f"Remove the {activation} from its last layer (activation=None)."
            )
