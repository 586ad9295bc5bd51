"""What feature losses compare: distances between features, and between the samples of a batch."""

from typing import Any

import keras

from keras_kd.losses import base

# Why a loss takes no `mask_input`.
WHOLE_ROWS = (
    "compares whole rows and has no positions that could be padding; pool a sequence without its "
    "padding, and read the pooled layer"
)


class RelationalLoss(base.DistillationLoss):
    """Base class of the losses between the samples of a batch; refuses what it cannot compare.

    It refuses a `mask_input` too: no position can be left out of a whole sample.

    Attributes:
        min_batch_size: With fewer samples it is 0 for every model; `fit` refuses such batches.
    """

    min_batch_size = 2

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        base.refuse_mask(self, WHOLE_ROWS)

    def build(self, teacher_outputs_shape: Any, student_outputs_shape: Any) -> None:
        shapes = {"teacher": teacher_outputs_shape, "student": student_outputs_shape}
        for role, shape in shapes.items():
            if len(shape) not in (2, 4):  # padding could not be left out of a sequence
                raise ValueError(
                    f"Distillation loss {self.name!r} compares the rows of a batch and expects "
                    "features of shape [batch, width] or [batch, height, width, channels]. "
                    f"Received: shape {tuple(shape)} from the {role}. Pool a sequence first, and "
                    "read the pooled layer."
                )
        super().build((teacher_outputs_shape, student_outputs_shape))


def per_position(values: Any, rank: Any) -> Any:
    """Values of features without their last axis, per position of a sequence, else per sample.

    Args:
        values: `[batch, ...]`.
        rank: The rank of the features, 3 for sequences.
    """
    axes = list(range(2 if rank == 3 else 1, len(values.shape)))
    return keras.ops.mean(values, axis=axes) if axes else values


def vectors(features: Any) -> Any:
    """`[batch, ...]` as `[batch, width]`."""
    rows = keras.ops.shape(features)[0]
    width = 1
    for size in keras.ops.shape(features)[1:]:
        width *= size
    return keras.ops.reshape(features, (rows, width))


def differences(features: Any) -> Any:
    """`f_i - f_j`, `[batch, batch, width]`; exact where rows are close, unlike a Gram matrix."""
    rows = vectors(features)
    return keras.ops.expand_dims(rows, 1) - keras.ops.expand_dims(rows, 0)


def norms(x: Any) -> Any:
    """Norms over the last axis, kept as 1; the gradient at zero is zero, not NaN."""
    squares = keras.ops.sum(x * x, axis=-1, keepdims=True)
    safe = keras.ops.where(squares > 0, squares, keras.ops.ones_like(squares))
    return keras.ops.where(squares > 0, keras.ops.sqrt(safe), 0.0)


def divided(x: Any, by: Any) -> Any:
    """`x / by`, and 0 where `by` is 0."""
    safe = keras.ops.where(by > 0, by, keras.ops.ones_like(by))
    return keras.ops.where(by > 0, x / safe, 0.0)


def unit(x: Any) -> Any:
    """Vectors of length 1, over the last axis; zero where they are zero."""
    return divided(x, norms(x))


def huber(d: Any) -> Any:
    """`d^2 / 2` for `|d| < 1`, else `|d| - 1/2`."""
    d = keras.ops.abs(d)
    return keras.ops.where(d < 1.0, 0.5 * d * d, d - 0.5)


def distinct(features: Any) -> Any:
    """`[batch, batch]`: 0 for a sample and itself, else 1."""
    rows = keras.ops.arange(keras.ops.shape(features)[0])
    different = keras.ops.expand_dims(rows, 0) != keras.ops.expand_dims(rows, 1)
    return keras.ops.cast(different, "float32")


def count(features: Any) -> Any:
    """The number of samples, float32."""
    return keras.ops.cast(keras.ops.shape(features)[0], "float32")


# Distances between two models' features.


def mean_squared_error(teacher: Any, student: Any) -> Any:
    """`mean_c (t_c - s_c)^2` over the last axis."""
    return keras.ops.mean(keras.ops.square(teacher - student), axis=-1)


def cosine_distance(teacher: Any, student: Any) -> Any:
    """`1 - t . s / (|t| |s|)` over the last axis; 1 where either is zero."""
    dot = keras.ops.sum(teacher * student, axis=-1)
    squares = keras.ops.sum(teacher**2, axis=-1) * keras.ops.sum(student**2, axis=-1)
    # Of a zero vector the root has no gradient, and NaN would reach every weight.
    safe = keras.ops.where(squares > 0, squares, keras.ops.ones_like(squares))
    return 1.0 - keras.ops.where(squares > 0, dot / keras.ops.sqrt(safe), 0.0)


def smooth_l1(teacher: Any, student: Any) -> Any:
    """`mean_c huber(t_c - s_c)` with `huber(d) = d^2 / 2` for `|d| < 1`, else `|d| - 1/2`."""
    return keras.ops.mean(huber(teacher - student), axis=-1)


DISTANCES = {"mse": mean_squared_error, "cosine": cosine_distance, "smooth_l1": smooth_l1}


def distance(owner: Any, loss: Any, teacher: Any, student: Any) -> Any:
    """The distance of each sample or position, by its name or by a Keras loss.

    Args:
        owner: The distillation loss, for the message.
        loss: A name in `DISTANCES`, a `keras.losses.Loss` or a function.
        teacher: Features of the teacher.
        student: Features of the student, of the same shape.
    """
    if isinstance(loss, str):
        return DISTANCES[loss](teacher, student)
    values = base.unreduced(loss, teacher, student)
    if len(values.shape) == 0:
        raise ValueError(
            f"The function given as `loss` to {owner.name!r} returned one number for the batch. "
            "It must return a value for each row, shape [batch] or [batch, ...]."
        )
    return values
